# SPDX-License-Identifier: Apache-2.0
"""What holds for every file of parameters, and for the graph executor's graph."""

import contextlib
import io
import os
import random
import struct
import tracemalloc

import numpy as np
import pytest
import tvm
from conftest import run_python
from parameter_files import ARRAYS, FILES, OTHER_RECORD, PARAMETERS, RECORD, write_parameters

from tvm_model_hash import read_artifact, read_interface, read_record, write_record
from tvm_model_hash.artifact import record_io
from tvm_model_hash.artifact.record_io import Role
from tvm_model_hash.cli import main
from tvm_model_hash.errors import ArtifactError, ModelHashError

KINDS = {
    "tvm": "TVM parameters",
    "npz": "NumPy arrays",
    "compressed npz": "NumPy arrays",
    "tensor cache": "tensor cache",
    "bf16 tensor cache": "tensor cache",
    "safetensors": "safetensors",
    "safetensors with metadata": "safetensors",
    "graph": "graph executor graph",
}
MEBIBYTE = 1 << 20


@pytest.mark.parametrize("form", PARAMETERS)
def test_the_tensors_are_named(written, form):
    path = written / FILES[form]
    artifact = read_artifact(path)
    assert artifact.role is Role.PARAMETERS
    assert sorted(artifact.tensors) == sorted(ARRAYS)
    assert (artifact.kind, artifact.container) == (KINDS[form], "file")
    assert artifact.size == path.stat().st_size
    assert artifact.files == (("params_shard_0.bin",) if "cache" in form else ())
    assert artifact.record is None
    assert not artifact.needs_kernels
    assert read_interface(path) is None


def test_the_name_of_the_file_does_not_matter(written, files):
    for form, name in FILES.items():
        os.rename(files / name, files / "x.so")
        assert read_artifact(files / "x.so").kind == KINDS[form]


@pytest.mark.parametrize("form", FILES)
def test_a_tag_is_read_and_changes_nothing_else(files, form):
    path = files / FILES[form]
    before = read_artifact(path)
    assert write_record(path, RECORD) == str(path)
    after = read_artifact(path)
    assert after.record == read_record(path) == RECORD
    assert (after.role, after.kind, after.tensors) == (before.role, before.kind, before.tensors)
    assert (after.inputs, after.files) == (before.inputs, before.files)


@pytest.mark.parametrize("form", FILES)
def test_stripping_gives_back_the_bytes(files, form):
    path = files / FILES[form]
    stock = path.read_bytes()
    write_record(path, None)
    assert path.read_bytes() == stock
    write_record(path, RECORD)
    tagged = path.read_bytes()
    assert tagged != stock
    write_record(path, OTHER_RECORD)
    assert read_record(path) == OTHER_RECORD
    write_record(path, RECORD)
    assert path.read_bytes() == tagged
    write_record(path, OTHER_RECORD)
    write_record(path, None)
    assert path.read_bytes() == stock


@pytest.mark.parametrize("form", FILES)
def test_the_command_tags_shows_and_strips(files, form, capsys):
    path = files / FILES[form]
    stock = path.read_bytes()
    assert main(["tag", str(path), "--model", str(RECORD)]) == 0
    assert read_record(path) == RECORD
    # A graph runs with kernels, of which nothing is known here.
    assert main(["check", RECORD.model, str(path)]) == (3 if form == "graph" else 0)
    assert main(["check", OTHER_RECORD.model, str(path)]) == 1
    capsys.readouterr()
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{path}: {KINDS[form]}, " in shown
    assert RECORD.model in shown
    assert main(["strip", str(path)]) == 0
    assert path.read_bytes() == stock
    assert main(["check", RECORD.model, str(path)]) == 3


@pytest.mark.parametrize("tag", [None, RECORD], ids=["stock", "tagged"])
@pytest.mark.parametrize("form", FILES)
def test_a_file_cut_anywhere_is_an_error(files, form, tag):
    path = files / FILES[form]
    write_record(path, tag)
    data = path.read_bytes()
    sizes = {round(i * (len(data) - 1) / 199) for i in range(200)} | {len(data) - 1}
    # Without its trailer a list of tensors is whole; cut inside it, it is not.
    if form == "tvm" and tag:
        trailer = 8 + len(str(tag))
        sizes = {size for size in sizes if size != len(data) - trailer}
        sizes |= {len(data) - trailer + 1, len(data) - trailer + 8}
    for size in sizes:
        path.write_bytes(data[:size])
        with pytest.raises(ModelHashError):
            read_artifact(path)


@pytest.mark.parametrize("tag", [None, RECORD], ids=["stock", "tagged"])
@pytest.mark.parametrize("form", FILES)
def test_what_stands_behind_the_end_is_an_error(files, form, tag):
    path = files / FILES[form]
    write_record(path, tag)
    data = path.read_bytes()
    for more in (b"\0", b"x" * 5000, b"{}", data):
        path.write_bytes(data + more)
        with pytest.raises(ModelHashError):
            read_artifact(path)


@pytest.mark.parametrize("form", FILES)
def test_a_damaged_file_is_a_typed_error(files, form):
    path = files / FILES[form]
    write_record(path, RECORD)
    data = path.read_bytes()
    rng = random.Random(0)
    errors = 0
    structure = [*range(min(len(data), 700)), *range(max(len(data) - 700, 0), len(data))]
    for _ in range(700):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            damaged[rng.choice(structure)] = rng.choice((0, 0x22, 0x7B, 0x7D, 0x80, 0xFF))
        path.write_bytes(damaged)
        with contextlib.suppress(ModelHashError):
            read_artifact(path)
            continue
        errors += 1
        with pytest.raises(ModelHashError):
            write_record(path, OTHER_RECORD)
        assert path.read_bytes() == damaged
    assert errors > 50


class _Counting(io.FileIO):
    count = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        _Counting.count += count
        return count


@pytest.mark.parametrize("form", [form for form in PARAMETERS if form != "compressed npz"])
def test_the_size_of_the_tensors_does_not_matter(tmp_path, monkeypatch, form):
    monkeypatch.setattr(
        record_io, "open_regular", lambda path: io.BufferedReader(_Counting(path), 1024)
    )
    counts = []
    for rows in (1024, 32 * 1024):
        directory = tmp_path / str(rows)
        directory.mkdir()
        write_parameters(directory, {name: np.zeros((rows, 256), "float32") for name in "ab"})
        _Counting.count = 0
        tracemalloc.start()
        try:
            assert len(read_artifact(directory / FILES[form]).tensors) == 2
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MEBIBYTE
        counts.append(_Counting.count)
    # A zip archive is searched for its end behind a comment of up to 64 KiB.
    assert 0 < counts[0] < (80 if form == "npz" else 16) * 1024
    assert counts[1] < counts[0] + 4096


@pytest.mark.parametrize("form", ["tvm", "npz", "safetensors"])
def test_the_data_are_not_held_in_memory_when_they_are_tagged(tmp_path, form):
    write_parameters(tmp_path, {"w": np.zeros((32 * 1024, 256), "float32")})
    tracemalloc.start()
    try:
        write_record(tmp_path / FILES[form], RECORD)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MEBIBYTE


def test_a_list_of_tensors_has_each_name_once(files):
    path = files / FILES["tvm"]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x06\0\0\0\0\0\0\0scalar", b"\x01\0\0\0\0\0\0\0w"))
    with pytest.raises(ArtifactError, match="it has two tensors 'w'"):
        read_artifact(path)


def test_a_list_has_as_many_tensors_as_names(files):
    path = files / FILES["tvm"]
    data = path.read_bytes()
    count = struct.pack("<Q", len(ARRAYS))
    second = data.index(count, 24)
    for wrong in (len(ARRAYS) - 1, len(ARRAYS) + 1):
        path.write_bytes(data[:second] + struct.pack("<Q", wrong) + data[second + 8 :])
        with pytest.raises(ArtifactError, match="there are 3 names, and not as many tensors"):
            read_artifact(path)


def test_a_name_in_a_list_is_utf_8(files):
    path = files / FILES["tvm"]
    path.write_bytes(path.read_bytes().replace(b"scalar", b"scal\xffr"))
    with pytest.raises(ArtifactError, match="a name is not UTF-8"):
        read_artifact(path)


def test_a_list_of_more_tensors_than_the_limit_is_not_read(files):
    path = files / FILES["tvm"]
    data = bytearray(path.read_bytes())
    data[16:24] = (1_000_001).to_bytes(8, "little")
    path.write_bytes(data + bytes(10_000_000))
    with pytest.raises(ArtifactError, match="has 1000001 tensors, more than the limit of 1000000"):
        read_artifact(path)


# In a process in which this package cannot be imported.
STOCK = """
import sys
sys.modules["tvm_model_hash"] = None
import numpy as np
"""
LOADERS = {
    "tvm": "import tvm\nload = lambda path: tvm.runtime.load_param_dict(open(path, 'rb').read())",
    "npz": "load = np.load",
    "compressed npz": "load = np.load",
    "tensor cache": "import os\n"
    "from tvm.contrib import tvmjs\n"
    "import tvm\n"
    "load = lambda path: tvmjs.load_ndarray_cache(path, tvm.cpu())[0]",
    "safetensors": "import safetensors.numpy\nload = safetensors.numpy.load_file",
    "safetensors with metadata": "import safetensors.numpy\nload = safetensors.numpy.load_file",
}
SAVE = """
arrays = {k: a.numpy() if hasattr(a, "numpy") else a for k, a in dict(load(sys.argv[1])).items()}
np.savez(sys.argv[2], **arrays)
"""


@pytest.mark.parametrize("form", LOADERS)
def test_its_own_loader_loads_what_was_tagged(files, tmp_path, form):
    path = files / FILES[form]
    loaded = []
    for record in (None, RECORD):
        write_record(path, record)
        output = tmp_path / f"{record is None}.npz"
        run_python(STOCK + LOADERS[form] + SAVE, path, output, env={"TVM_MODEL_HASH": "0"})
        loaded.append(dict(np.load(output)))
    stock, tagged = loaded
    assert stock.keys() == tagged.keys() == ARRAYS.keys()
    for name, array in stock.items():
        assert tagged[name].tobytes() == array.tobytes()
        np.testing.assert_allclose(array, ARRAYS[name], atol=0.01 if "cache" in form else 0)


def test_the_lanes_of_vectors_are_not_counted_as_tvm_does_not(tmp_path):
    path = tmp_path / "weights.params"
    tvm.runtime.save_param_dict_to_file({"w": tvm.nd.empty((2,), "float32x4")}, str(path))
    assert tvm.runtime.load_param_dict_from_file(str(path))["w"].dtype == "float32x4"
    assert read_artifact(path).tensors == ("w",)


def test_relay_loads_what_was_tagged(files):
    path = files / FILES["tvm"]
    write_record(path, RECORD)
    loaded = dict(tvm.relay.load_param_dict(path.read_bytes()))
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].numpy().tobytes() == array.tobytes()
