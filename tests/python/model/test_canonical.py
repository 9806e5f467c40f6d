# SPDX-License-Identifier: Apache-2.0
"""The digests: the package against the reference, against the vectors, and against FORMAT.md."""

import hashlib
import struct
from pathlib import Path

import canonical_reference
import make_models
import onnx
import pytest
from graph_strategies import models
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_model_hash.model.digest import model_record

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def digests(model):
    record = model_record(model)
    return {"model": record.model, "graph": record.graph, "weights": record.weights}


def test_the_streams_of_a_small_model_written_out():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]>\n'
        "g (float[N] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp(x) y = Add(w, a) }"
    )
    name = {
        text: struct.pack("<Q", len(text)) + text.encode()
        for text in ("", "N", "x", "y", "Exp", "Add")
    }
    domain = name[""]
    standard = struct.pack("<Qq", 1, 21)
    graph = [
        b"\x16\0\0\0\0\0\0\0tvm-model-hash/graph/1",
        standard,
        *(struct.pack("<Q", 1), name["x"]),  # one input
        *(struct.pack("<5Q", 1, 1, 1, 1, 2), name["N"], struct.pack("<Q", 0)),
        *(struct.pack("<Q", 2), domain, name["Exp"], name[""], standard),  # two nodes
        struct.pack("<4Q", 1, 1, 0, 0),  # an input: input 0
        struct.pack("<3Q", 1, 1, 0),  # an output, no attributes
        *(domain, name["Add"], name[""], standard),
        struct.pack("<7Q", 2, 3, 0, 4, 0, 0, 0),  # two inputs: weight 0, node 0's output 0
        struct.pack("<3Q", 1, 1, 0),
        *(struct.pack("<Q", 1), name["y"]),  # one output
        struct.pack("<5Qq", 1, 1, 1, 1, 1, 2),
        struct.pack("<4Q", 4, 0, 1, 0),
        struct.pack("<Q", 0),  # no functions
        struct.pack("<4Qq", 1, 0, 1, 1, 2),  # one weight
    ]
    weights = [
        b"\x18\0\0\0\0\0\0\0tvm-model-hash/weights/1",
        struct.pack("<4QqQ", 1, 0, 1, 1, 2, 8),
        hashlib.sha256(struct.pack("<2f", 1.0, 2.0)).digest(),
    ]
    assert digests(model) == {
        "model": hashlib.sha256(model.SerializeToString()).hexdigest(),
        "graph": hashlib.sha256(b"".join(graph)).hexdigest(),
        "weights": hashlib.sha256(b"".join(weights)).hexdigest(),
    }


def node_tests():
    """ONNX's own models, one or some for each operator."""
    if (DATA / "node").is_dir():
        paths = sorted((DATA / "node").glob("*/model.onnx"))
        return [(path.parent.name, onnx.load(path)) for path in paths]
    from onnx.backend.test.loader import load_model_tests  # a newer onnx makes them when asked

    return [(case.name, case.model) for case in load_model_tests(kind="node")]


@pytest.mark.filterwarnings("ignore")  # of numpy, in onnx's making of the tests
def test_onnx_node_tests_have_the_references_digests():
    cases = node_tests()
    assert len(cases) > 1000
    wrong = [name for name, model in cases if digests(model) != canonical_reference.digests(model)]
    assert wrong == []


@pytest.mark.parametrize("path", sorted(DATA.glob("light/*.onnx")), ids=lambda path: path.stem)
def test_networks_have_the_references_digests(path):
    model = onnx.load(path)
    assert digests(model) == canonical_reference.digests(model)


def test_external_data_is_read(tmp_path):
    model = make_models.parse({"text": make_models.TEXT["weights inside and outside of subgraphs"]})
    path = tmp_path / "model.onnx"
    inline = canonical_reference.digests(model)
    for tensor in tensors(model):
        tensor.raw_data = canonical_reference.typed(tensor)
        tensor.ClearField("float_data")
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0)
    external = canonical_reference.digests(onnx.load(path, load_external_data=False), tmp_path)
    assert {**external, "model": inline["model"]} == inline
    assert digests(path) == {
        **inline,
        "model": hashlib.sha256(onnx.load(path).SerializeToString()).hexdigest(),
    }


def tensors(model):
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute)]
    return [tensor for graph in graphs for tensor in graph.initializer]


def test_a_signalling_nan_is_the_same_in_raw_bytes_and_in_a_typed_field():
    nan = struct.pack("<I", 0x7FA00001)  # Python's floats would turn it into a quiet one
    raw = make_models.parse({"text": make_models.TEXT["a scalar weight"]})
    typed = onnx.ModelProto.FromString(raw.SerializeToString())
    for model, field in ((raw, b"\x4a\x04"), (typed, b"\x22\x04")):
        model.graph.initializer[0].ClearField("float_data")
        model.graph.initializer[0].MergeFromString(field + nan)
    expected = b"\x18\0\0\0\0\0\0\0tvm-model-hash/weights/1"
    expected += struct.pack("<5Q", 1, 0, 1, 0, 4) + hashlib.sha256(nan).digest()
    for model in (raw, typed):
        assert digests(model) == canonical_reference.digests(model)
        assert digests(model)["weights"] == hashlib.sha256(expected).hexdigest()


@settings(max_examples=200, deadline=None)
@given(st.booleans().flatmap(lambda dead: models(dead=dead)))
def test_generated_models_have_the_references_digests(model):
    assert digests(model) == canonical_reference.digests(model)


@settings(max_examples=50, deadline=None)
@given(st.booleans().flatmap(lambda dead: models(dead=dead)))
def test_generated_models_are_valid(model):
    onnx.checker.check_model(model, full_check=True)
