# SPDX-License-Identifier: Apache-2.0
"""The digests: the package against the reference, against the vectors, and against FORMAT.md."""

import hashlib
import json
import struct
from pathlib import Path

import canonical_reference
import make_models
import onnx
import pytest
from graph_strategies import models
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_model_hash.digest import model_record

VECTORS = json.loads(make_models.PATH.read_text(encoding="utf-8"))["models"]
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def digests(model):
    record = model_record(model)
    return {"model": record.model, "graph": record.graph, "weights": record.weights}


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_a_vector_has_its_digests(entry):
    assert digests(make_models.parse(entry)) == {
        key: entry[key] for key in ("model", "graph", "weights")
    }


def test_the_reference_writes_the_vectors():
    assert make_models.make()["models"] == VECTORS


def test_vectors_are_the_same_only_where_they_are_meant_to_be():
    groups = {}
    for entry in VECTORS:
        groups.setdefault((entry["graph"], entry["weights"]), set()).add(entry["name"])
    found = [group for group in groups.values() if len(group) > 1]
    assert sorted(map(sorted, found)) == sorted(map(sorted, make_models.SAME))
    assert len(groups) >= 45


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
        struct.pack("<4QqQ2f", 1, 0, 1, 1, 2, 8, 1.0, 2.0),
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


@settings(max_examples=200, deadline=None)
@given(st.booleans().flatmap(lambda dead: models(dead=dead)))
def test_generated_models_have_the_references_digests(model):
    assert digests(model) == canonical_reference.digests(model)


@settings(max_examples=50, deadline=None)
@given(st.booleans().flatmap(lambda dead: models(dead=dead)))
def test_generated_models_are_valid(model):
    onnx.checker.check_model(model, full_check=True)
