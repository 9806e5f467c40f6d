# SPDX-License-Identifier: Apache-2.0
"""The canonical streams: FORMAT.md written out, the reference, and what is refused.

The vectors are in test_vectors.py.
"""

import hashlib
import struct
from pathlib import Path

import canonical_reference
import numpy as np
import onnx
import pytest
from graph_strategies import models
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper
from small_models import (
    attribute_model,
    check_differ,
    check_equal,
    check_invalid,
    floats,
    function_model,
    parse,
    sparse,
    tensor_model,
    tensor_type,
)

from tvm_model_hash.model.digest import model_hash, model_record

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def digests(model):
    record = model_record(model)
    return {"model": record.model, "graph": record.graph, "weights": record.weights}


def u64(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def text(string):
    return u64(len(string)) + string.encode()


def test_record_is_the_digest_of_the_stream_that_format_md_states():
    model = parse(
        "(float[N] x) => (float[?] y) <float[2] w = {1, 2}> { y = Neg <a: int = -3> (x) }"
    )
    model.graph.node[0].input.extend(["", "w"])
    graph = (
        text("tvm-model-hash/graph/1")
        + u64(1, 17)  # ai.onnx
        + u64(1)  # inputs
        + (text("x") + u64(1, 1) + u64(1, 1) + u64(2) + text("N") + u64(0))
        + u64(1)  # nodes
        + (text("") + text("Neg") + text("") + u64(1, 17))
        + (u64(3) + u64(1, 0, 0) + u64(0) + u64(3, 0))
        + (u64(1) + u64(1))
        + (u64(1) + text("a") + u64(AttributeProto.INT, 0) + struct.pack("<q", -3))
        + u64(1)  # outputs
        + (text("y") + u64(1, 1) + u64(1, 1) + u64(0) + u64(4, 0, 0, 0))
        + u64(0)  # no function
        + (u64(1) + u64(0, 1) + u64(1, 2))  # weight types
    )
    content = np.array([1, 2], "<f4").tobytes()
    weights = (
        text("tvm-model-hash/weights/1")
        + u64(1)
        + (u64(0, 1) + u64(1, 2) + u64(len(content)) + hashlib.sha256(content).digest())
    )
    record = model_record(model)
    assert record.model == model_hash(model)
    assert record.graph == hashlib.sha256(graph).hexdigest()
    assert record.weights == hashlib.sha256(weights).hexdigest()


def sparse_initializer_model(tensor):
    model = tensor_model(TensorProto(name="unused", data_type=1), floats("w", [1]))
    del model.graph.initializer[:]
    model.graph.initializer.append(floats("w", [1]))
    model.graph.node[0].input[0] = tensor.values.name
    model.graph.sparse_initializer.append(tensor)
    return model


def test_sparse_initializer_is_a_weight():
    model = sparse_initializer_model(sparse("s"))
    check_equal(model, sparse_initializer_model(sparse("other")))
    for other in (sparse("s", value=8), sparse("s", index=3)):
        check_differ(model, sparse_initializer_model(other))
        assert model_record(model).graph == model_record(sparse_initializer_model(other)).graph
    check_differ(
        model,
        sparse_initializer_model(sparse("s", value=8)),
        "weight 0, 's', values: content [7] in the first model, [8] in the second",
    )


def test_sparse_tensors_in_attributes_count():
    def model(*tensors):
        attribute = AttributeProto(name="v", type=AttributeProto.SPARSE_TENSORS)
        attribute.sparse_tensors.extend(tensors)
        return attribute_model(attribute)

    check_equal(model(sparse("a"), sparse("b")), model(sparse("a"), sparse("b")))
    check_differ(
        model(sparse("a"), sparse("b")),
        model(sparse("a"), sparse("b", index=0)),
        "node 0 (Op), attribute 'v'[1], indices: content [2] in the first model, [0] in the second",
    )


def opaque_type(name):
    opaque = onnx.TypeProto()
    opaque.opaque_type.domain, opaque.opaque_type.name = "d", name
    return opaque


TYPES = [
    onnx.TypeProto(),
    tensor_type(),
    helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
    helper.make_sequence_type_proto(tensor_type()),
    helper.make_optional_type_proto(tensor_type()),
    helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor_type())),
    helper.make_map_type_proto(TensorProto.INT64, tensor_type()),
    helper.make_map_type_proto(TensorProto.STRING, tensor_type()),
    opaque_type("a"),
    opaque_type("b"),
]


def test_types_of_every_kind_differ():
    as_attributes, as_inputs = [], []
    for proto in TYPES:
        model = parse("(float x) => (float y) { y = Op (x) }")
        model.graph.input[0].type.CopyFrom(proto)
        model.graph.value_info.append(helper.make_value_info("y", proto))
        as_inputs.append(model)
        attribute = AttributeProto(name="v", type=AttributeProto.TYPE_PROTO, tp=proto)
        as_attributes.append(attribute_model(attribute))
    for found in (as_inputs, as_attributes):
        assert len({model_record(model).graph for model in found}) == len(TYPES)
        for model in found[1:]:
            check_differ(found[0], model)


def test_strings_of_attributes_may_be_any_bytes():
    for a, b in ((b"\xff", b"\xfe"), ([b"\xff"], [b"\xfe"])):
        check_differ(
            attribute_model(helper.make_attribute("v", a)),
            attribute_model(helper.make_attribute("v", b)),
        )


def test_a_signalling_nan_is_the_same_in_raw_bytes_and_in_a_typed_field():
    nan = struct.pack("<I", 0x7FA00001)  # Python's floats would turn it into a quiet one
    raw, typed = (tensor_model(floats("w", [1.0])) for _ in range(2))
    for model, field in ((raw, b"\x4a\x04"), (typed, b"\x22\x04")):
        model.graph.initializer[0].ClearField("raw_data")
        model.graph.initializer[0].MergeFromString(field + nan)
    expected = text("tvm-model-hash/weights/1") + u64(1, 0, 1, 1, 1, 4)
    expected += hashlib.sha256(nan).digest()
    for model in (raw, typed):
        assert digests(model) == canonical_reference.digests(model)
        assert model_record(model).weights == hashlib.sha256(expected).hexdigest()


# The reference


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


# What counts


def test_the_version_of_ai_onnx_counts_for_nodes_of_other_domains_too():
    def model(version=None):
        model = parse("(float x) => (float y) { y = custom.F (x) }", imports=', "custom" : 1')
        if version is None:
            del model.opset_import[0]
        else:
            model.opset_import[0].version = version
        return model

    check_differ(model(17), model(18), "version of ai.onnx 17 in the first model, 18 in the second")
    check_differ(model(), model(0), "version of ai.onnx none in the first model, 0 in the second")
    twice = model(17)
    twice.opset_import.add(domain="ai.onnx", version=17)
    check_equal(twice, model(17))


def test_types_of_a_subgraphs_inputs_count_and_those_of_its_outputs_do_not():
    def model(of_input="float", of_output="float"):
        return parse(
            "(float x) => (float y) { y = Scan <body = b "
            f"({of_input} a) => ({of_output} r) {{ r = Neg (a) }}> (x) }}"
        )

    check_equal(model(), model(of_output="double[3]"))
    check_differ(
        model(),
        model(of_input="double"),
        "node 0 (Scan), attribute 'body', input 0: type FLOAT in the first model, DOUBLE in the "
        "second",
    )


def test_not_to_set_a_number_is_to_set_zero():
    for kind, field, zero in (("FLOAT", "f", 0.0), ("INT", "i", 0), ("STRING", "s", b"")):
        unset = AttributeProto(name="v", type=kind)
        check_equal(
            attribute_model(unset),
            attribute_model(AttributeProto(**{"name": "v", field: zero, "type": kind})),
        )


def test_references_in_a_function_and_in_its_subgraphs_count():
    def model(reference):
        body = "{ b = If (a) <then_branch = t () => (float z) { z = G <v: int = @QQ> (a) }> }"
        return function_model(f"<p, q> (a) => (b) {body.replace('QQ', reference)}")

    check_equal(model("p"), model("p"))
    check_differ(
        model("p"),
        model("q"),
        "function 0, custom.F, node 0 (If), attribute 'then_branch', node 0 (G): attribute 'v' is "
        "the function's 'p' in the first model, the function's 'q' in the second",
    )


def test_a_call_needs_no_import_of_the_functions_domain():
    model = function_model("(a) => (b) { b = Neg (a) }")
    assert [entry.domain for entry in model.opset_import] == [""]
    assert digests(model) == canonical_reference.digests(model)


def test_what_is_wrong_in_a_function_that_nothing_calls_does_not_count():
    model = parse("(float x) => (float y) { y = Neg (x) }")
    expected = model_record(model)
    model.functions.add(name="F", domain="custom", output=["nothing"])
    found = model_record(model)
    assert (found.graph, found.weights) == (expected.graph, expected.weights)


# What contradicts itself


def nested_type(depth):
    proto = onnx.TypeProto()
    inner = proto
    for level in range(depth - 1):
        kind = ("sequence_type", "optional_type", "map_type")[level % 3]
        inner = getattr(inner, kind)
        inner = inner.value_type if kind == "map_type" else inner.elem_type
    inner.tensor_type.elem_type = 1
    return proto


def test_types_may_be_nested_64_deep_and_no_deeper():
    def model(depth):
        # Not by CopyFrom, which writes the message: protobuf refuses that if it is so deep.
        model = parse("(float x) => (float y) { y = Op (x) }")
        model.graph.input[0].type.CopyFrom(nested_type(depth))
        return model

    model_record(model(64))
    check_invalid(model(65), "the type is nested more than 64 deep")


def invalid_input():
    model = parse("(float x) => (float y) { y = Neg (x) }")
    model.graph.input[0].type.tensor_type.elem_type = -1
    return model


def default_model(attribute):
    model = function_model("(a) => (b) { b = Neg (a) }")
    model.functions[0].attribute_proto.append(attribute)
    return model


def with_reference(model):
    node = model.functions[0].node[0] if model.functions else model.graph.node[0]
    node.attribute.add(name="v", type=AttributeProto.INT, ref_attr_name="p", i=1)
    return model


def reference(**fields):
    return AttributeProto(name="v", type=AttributeProto.INT, ref_attr_name="p", **fields)


def graph_of_a_default():
    node = helper.make_node("G", [], ["r"])
    node.attribute.append(reference())
    value = helper.make_value_info("r", onnx.TypeProto())
    return helper.make_attribute("d", helper.make_graph([node], "g", [], [value]))


KINDS = {"f": 1.0, "i": 1, "s": b"", "t": floats("", [1]), "floats": [1.0], "ints": [1]}
KINDS |= {"strings": [b""], "tp": tensor_type(), "g": onnx.GraphProto()}
KINDS |= {
    "tensors": [floats("", [1])],
    "graphs": [onnx.GraphProto()],
    "type_protos": [tensor_type()],
}
KINDS |= {"sparse_tensor": sparse("s"), "sparse_tensors": [sparse("s")]}

TYPES_OF = {
    "f": "FLOAT",
    "i": "INT",
    "s": "STRING",
    "t": "TENSOR",
    "tp": "TYPE_PROTO",
    "g": "GRAPH",
    **{field: field.upper() for field in KINDS if field.endswith("s") and field != "s"},
    "sparse_tensor": "SPARSE_TENSOR",
}


@pytest.mark.parametrize("field", KINDS)
def test_a_value_of_another_type_in_an_attribute_is_refused(field):
    value = {"name": "v", "type": TYPES_OF[field], field: KINDS[field]}
    model_record(attribute_model(AttributeProto(**value)))
    other = "i" if field == "f" else "f"
    both = attribute_model(AttributeProto(**value, **{other: 0}))  # set, if to 0
    check_invalid(
        both, f"attribute 'v' has {' and '.join(sorted((field, other)))}, expected {field}"
    )
    wrong = "INT" if field == "f" else "FLOAT"
    check_invalid(
        attribute_model(AttributeProto(**{**value, "type": wrong})),
        f"attribute 'v' has {field}, expected {other} alone for its type {wrong}",
    )


@pytest.mark.parametrize("field", ["t", "tp", "g", "sparse_tensor"])
def test_an_attribute_without_the_message_of_its_type_is_refused(field):
    attribute = AttributeProto(name="v", type=TYPES_OF[field])
    check_invalid(attribute_model(attribute), f"has no {field}, expected one")


INVALID = {
    "no graph": (onnx.ModelProto(), "has no graph"),
    "two attributes": (
        attribute_model(*[helper.make_attribute("v", 1)] * 2),
        "the attribute 'v' stands twice",
    ),
    "attribute without type": (
        attribute_model(AttributeProto(name="v", i=1)),
        "attribute 'v' has the type UNDEFINED",
    ),
    "domain that is not imported": (
        parse("(float x) => (float y) { y = custom.F (x) }"),
        r"node 0 \(F\): the operator set of the domain 'custom' is imported not at all",
    ),
    "domain in two versions": (
        parse("(float x) => (float y) { y = Neg (x) }", imports=', "ai.onnx" : 16'),
        r"the domain '' \(ai.onnx\) is imported in the versions \[16, 17\]",
    ),
    "domain that a function does not import": (
        function_model("(a) => (b) { b = other.G (a) }"),
        r"function 0, custom.F, node 0 \(G\): the operator set of the domain 'other'",
    ),
    "two functions": (
        function_model("(a) => (b) { b = Neg (a) }", 2),
        "the function custom.F is defined twice",
    ),
    "negative type of an input": (
        invalid_input(),
        "input 'x': the element type is -1",
    ),
    "two versions of ai.onnx that no node uses": (
        parse("(float x) => (float x) {}", imports=', "ai.onnx" : 16'),
        r"the domain '' \(ai.onnx\) is imported in the versions \[16, 17\]",
    ),
    "two versions of another domain": (
        parse("(float x) => (float y) { y = c.F (x) }", imports=', "c" : 1, "c" : 2'),
        r"node 0 \(F\): the operator set of the domain 'c' is imported in the versions \[1, 2\]",
    ),
    "a reference in the model's graph": (
        attribute_model(reference()),
        "attribute 'v' refers to 'p' of a function, expected that in the nodes of a function only",
    ),
    "a reference as a default": (default_model(reference()), "custom.F: attribute 'v' refers to"),
    "a reference in the graph of a default": (
        default_model(graph_of_a_default()),
        r"attribute 'd', node 0 \(G\): attribute 'v' refers to 'p' of a function",
    ),
    "a value beside a reference": (
        with_reference(function_model("<p> (a) => (b) { b = Neg (a) }")),
        "attribute 'v' has i and a reference, expected no value beside it",
    ),
    "two defaults of one name": (
        function_model("<p: int = 1, p: int = 1> (a) => (b) { b = Neg (a) }"),
        "custom.F: the attribute 'p' stands twice",
    ),
    "two attributes of a function of one name": (
        function_model("<p, p> (a) => (b) { b = Neg (a) }"),
        "custom.F: the attribute 'p' stands twice",
    ),
    "an attribute with default and without": (
        function_model("<p, p: int = 1> (a) => (b) { b = Neg (a) }"),
        "custom.F: the attribute 'p' stands twice",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_model_that_contradicts_itself(name):
    check_invalid(*INVALID[name])
