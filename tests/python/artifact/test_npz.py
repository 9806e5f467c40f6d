# SPDX-License-Identifier: Apache-2.0
import io
import os
import struct
import zipfile

import numpy as np
import pytest
from parameter_files import ARRAYS, OTHER_RECORD, RECORD

from tvm_model_hash import read_artifact, write_record
from tvm_model_hash.errors import (
    ArtifactError,
    FixedRecordError,
    RecordError,
    UnknownArtifactError,
)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **ARRAYS)
    return path


def test_the_record_is_the_comment(npz):
    stock = npz.read_bytes()
    write_record(npz, RECORD)
    data = npz.read_bytes()
    assert data[:-2] != stock
    assert data == stock[:-2] + struct.pack("<H", len(str(RECORD))) + str(RECORD).encode()
    with zipfile.ZipFile(npz) as archive:
        assert archive.comment.decode() == str(RECORD)
        assert archive.testzip() is None


def test_arrays_without_names_and_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    for arrays in ((), (np.zeros(3), np.zeros(()))):
        np.savez(path, *arrays)
        write_record(path, RECORD)
        artifact = read_artifact(path)
        assert artifact.tensors == tuple(f"arr_{i}" for i in range(len(arrays)))
        assert artifact.record == RECORD
        assert len(np.load(path)) == len(arrays)


@pytest.mark.parametrize("limit", [0, 100, 1500])
def test_large_archives_are_read(tmp_path, monkeypatch, limit):
    # As zipfile writes sizes and offsets above 4 GiB, and more than 65,535 files.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    stock = path.read_bytes()
    assert b"PK\6\6" in stock
    write_record(path, RECORD)
    artifact = read_artifact(path)
    assert artifact.record == RECORD
    assert artifact.tensors == tuple(ARRAYS)
    assert np.load(path)["w"].tobytes() == ARRAYS["w"].tobytes()
    tagged = path.read_bytes()
    damaged = [tagged[:size] for size in range(0, len(tagged), 11)]
    damaged.append(tagged.replace(b"PK\6\6", b"PK\6\5"))
    damaged.append(tagged.replace(b"PK\6\7", b"\0PK\6\7"))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ArtifactError):
            read_artifact(path)
    path.write_bytes(tagged)
    write_record(path, None)
    assert path.read_bytes() == stock


def test_an_archive_that_was_written_to_a_pipe_is_read(tmp_path):
    class Pipe(io.FileIO):  # the sizes stand behind the data
        def seekable(self):
            return False

        def tell(self):
            raise io.UnsupportedOperation

    path = tmp_path / "a.npz"
    with Pipe(path, "w") as file:
        np.savez_compressed(file, **ARRAYS)
    write_record(path, RECORD)
    assert read_artifact(path).tensors == tuple(ARRAYS)
    assert np.load(path)["w"].tobytes() == ARRAYS["w"].tobytes()


def test_a_name_is_read_as_numpy_reads_it(npz):
    with zipfile.ZipFile(npz) as archive:
        flags = [info.flag_bits for info in archive.infolist()]
    assert flags == [0, 0x800, 0]  # the second name is said to be UTF-8
    data = npz.read_bytes()
    assert data.count(struct.pack("<H", 0x800)) == 2
    npz.write_bytes(data.replace(struct.pack("<H", 0x800), bytes(2)))
    names = tuple(np.load(npz).files)
    assert names != tuple(ARRAYS)
    assert read_artifact(npz).tensors == names


def test_a_comment_of_others_is_kept(npz):
    with zipfile.ZipFile(npz, "a") as archive:
        archive.comment = b"by the night shift"
    before = npz.read_bytes()
    assert read_artifact(npz).record is None
    with pytest.raises(FixedRecordError, match="is taken: .*by the night shift"):
        write_record(npz, RECORD)
    write_record(npz, None)
    assert npz.read_bytes() == before


def test_a_malformed_record_is_an_error(npz):
    with zipfile.ZipFile(npz, "a") as archive:
        archive.comment = str(RECORD).replace("sha256", "sha512").encode()
    for act in (read_artifact, lambda path: write_record(path, OTHER_RECORD)):
        with pytest.raises(RecordError, match=r"weights\.npz': key 'model'"):
            act(npz)


def test_an_archive_is_parameters_if_there_is_an_array_in_it(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"data")
    with pytest.raises(UnknownArtifactError):
        read_artifact(path)
    for names in (("a.txt", "w.npy"), ("w.npy", "a.txt")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"data")
        assert read_artifact(path).tensors == ("w",)
        os.truncate(path, path.stat().st_size - 1)
        expected = UnknownArtifactError if names[0] == "a.txt" else ArtifactError
        with pytest.raises(ArtifactError) as caught:
            read_artifact(path)
        assert caught.type is expected


def _changed(data, position, layout, value):
    changed = bytearray(data)
    struct.pack_into(layout, changed, position, value)
    return bytes(changed)


def test_what_contradicts_itself_is_an_error(npz):
    data = npz.read_bytes()
    end = len(data) - 22
    directory = struct.unpack_from("<L", data, end + 16)[0]
    second = data.index(b"PK\1\2", directory + 4)
    third = data.index(b"PK\1\2", second + 4)
    first = struct.unpack_from("<L", data, directory + 20)[0]
    damages = {
        "its directory has .* and its end is at": _changed(data, end + 16, "<L", directory + 1),
        "fewer entries than it says": _changed(data, end + 10, "<H", 4),
        "more entries than it says": _changed(data, end + 10, "<H", 2),
        "an entry of its directory is malformed": _changed(data, directory + 28, "<H", 60_000),
        "'w.npy' is not where the directory says": _changed(data, 30, "<B", ord("v")),
        "does not fit before the directory": _changed(data, third + 20, "<L", len(data)),
        "lies inside another file": _changed(data, directory + 20, "<L", first + 100),
        "in an extra field that is missing": _changed(data, third + 20, "<L", 0xFFFFFFFF),
        "which has a byte 0": _changed(_changed(data, directory + 46, "<B", 0), 30, "<B", 0),
        "3 bytes stand behind its end, expected 0": data + b"abc",
    }
    magics = {
        "an entry of its directory is malformed": _changed(data, second, "<B", 0),
        "is not where the directory says": _changed(data, data.index(b"PK\3\4", 4), "<B", 0),
    }
    for message, damaged in [*damages.items(), *magics.items()]:
        npz.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=message):
            read_artifact(npz)


def test_a_file_that_stands_twice_is_an_error(npz):
    with zipfile.ZipFile(npz, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("w.npy", b"data")
    for act in (read_artifact, lambda path: write_record(path, RECORD)):
        with pytest.raises(ArtifactError, match="two tensors 'w'"):
            act(npz)


def test_a_directory_above_the_limit_is_not_read(npz):
    # A comment of 1 KB for each file would be 33 MB for 32,768.
    size = 32 * 1024 * 1024 + 1
    data = npz.read_bytes()[:-22] + bytes(size)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, len(data) - size, 0)
    npz.write_bytes(data + end)
    with pytest.raises(ArtifactError, match=f"{size} bytes, more than the limit"):
        read_artifact(npz)
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 0, len(data))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data), 1)
    npz.write_bytes(data + large + locator + end)
    with pytest.raises(ArtifactError, match=f"{2**40} tensors, more than the limit"):
        read_artifact(npz)
