# SPDX-License-Identifier: Apache-2.0
"""Files in files: universal libraries, static libraries, tar archives."""

import gzip
import io
import pathlib
import tarfile
import zipfile

import pytest
from binaries import OTHER_RECORD, RECORD, archive, library, object_file, universal, zig
from containers.test_platforms import opened, payloads

from tvm_model_hash.containers import tar
from tvm_model_hash.errors import ArtifactError, UnknownArtifactError

X86_64, MAC_ARM, MAC_X86 = "x86_64-linux-gnu", "aarch64-macos", "x86_64-macos"
LONG_NAME = "a/" * 60 + "object_with_a_long_name.o"


def tar_of(files, mode="w", format_=tarfile.GNU_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format_) as out:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


# Universal


@pytest.mark.parametrize("wide", [False, True])
def test_all_slices_of_a_universal_library_are_read(wide):
    path = universal(library(MAC_ARM), library(MAC_X86, OTHER_RECORD), wide=wide)
    with opened(path) as found:
        assert found.container == "shared library"
        assert found.platform == "Mach-O arm64, Mach-O x86_64"
        assert payloads(found) == [RECORD, OTHER_RECORD]
        assert [len(one) for one in found.slices] == [1, 1]


def test_a_universal_static_library_is_read():
    path = universal(archive(MAC_ARM, "darwin", RECORD, None), archive(MAC_X86, "darwin", None))
    # As lipo does, the machine of an archive is that of its objects.
    data = bytearray(path.read_bytes())
    data[8:16] = bytes.fromhex("0100000c00000000")
    with opened(bytes(data)) as found:
        assert found.container == "static library"
        assert [len(one) for one in found.slices] == [2, 1]
        assert payloads(found) == [RECORD]


def test_slices_of_different_kinds_are_an_error():
    path = universal(library(MAC_ARM), object_file(MAC_X86))
    with pytest.raises(ArtifactError, match="not of one kind: object file, shared library"):  # noqa: SIM117
        with opened(path):
            pass


def test_a_slice_that_is_no_library_is_an_error():
    data = bytearray(universal(library(MAC_ARM), library(MAC_X86)).read_bytes())
    data[4096:4100] = b"text"
    with pytest.raises(ArtifactError, match=r"slice 0 \(arm64\) of a.lib is not a library"):  # noqa: SIM117
        with opened(bytes(data)):
            pass


# Static libraries


@pytest.mark.parametrize(
    ("target", "format_"),
    [(X86_64, "gnu"), (X86_64, "bsd"), (MAC_ARM, "darwin"), ("x86_64-windows-gnu", "gnu")],
)
def test_all_objects_of_a_static_library_are_read(target, format_):
    with opened(archive(target, format_, RECORD, None, OTHER_RECORD)) as found:
        assert found.container == "static library"
        assert len(found.slices[0]) == 3
        assert payloads(found) == [RECORD, OTHER_RECORD]
        names = [binary.window.source for binary in found.binaries]
        assert names == [f"'a_file_with_a_long_name_{n}.o' in a.lib" for n in range(3)]


def test_a_static_library_of_windows_is_read(tmp_path):
    zig("lib", f"/out:{tmp_path / 'a.lib'}", object_file("x86_64-windows-gnu"))
    with opened(tmp_path / "a.lib") as found:
        assert (found.container, found.platform) == ("static library", "COFF x86_64")
        assert payloads(found) == [RECORD]


def test_a_thin_archive_is_named(tmp_path):
    zig("ar", "--thin", "rcs", tmp_path / "a.a", object_file(X86_64))
    with pytest.raises(UnknownArtifactError, match="a thin archive"), opened(tmp_path / "a.a"):
        pass


def test_a_static_library_cut_between_two_objects_is_an_error():
    data = archive(X86_64, "gnu", RECORD, None).read_bytes()
    second = data.rindex(b"\x7fELF") - 60
    with pytest.raises(ArtifactError, match="table of symbols refers to"), opened(data[:second]):
        pass


# tar


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_all_objects_of_a_tar_are_read(mode, format_):
    files = {
        "lib0.o": object_file(X86_64, None).read_bytes(),
        "notes.txt": b"text",
        LONG_NAME: object_file(X86_64).read_bytes(),
        "lib.a": archive(X86_64, "gnu", OTHER_RECORD).read_bytes(),
    }
    if format_ == tarfile.PAX_FORMAT:
        files["ä.o"] = files["lib0.o"]
    with opened(tar_of(files, mode, format_)) as found:
        assert (found.container, found.platform) == ("tar", "ELF x86_64")
        assert payloads(found) == [RECORD, OTHER_RECORD]
        assert [member.name for member in found.others] == ["notes.txt"]
        sources = [binary.window.source for binary in found.binaries]
        assert f"{LONG_NAME!r} in a.lib" in sources
        assert format_ != tarfile.PAX_FORMAT or "'ä.o' in a.lib" in sources


def test_a_size_in_a_pax_header_counts():
    data = bytearray(tar_of({"a.o": object_file(X86_64).read_bytes()}))
    size = int(data[124:135], 8)
    record = b"size=%d\n" % size
    record = b"%d %s" % (len(record) + 3, record)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    data[124:136] = b"00000000000\0"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    with opened(header.tobuf() + record.ljust(512, b"\0") + bytes(data)) as found:
        assert payloads(found) == [RECORD]


def test_a_package_with_a_library_is_named():
    data = tar_of({"code.ro": b"code", "lib.so": library(X86_64).read_bytes()})
    message = "a tar with a shared library in it, 'lib.so': expected object files"
    with pytest.raises(UnknownArtifactError, match=message), opened(data):
        pass


def test_an_archive_of_another_kind_is_named():
    with pytest.raises(UnknownArtifactError, match="not a tar of object files"):  # noqa: SIM117
        with opened(gzip.compress(b"text")):
            pass
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("a.o", object_file(X86_64).read_bytes())
    with opened(buffer.getvalue()) as found:
        assert found is None


def test_a_compressed_file_is_read_at_any_place():
    seed = pathlib.Path(library(X86_64)).read_bytes() * 40
    data = seed + bytes(3_000_000) + seed[::-1]
    packed = gzip.compress(data, 1)
    window = tar.Window(io.BytesIO(packed + b"behind it"), len(packed) + 9, "a.gz")
    file = tar.Gunzipped(window)
    assert file.size == len(data)
    for place in [*range(0, len(data), 300_001), *range(len(data) - 1, 0, -300_001)]:
        for size in (1, 100_000):
            file.seek(place)
            assert file.read(size) == data[place : place + size]
