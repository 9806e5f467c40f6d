# SPDX-License-Identifier: Apache-2.0
"""A model's file gives what ``onnx.load`` gives, though large tensors stay in it."""

import json
import os
import random
import subprocess
import sys

import make_models
import onnx
import pytest
from conftest import NETWORKS
from google.protobuf import json_format, text_format
from google.protobuf.internal import api_implementation
from graph_strategies import models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_files import GROUP, OddWriter
from test_canonical import DATA
from test_protobuf_bytes import filled_model, large_model, raw, run, written_by_hand
from wire import field, varint

from tvm_model_hash import ModelFileError, model_record
from tvm_model_hash.model import file
from tvm_model_hash.model.contents import FileContent, Source, open_model
from tvm_model_hash.model.protobuf_bytes import serialized


@pytest.fixture(params=[file.LARGE_BYTES, 1])
def large_bytes(request, monkeypatch):
    """From how many bytes on a tensor's data is left in the file."""
    monkeypatch.setattr(file, "LARGE_BYTES", request.param)
    return request.param


def bytes_of(path):
    """What would be hashed for ``model``."""
    pieces = serialized(*open_model(path))
    return b"".join(
        b"".join(map(piece.read, range(len(piece)))) if isinstance(piece, Source) else piece
        for piece in pieces
    )


def left_in(path):
    """The sizes of what is left in the file."""
    return [source.size for _, source in file.load_model(path).ranges]


def outcome(function, argument):
    """What a function gives, or the error that it raises."""
    try:
        return function(argument)
    except Exception as error:
        return type(error), str(error)


def check(path):
    """The file is read as protobuf reads it, or refused if that refuses it."""
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
        is_model = model.HasField("graph")
    except Exception:
        is_model = False
    if is_model:
        assert bytes_of(path) == model.SerializeToString()
        assert outcome(model_record, path) == outcome(model_record, model)
    else:
        with pytest.raises(ModelFileError):
            open_model(path)


def check_bytes(data, path):
    path.write_bytes(data)
    check(path)


# The same as of onnx.load


def test_models_of_the_onnx_wheel(large_bytes):
    paths = sorted(DATA.rglob("*.onnx"))
    assert len(paths) > (1400 if (DATA / "node").is_dir() else 8)
    for path in paths:
        check(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, large_bytes):
    check(NETWORKS[name].path)
    if name != "squeezenet":  # its weights are made by nodes
        assert sum(left_in(NETWORKS[name].path)) > 1e6


def test_vectors(large_bytes, tmp_path):
    entries = json.loads(make_models.PATH.read_text(encoding="utf-8"))["models"]
    for entry in entries:
        check_bytes(make_models.encoded(entry), tmp_path / "m.onnx")


def test_every_large_tensor_is_left_in_the_file(tmp_path):
    onnx.save(filled_model(), tmp_path / "m.onnx")
    assert len(left_in(tmp_path / "m.onnx")) == 15
    assert file.load_model(tmp_path / "m.onnx").proto.ByteSize() < 30000  # 20,000 are typed data


@pytest.mark.usefixtures("large_bytes")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(models(), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_odd_encodings_of_generated_models(tmp_path, model, seed, pads_tags, has_groups):
    path = tmp_path / "m.onnx"
    writer = OddWriter(random.Random(seed), pads_tags=pads_tags, has_groups=has_groups)
    path.write_bytes(writer.write(model))
    check(path)


@pytest.mark.parametrize("odd", [0.02, 0.2, 0.6])
def test_odd_encodings_with_tensors_everywhere(odd, large_bytes, tmp_path):
    path, count = tmp_path / "m.onnx", 0
    for seed in range(40):
        model = filled_model()
        path.write_bytes(OddWriter(random.Random(seed), odd).write(model))
        check(path)
        count += len(left_in(path))
    assert count > 40 * 10  # most stays in the file in spite of it


@pytest.mark.usefixtures("large_bytes")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(st.integers(0, 2**32))
def test_bytes_that_are_broken_are_refused_where_protobuf_refuses_them(tmp_path, seed):
    chooser = random.Random(seed)
    data = bytearray(OddWriter(chooser, 0.1).write(filled_model()))
    for _ in range(chooser.randrange(1, 4)):
        # Not within the data, which is most of it.
        places = [i for i, byte in enumerate(data[:-1]) if byte != data[i + 1]]
        data[chooser.choice(places)] = chooser.randrange(256)
    check_bytes(bytes(data), tmp_path / "m.onnx")


def test_a_file_cut_anywhere_is_refused_where_protobuf_refuses_it(large_bytes, tmp_path):
    model = onnx.ModelProto(ir_version=8, graph=filled_model().graph)
    data = model.SerializeToString()
    for size in [*range(200), *range(200, len(data), 997), *range(len(data) - 50, len(data))]:
        check_bytes(data[:size], tmp_path / "m.onnx")


DATA_A, DATA_B = bytes([1]) * 5000, bytes([2]) * 6000
HEAD = field(1, 5000) + field(2, 2) + field(8, "w")
IN_PIECES = {
    "raw_data twice": [[HEAD, field(9, DATA_B), field(9, DATA_A)]],
    "raw_data twice, first small": [[HEAD, field(9, b"small"), field(9, DATA_A)]],
    "raw_data twice, last small": [[HEAD, field(9, DATA_A), field(9, b"small")]],
    "raw_data first": [[field(9, DATA_A), HEAD]],
    "the tensor twice": [[HEAD, field(9, DATA_B)], [field(9, DATA_A)]],
    "the tensor twice, data first": [[field(9, DATA_A)], [HEAD]],
    "the tensor twice, last small": [[HEAD, field(9, DATA_A)], [field(9, b"small")]],
    "the tensor three times": [[HEAD], [field(9, DATA_A)], [field(8, "v")]],
    "data_location is set": [[HEAD, field(9, DATA_A), field(14, 0)]],
    "data_location before": [[field(14, 0), field(9, DATA_A), HEAD]],
}


@pytest.mark.parametrize("name", IN_PIECES)
def test_what_stands_twice_is_merged(name, tmp_path):
    """In an attribute, in two attributes, and in two halves of a graph."""
    parts = b"".join(field(5, tensor) for tensor in IN_PIECES[name])
    attribute = field(5, field(1, "value") + parts + field(20, 4))
    node = field(1, field(2, "y") + field(4, "Constant") + attribute + attribute)
    initializer = field(5, field(8, "x") + field(9, DATA_B))
    halves = [node + initializer, node + initializer + field(12, field(1, "y"))]
    path = tmp_path / "m.onnx"
    path.write_bytes(b"".join([field(1, 8), *(field(7, half) for half in halves)]))
    check(path)
    expected = 0 if name.endswith("last small") else 1
    assert len(left_in(path)) == 2 * (2 * expected + 1)


@pytest.mark.parametrize("part", ["group", "padded tag"])
def test_what_the_walk_cannot_read_is_left_to_protobuf(part, tmp_path):
    tensor = HEAD + field(9, DATA_A) + GROUP
    if part == "padded tag":
        tensor = HEAD + varint(9 << 3 | 2, 1) + varint(5000) + DATA_A
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, field(5, tensor)))
    check(path)
    assert left_in(path) == []


def test_graphs_within_graphs_to_where_protobuf_ends(tmp_path):
    path = tmp_path / "m.onnx"
    for depth in (10, 32, 33, 34, 500):
        graph = field(5, HEAD + field(9, DATA_A))
        for _ in range(depth):
            graph = field(1, field(5, field(6, graph)))
        check_bytes(field(7, graph), path)
        if depth < 33:
            assert left_in(path) == [5000]
        elif depth > 33:
            with pytest.raises(ModelFileError, match=r"\(DecodeError: "):
                left_in(path)


@pytest.mark.skipif(api_implementation.Type() == "python", reason="runs in the one below")
def test_protobuf_in_python():
    """Tests above, with protobuf's other back end, which takes padded tags for unknown fields."""
    names = "vectors or generated or twice or cannot or graphs"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", names],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        cwd=os.path.join(os.path.dirname(__file__), "..", "..", ".."),
        check=True,
    )


# Memory

LARGE = 900_000_000

MEMORY_RUN = """
import resource, sys
import tvm_model_hash.model.canonical, tvm_model_hash.model.hashing, concurrent.futures.thread
from tvm_model_hash import model_record

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(model_record(sys.argv[1]).model)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write_sparse(path):
    """Write what ``large_model(raw_data=bytes(LARGE))`` would be, with holes for the zeros."""
    model = large_model()
    tensors = [tensor.SerializeToString() for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    head = varint(9 << 3 | 2) + varint(LARGE)
    sizes = [len(tensor) + len(head) + LARGE for tensor in tensors]
    starts = [varint(5 << 3 | 2) + varint(size) for size in sizes]
    graph = model.graph.SerializeToString()
    size = len(graph) + sum(map(len, starts)) + sum(sizes)
    model.ClearField("graph")
    with open(path, "wb") as target:
        target.write(model.SerializeToString() + varint(7 << 3 | 2) + varint(size) + graph)
        for start, tensor in zip(starts, tensors, strict=True):
            target.write(start + tensor + head)
            target.seek(LARGE, os.SEEK_CUR)
        target.truncate()


def test_an_inline_model_over_2_gib_takes_little_memory(tmp_path):
    write_sparse(tmp_path / "m.onnx")
    found, kib = run(MEMORY_RUN, tmp_path / "m.onnx")
    assert found == written_by_hand(inside_was_external=False)
    assert int(kib) < 64 << 10


# What is no model, and what changes


@pytest.mark.parametrize("ending", ["onnxtxt", "json", "textproto", "onnx"])
def test_text_is_refused_by_its_content_and_not_by_its_name(ending, tmp_path):
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 15]> g (float x) => () {}')
    path = tmp_path / f"m.{ending}"
    onnx.save(model, path, format="protobuf")
    assert model_record(path) == model_record(model)
    for text in (
        onnx.printer.to_text(model),
        json_format.MessageToJson(model),
        text_format.MessageToString(model),
    ):
        path.write_text(text)
        with pytest.raises(ModelFileError, match=r"it is text, expected .*onnx\.save"):
            model_record(path)


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, problem in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "it is a directory"),
        (tmp_path / "fifo", "it is a named pipe"),
        ("/dev/zero", "it is a device"),
    ):
        with pytest.raises(ModelFileError, match=problem):
            model_record(path)


def test_a_file_that_ends_early_is_said_to(tmp_path):
    onnx.save(filled_model(), tmp_path / "m.onnx")
    os.truncate(tmp_path / "m.onnx", 50000)
    with pytest.raises(ModelFileError, match="ends within a field: is it cut off"):
        model_record(tmp_path / "m.onnx")


def test_a_path_that_leads_to_the_file(tmp_path):
    onnx.save(filled_model(), tmp_path / "m.onnx")
    os.symlink("m.onnx", tmp_path / "link")
    for path in (tmp_path / "link", str(tmp_path / "link")):
        assert bytes_of(path) == filled_model().SerializeToString()


@pytest.mark.parametrize("change", ["truncated", "written to", "replaced", "removed"])
def test_a_file_that_changes_before_its_weights_are_read(change, tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.ModelProto(graph={"initializer": [raw("w", 9 << 20)]}), path)
    model, contents = open_model(path)
    content = contents.of(model.graph.initializer[0])
    assert isinstance(content, FileContent)
    assert content.read(0) == bytes([1]) * (1 << 20)
    if change == "truncated":
        os.truncate(path, 5 << 20)
    elif change == "written to":
        os.utime(path, ns=(0, 0))
    else:
        path.rename(tmp_path / "old")
        if change == "replaced":
            path.write_bytes((tmp_path / "old").read_bytes())
    with pytest.raises(ModelFileError, match=r"m\.onnx' (changed while|.*No such file)"):
        content.read(5)


def test_a_file_that_changes_while_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    onnx.save(filled_model(), path)
    original = file._Walk.model

    def model(walk):
        found = original(walk)
        with open(path, "ab") as target:
            target.write(field(99, 1))
        return found

    monkeypatch.setattr(file._Walk, "model", model)
    with pytest.raises(ModelFileError, match="changed while it was read"):
        file.load_model(path)


def test_small_data_is_not_left_in_the_file(tmp_path):
    model = onnx.ModelProto(graph={"initializer": [raw("a", 4095), raw("b", 4096)]})
    onnx.save(model, tmp_path / "m.onnx")
    assert left_in(tmp_path / "m.onnx") == [4096]
