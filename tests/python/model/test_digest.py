# SPDX-License-Identifier: Apache-2.0
"""The digests of models, what is said of their differences, and the models that have none."""

import copy
import hashlib
import logging
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tvm_model_hash import (
    ExternalDataError,
    InvalidModelError,
    ModelFileError,
    ModelTypeError,
    model_hash,
    model_record,
)
from tvm_model_hash.model.difference import explain

NETWORK = """
<ir_version: 10, opset_import: ["" : 17, "custom" : 1]>
network (float[1, 3] x, bool c) => (float[1, 3] y)
    <float[3] w = {1, 2, 3}, float[3] b = {4, 5, 6}> {
    h = Mul (x, w)
    s = If (c) <
        then_branch = yes () => (float[1, 3] p) { p = Add (h, b) },
        else_branch = no () => (float[1, 3] q) { q = Clip (h, , w) }
    >
    t = Pad <mode: string = "edge", pads: ints = [0, 1]> (s)
    y = custom.Scale <alpha: float = 0.5> (t)
}
<domain: "custom", opset_import: ["" : 17]>
Scale <alpha> (a) => (r) {
    k = Constant <value_float: float = @alpha> ()
    r = Mul (a, k)
}
"""


def network(**replacements):
    """The network, with other text in some places."""
    text = NETWORK
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return named(text)


def named(text):
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"my_{node.op_type.lower()}"
    return model


def parse(body, opset=17, imports=""):
    """A model of one graph, by the text of the graph."""
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}{imports}]> g {body}'
    )


def tensor_model(*tensors, domain="ai.onnx"):
    """A model whose outputs depend on these initializers."""
    names = [tensor.name for tensor in tensors]
    graph = helper.make_graph(
        [helper.make_node("Op", names, ["y"], domain=domain)],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor for tensor in tensors if isinstance(tensor, TensorProto)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def attribute_model(*attributes):
    model = parse("() => (float y) { y = Op () }")
    model.graph.node[0].attribute.extend(attributes)
    return model


def floats(name, values):
    return numpy_helper.from_array(np.array(values, np.float32), name)


def check_equal(a, b):
    record_a, record_b = model_record(a), model_record(b)
    assert (record_a.graph, record_a.weights) == (record_b.graph, record_b.weights)
    assert explain(a, b) is None


def check_differ(a, b, sentence=None):
    """Each of the two ways to compare finds a difference, and from both sides."""
    record_a, record_b = model_record(a), model_record(b)
    assert (record_a.graph, record_a.weights) != (record_b.graph, record_b.weights)
    assert explain(b, a)
    found = explain(a, b)
    assert found
    if sentence is not None:
        assert found == sentence


# The streams


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
        + (u64(0, 1) + u64(1, 2) + u64(len(content)) + content)
    )
    record = model_record(model)
    assert record.model == model_hash(model)
    assert record.graph == hashlib.sha256(graph).hexdigest()
    assert record.weights == hashlib.sha256(weights).hexdigest()


def test_model_is_not_changed():
    model = network()
    model.graph.sparse_initializer.append(sparse("unused"))
    model.graph.input.append(
        helper.make_value_info("m", helper.make_map_type_proto(7, tensor_type()))
    )
    before = copy.deepcopy(model)
    model_record(model)
    explain(model, network())
    assert model == before
    assert model.SerializeToString() == before.SerializeToString()


def test_importing_the_module_does_not_import_onnx():
    code = (
        "import sys, tvm_model_hash.model.digest, tvm_model_hash.model.difference\n"
        "assert not {'onnx', 'onnx_ir', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What counts, and what is said of it


def edited(change):
    model = network()
    change(model)
    return model


def reverse_nodes(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    initializers = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)


def rename_inner(model):
    for node in model.graph.node:
        node.name = ""
        node.doc_string = "doc"
    mul, choice = model.graph.node[:2]
    mul.input[1] = model.graph.initializer[0].name = "other.w"
    mul.output[0] = "other.h"
    for attribute in choice.attribute:
        attribute.g.node[0].input[0] = "other.h"
        attribute.g.name = "other"
    choice.attribute[1].g.node[0].input[2] = "other.w"


def add_unused(model):
    model.graph.node.add(op_type="Unknown", domain="nowhere", input=["x"], output=["u"])
    model.graph.initializer.append(floats("v", [1]))
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    model.functions.append(
        helper.make_function("custom", "Unused", ["a"], ["a"], [], [helper.make_opsetid("", 9)])
    )
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.DOUBLE, None))
    model.producer_name, model.model_version = "somebody", 7


def write_domain(model):
    model.opset_import[0].domain = "ai.onnx"
    model.graph.node[0].domain = "ai.onnx"


def retype_inner_output(model):
    model.graph.node[1].attribute[0].g.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    "change", [reverse_nodes, rename_inner, add_unused, write_domain, retype_inner_output]
)
def test_unchanged_when(change):
    model = edited(change)
    assert model_record(model).model != model_record(network()).model
    check_equal(network(), model)


CHANGES = {
    "input name": (
        {"bool c)": "bool d)", "If (c)": "If (d)"},
        "input 1: name 'c' in the first model, 'd' in the second",
    ),
    "input shape": (
        {"float[1, 3] x": "float[1, 4] x"},
        "input 'x': shape (1, 3) in the first model, (1, 4) in the second",
    ),
    "input rank": (
        {"float[1, 3] x": "float[] x"},
        "input 'x': shape (1, 3) in the first model, of any rank in the second",
    ),
    "input type": (
        {"bool c": "uint8 c"},
        "input 'c': type BOOL in the first model, UINT8 in the second",
    ),
    "input added": (
        {"bool c)": "bool c, float z)"},
        "inputs are ['x', 'c'] in the first model, ['x', 'c', 'z'] in the second",
    ),
    "input default": (
        {"<float[3] w": "<bool c = {1}, float[3] w"},
        "input 'c': default value none in the first model, given in the second",
    ),
    "output before node": (
        {"Mul (x, w)": "Add (x, w)", "(float[1, 3] y)": "(float[1, M] y)"},
        "output 'y': shape (1, 3) in the first model, (1, M) in the second",
    ),
    "operator": (
        {"h = Mul": "h = Div"},
        "node 0, 'my_mul' (Mul) (in the second model node 0, 'my_div' (Div)): "
        "operator Mul in the first model, Div in the second",
    ),
    "operator set": (
        {'<ir_version: 10, opset_import: ["" : 17': '<ir_version: 10, opset_import: ["" : 18'},
        "node 0, 'my_mul' (Mul): operator set version 17 in the first model, 18 in the second",
    ),
    "order of operands": (
        {"Mul (x, w)": "Mul (w, x)"},
        "node 0, 'my_mul' (Mul): input 0 is input 0 in the first model, weight 0, 'w' in the "
        "second",
    ),
    "number of operands": (
        {"Mul (x, w)": "Mul (x, w, w)"},
        "node 0, 'my_mul' (Mul): number of inputs 2 in the first model, 3 in the second",
    ),
    "optional operand": (
        {"Clip (h, , w)": "Clip (h, w, w)"},
        "node 1, 'my_if' (If), attribute 'else_branch', node 0 (Clip): "
        "input 1 is left out in the first model, weight 0, 'w' in the second",
    ),
    "operand from around": (
        {"Add (h, b)": "Add (x, b)"},
        "node 1, 'my_if' (If), attribute 'then_branch', node 0 (Add): input 0 is output 0 of node "
        "0 of the graph around it in the first model, input 0 of the graph around it in the second",
    ),
    "attribute": (
        {"[0, 1]": "[0, 2]"},
        "node 2, 'my_pad' (Pad): attribute 'pads' is [0, 1] in the first model, [0, 2] in the "
        "second",
    ),
    "string attribute": (
        {'"edge"': '"wrap"'},
        "node 2, 'my_pad' (Pad): attribute 'mode' is 'edge' in the first model, 'wrap' in the "
        "second",
    ),
    "attribute type": (
        {"ints = [0, 1]": "floats = [0, 1]"},
        "node 2, 'my_pad' (Pad): type of attribute 'pads' INTS in the first model, FLOATS in the "
        "second",
    ),
    "attribute dropped": (
        {'mode: string = "edge", ': ""},
        "node 2, 'my_pad' (Pad): attributes are ['mode', 'pads'] in the first model, ['pads'] in "
        "the second",
    ),
    "attribute renamed": (
        {"pads: ints": "sides: ints"},
        "node 2, 'my_pad' (Pad): attribute 'pads' in the first model, 'sides' in the second",
    ),
    "node dropped": (
        {"t = Pad": "t2 = Pad", "Scale <alpha: float = 0.5> (t)": "Scale <alpha: float = 0.5> (s)"},
        "node 2, 'my_pad' (Pad) (in the second model node 2, 'my_scale' (Scale)): operator Pad in "
        "the first model, custom.Scale in the second",
    ),
    "node dropped from a subgraph": (
        {"{ p = Add (h, b) }": "{ p1 = Add (h, b) p = Neg (p1) }"},
        "node 1, 'my_if' (If), attribute 'then_branch', node 1 (Neg) is in the second model only",
    ),
    "function": (
        {"r = Mul (a, k)": "r = Div (a, k)"},
        "function 0, custom.Scale, node 1 (Mul) (in the second model function 0, custom.Scale, "
        "node 1 (Div)): operator Mul in the first model, Div in the second",
    ),
    "function's reference": (
        {"= @alpha": "= 0.5"},
        "function 0, custom.Scale, node 0 (Constant): attribute 'value_float' is the function's "
        "'alpha' in the first model, 0.5 in the second",
    ),
    "function's operator set": (
        {'opset_import: ["" : 17]>\nScale': 'opset_import: ["" : 16]>\nScale'},
        "function 0, custom.Scale, node 0 (Constant): operator set version 17 in the first model, "
        "16 in the second",
    ),
    "weight shape": (
        {"float[3] b = {4, 5, 6}": "float[1, 3] b = {4, 5, 6}"},
        "weight 1, 'b': shape (3) in the first model, (1, 3) in the second",
    ),
    "weight type": (
        {"float[3] b": "double[3] b"},
        "weight 1, 'b': type FLOAT in the first model, DOUBLE in the second",
    ),
    "weight": (
        {"{4, 5, 6}": "{4, 5, 7}"},
        "weight 1, 'b': content [4, 5, 6] in the first model, [4, 5, 7] in the second",
    ),
    "weights and their names": (
        {"float[3] b = {4, 5, 6}": "float[3] b2 = {4, 5, 7}", "Add (h, b)": "Add (h, b2)"},
        "weight 1, 'b' (in the second model weight 1, 'b2'): content [4, 5, 6] in the first "
        "model, [4, 5, 7] in the second",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_if(name):
    replacements, sentence = CHANGES[name]
    check_differ(network(), network(**replacements), sentence)


def test_weights_change_without_the_graph():
    other = network(**{"{4, 5, 6}": "{4, 5, 7}"})
    assert model_record(other).graph == model_record(network()).graph
    assert model_record(other).weights != model_record(network()).weights


def test_default_of_an_unused_input_is_part_of_the_interface():
    body = "(float x, float z) => (float y) {} {{ y = Neg (x) }}"
    check_differ(parse(body.format("")), parse(body.format("<float z = {1}>")))


def test_functions_attributes_count():
    def model(reference="a", **default):
        model = function_model("<a, b> (x) => (y) { y = G (x) }")
        function = model.functions[0]
        function.node[0].attribute.add(name="v", type=AttributeProto.INT, ref_attr_name=reference)
        for name, value in default.items():
            function.attribute_proto.append(helper.make_attribute(name, value))
        return model

    def graph(operator):
        node = helper.make_node(operator, [], ["y"])
        return helper.make_graph([node], "g", [], [helper.make_value_info("y", onnx.TypeProto())])

    check_differ(
        model("a"),
        model("b"),
        "function 0, custom.F, node 0 (G): attribute 'v' is the function's 'a' in the first model, "
        "the function's 'b' in the second",
    )
    check_differ(
        model(c=1),
        model(c=2),
        "function 0, custom.F: attribute 'c' is 1 in the first model, 2 in the second",
    )
    check_differ(
        model(c=graph("H")),
        model(c=graph("I")),
        "function 0, custom.F, attribute 'c', node 0 (H) (in the second model function 0, "
        "custom.F, attribute 'c', node 0 (I)): operator H in the first model, I in the second",
    )


def test_one_node_used_twice_is_not_two_nodes():
    once = parse("() => (float y) { a = RandomNormal () y = Add (a, a) }")
    twice = parse("() => (float y) { a = RandomNormal () b = RandomNormal () y = Add (a, b) }")
    check_differ(once, twice)


def test_subgraph_may_put_out_a_value_of_the_graph_around_it(caplog):
    body = (
        "(bool c, float x) => (float y) {{ h = Neg (x) i = Abs (x) "
        "y = If (c) <then_branch = a () => (float {}) {{}}, "
        "else_branch = b () => (float i) {{}}> }}"
    )
    check_equal(parse(body.format("h")), parse(body.format("h")))
    check_differ(
        parse(body.format("h")),
        parse(body.format("x")),
        "node 1 (Neg) (in the second model node 1 (If)): operator Neg in the first model, If in "
        "the second",
    )
    assert not caplog.records


def test_a_node_at_the_end_is_named():
    a = parse("(float x) => (float y) { y = Neg (x) }")
    b = parse("(float x) => (float y) { z = Neg (x) y = Abs (z) }")
    check_differ(a, b, "node 1 (Abs) is in the second model only")
    check_differ(b, a, "node 1 (Abs) is in the first model only")


def test_long_lists_are_said_to_differ_in_one_element():
    a = attribute_model(helper.make_attribute("v", list(range(100))))
    b = attribute_model(helper.make_attribute("v", [*range(57), 0, *range(58, 100)]))
    check_differ(
        a, b, "node 0 (Op): attribute 'v' is, at element 57, 57 in the first model, 0 in the second"
    )
    c = attribute_model(helper.make_attribute("v", list(range(101))))
    check_differ(
        a,
        c,
        "node 0 (Op): attribute 'v' is 100 elements long in the first model, 101 elements long in "
        "the second",
    )


def test_big_weights_are_said_to_differ():
    content = np.zeros(1_000_000, np.float32)
    other = content.copy()
    other[-1] = 1
    check_differ(
        tensor_model(floats("a", content)),
        tensor_model(floats("b", other)),
        "weight 0, 'a' (in the second model weight 0, 'b'): content differs",
    )


def test_negative_zero_and_nan_are_values():
    nan = struct.pack("<I", 0x7FC00001)
    tensors = [floats("w", [value]) for value in (0.0, -0.0, np.nan)]
    tensors.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=nan))
    models = [tensor_model(tensor) for tensor in tensors]
    assert len({model_record(model).weights for model in models}) == 4
    check_differ(models[0], models[1])
    check_differ(models[2], models[3], "weight 0, 'w': content differs")


# What onnx-ir does not know


def sparse(name, value=7.0, index=2):
    values = floats(name, [value])
    indices = numpy_helper.from_array(np.array([index], np.int64), "")
    return helper.make_sparse_tensor(values, indices, [5])


def tensor_type():
    return helper.make_tensor_type_proto(TensorProto.FLOAT, [2])


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
    for models in (as_inputs, as_attributes):
        assert len({model_record(model).graph for model in models}) == len(TYPES)
        for model in models[1:]:
            check_differ(models[0], model)


def test_element_type_that_is_not_known_yet():
    model = parse("(float x) => (float y) { y = Neg (x) }")
    other = copy.deepcopy(model)
    other.graph.input[0].type.tensor_type.elem_type = 99
    check_differ(model, other, "input 'x': type FLOAT in the first model, type 99 in the second")


def test_strings_of_attributes_may_be_any_bytes():
    for a, b in ((b"\xff", b"\xfe"), ([b"\xff"], [b"\xfe"])):
        check_differ(
            attribute_model(helper.make_attribute("v", a)),
            attribute_model(helper.make_attribute("v", b)),
        )


# How tensors are stored


ELEMENTS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT32: np.uint32,
    TensorProto.UINT64: np.uint64,
    TensorProto.COMPLEX64: np.complex64,
    TensorProto.COMPLEX128: np.complex128,
}
PACKED = {
    TensorProto.UINT4: (b"\x21\x03", b"\x21\xf3"),
    TensorProto.INT4: (b"\x21\x0f", b"\x21\xff"),
    TensorProto.FLOAT8E4M3FN: (b"\x01\x02\xff", None),
    TensorProto.FLOAT8E5M2FNUZ: (b"\x01\x02\xff", None),
    TensorProto.BFLOAT16: (b"\x80\x3f\x00\xc0\x01\x7f", None),
    23: (b"\x21\x03", b"\x21\x93"),  # FLOAT4E2M1
    25: (b"\x24", b"\xe4"),  # UINT2
    26: (b"\x13", b"\x53"),  # INT2
    27: (b"\x01\xf0\x03", b"\x01\xf0\xff"),  # FLOAT6E2M3
}


@pytest.mark.parametrize("data_type", ELEMENTS)
def test_typed_field_equals_raw_data(data_type):
    array = np.array([0, 1, 1], ELEMENTS[data_type])
    if array.dtype.kind in "fci":
        array[2] = -1
    typed = helper.make_tensor("w", data_type, [3], array)
    assert not typed.HasField("raw_data")
    raw = TensorProto(name="w", data_type=data_type, dims=[3], raw_data=array.tobytes())
    check_equal(tensor_model(typed), tensor_model(raw))
    array[1] = 0
    raw.raw_data = array.tobytes()
    check_differ(tensor_model(typed), tensor_model(raw))


@pytest.mark.parametrize("data_type", PACKED)
def test_unused_bits_do_not_count(data_type):
    raw, garbage = PACKED[data_type]
    model, other = (
        tensor_model(TensorProto(name="w", data_type=data_type, dims=[3], raw_data=data))
        for data in (raw, garbage or raw)
    )
    check_equal(model, other)
    if data_type != 27:  # one value to an element there
        typed = TensorProto(name="w", data_type=data_type, dims=[3])
        width = len(raw) // 3 if len(raw) > 3 else 1
        typed.int32_data.extend(np.frombuffer(raw, f"<u{width}").tolist())
        check_equal(model, tensor_model(typed))
    changed = bytes([raw[0] ^ 1]) + raw[1:]
    check_differ(
        model,
        tensor_model(TensorProto(name="w", data_type=data_type, dims=[3], raw_data=changed)),
    )


def test_strings_are_bound_one_by_one():
    def model(*strings):
        return tensor_model(helper.make_tensor("w", TensorProto.STRING, [len(strings)], strings))

    check_equal(model(b"ab", b""), model(b"ab", b""))
    check_differ(model(b"ab", b""), model(b"a", b"b"))


def test_empty_tensors():
    raw = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0, 2])
    check_equal(tensor_model(raw), tensor_model(floats("w", np.zeros((0, 2)))))
    check_differ(tensor_model(raw), tensor_model(floats("w", np.zeros((2, 0)))))


# Depth and size


def test_long_chain():
    def chain(count, last="Neg"):
        names = ["x", *(f"v{index}" for index in range(1, count)), "y"]
        operators = ["Neg"] * (count - 1) + [last]
        model = parse("(float x) => (float y) { y = Neg (x) }")
        del model.graph.node[:]
        for index, operator in enumerate(operators):
            model.graph.node.add(op_type=operator, input=[names[index]], output=[names[index + 1]])
        return model

    assert model_record(chain(10_000)) == model_record(chain(10_000))
    assert explain(chain(10_000), chain(10_000, "Abs")) == (
        "node 9999 (Neg) (in the second model node 9999 (Abs)): operator Neg in the first model, "
        "Abs in the second"
    )


def test_chain_of_ifs_that_use_each_other():
    def chain(last):
        model = parse("(float x, bool c) => (float y) { y = Neg (x) }")
        del model.graph.node[:]
        value = "x"
        for index in range(1000):
            output = f"v{index}" if index < 999 else "y"
            branches = {
                name: helper.make_graph(
                    [helper.make_node(last if index == 0 else "Neg", [value], ["z"])],
                    name,
                    [],
                    [helper.make_value_info("z", onnx.TypeProto())],
                )
                for name in ("then_branch", "else_branch")
            }
            model.graph.node.insert(0, helper.make_node("If", ["c"], [output], **branches))
            value = output
        return model

    assert model_record(chain("Neg")) == model_record(chain("Neg"))
    assert explain(chain("Neg"), chain("Abs")) == (
        "node 0 (If), attribute 'else_branch', node 0 (Neg) (in the second model node 0 (If), "
        "attribute 'else_branch', node 0 (Abs)): operator Neg in the first model, Abs in the "
        "second"
    )


def test_graphs_that_are_nested_too_deep():
    model = parse("(float x) => (float y) { y = Op (x) }")
    graph = model.graph
    for _ in range(1000):
        attribute = graph.node[0].attribute.add(name="body", type=AttributeProto.GRAPH)
        graph = attribute.g
        graph.node.add(op_type="Op", input=["x"], output=["y"])
        graph.output.add(name="y")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # TVM raises it
    try:
        with pytest.raises(InvalidModelError, match="RecursionError"):
            explain(model, model)
    finally:
        sys.setrecursionlimit(limit)


# Models without a canonical form


def with_two(field, value):
    model = parse("(float x) => (float y) { y = Neg (x) }")
    getattr(model.graph, field).extend([value] * 2)
    return model


def function_model(body, count=1):
    model = parse("(float x) => (float y) { y = custom.F (x) }")
    function = onnx.parser.parse_function(f'<domain: "custom", opset_import: ["" : 17]> F {body}')
    model.functions.extend([function] * count)
    return model


def broken_tensor(**fields):
    return tensor_model(TensorProto(**{"name": "w", "data_type": 1, "dims": [2], **fields}))


INVALID = {
    "no graph": (onnx.ModelProto(), "has no graph"),
    "cycle": (
        parse("(float x) => (float y) { a = Add (x, b) b = Neg (a) y = Abs (b) }"),
        "the Neg that computes 'b' depends on itself",
    ),
    "cycle through a subgraph": (
        parse(
            "(bool c) => (float y) { y = If (c) <then_branch = t () => (float z) { z = Neg (y) }>}"
        ),
        "the If that computes 'y' depends on itself",
    ),
    "input that nothing defines": (
        parse("(float x) => (float y) { y = Neg (z) }"),
        "the Neg that computes 'y': 'z' is used",
    ),
    "input of a subgraph's node that nothing defines": (
        parse(
            "(bool c) => (float y) { y = If (c) <then_branch = t () => (float z) { z = Neg (q) }>}"
        ),
        "attribute 'then_branch', the Neg that computes 'z': 'q' is used",
    ),
    "output that nothing defines": (
        parse("(float x) => (float y) { z = Neg (x) }"),
        "the graph's output: 'y' is used",
    ),
    "a value of a subgraph used outside": (
        parse(
            "(bool c) => (float y) { a = If (c) <then_branch = t () => (float z) { z = Neg (c) }>"
            " y = Add (a, z) }"
        ),
        "the Add that computes 'y': 'z' is used",
    ),
    "two nodes for a name": (
        parse("(float x) => (float y) { y = Neg (x) y = Abs (x) }"),
        "the Abs that computes 'y' of graph or function 'g' defines 'y', which is defined already",
    ),
    "a node and an input": (
        parse("(float x) => (float x) { x = Neg (x) }"),
        "defines 'x', which is defined already",
    ),
    "a node and an initializer": (
        parse("() => (float y) <float y = {1}> { y = Neg (y) }"),
        "defines 'y', which is defined already",
    ),
    "two inputs": (
        with_two("input", helper.make_tensor_value_info("z", 1, [])),
        "an input of graph or function 'g' defines 'z', which is defined already",
    ),
    "two initializers": (with_two("initializer", floats("z", [1])), "two initializers 'z'"),
    "two sparse initializers": (with_two("sparse_initializer", sparse("z")), "initializers 'z'"),
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
        r"the domain '' is imported in the versions \[16, 17\]",
    ),
    "domain that a function does not import": (
        function_model("(a) => (b) { b = other.G (a) }"),
        r"function 0, custom.F, node 0 \(G\): the operator set of the domain 'other'",
    ),
    "two functions": (
        function_model("(a) => (b) { b = Neg (a) }", 2),
        "the function custom.F is defined twice",
    ),
    "function's output": (
        function_model("(a) => (b) { c = Neg (a) }"),
        "function 'F': the output 'b' is defined by no input or node",
    ),
    "function uses a value of the model": (
        function_model("(a) => (b) { b = Neg (x) }"),
        "function 0, custom.F, the Neg that computes 'b': 'x' is used",
    ),
    "too much data": (
        broken_tensor(raw_data=bytes(9)),
        r"weight 0, 'w': tensor 'w' holds 9 bytes, expected 8 for FLOAT \(2\)",
    ),
    "too little data": (broken_tensor(float_data=[1]), "holds 4 bytes, expected 8"),
    "no data": (broken_tensor(), "holds 0 bytes, expected 8"),
    "no data for a scalar": (broken_tensor(dims=[]), "holds 0 bytes, expected 4"),
    "too few strings": (
        broken_tensor(data_type=TensorProto.STRING, string_data=[b"a"]),
        r"holds 1 strings, expected 2 for the shape \(2\)",
    ),
    "strings in raw data": (
        broken_tensor(data_type=TensorProto.STRING, raw_data=b"ab"),
        "is of strings, expected them in string_data",
    ),
    "data of another type": (
        broken_tensor(int32_data=[1, 2]),
        "holds data in int32_data, expected it in raw_data or float_data alone",
    ),
    "data twice": (
        broken_tensor(float_data=[1, 2], raw_data=bytes(8)),
        "holds data in float_data and raw_data, expected it in raw_data or float_data alone",
    ),
    "element that its type can't hold": (
        broken_tensor(data_type=27, int32_data=[1, 64]),
        "weight 0, 'w': tensor 'w'",
    ),
    "unknown element type": (broken_tensor(data_type=99), "has the element type 99"),
    "no element type": (broken_tensor(data_type=0), "has the element type 0"),
    "negative size": (broken_tensor(dims=[-1]), r"has the shape \(-1\)"),
    "negative type of an input": (
        parse("(float x) => (float y) { y = Neg (x) }"),
        "input 'x': the element type is -1",
    ),
}
INVALID["negative type of an input"][0].graph.input[0].type.tensor_type.elem_type = -1


@pytest.mark.parametrize("name", INVALID)
def test_model_without_canonical_form(name, caplog):
    model, message = INVALID[name]
    with pytest.raises(InvalidModelError, match=message):
        model_record(model)
    with pytest.raises(InvalidModelError, match=message):
        explain(model, model)
    assert not caplog.records


def test_names_that_are_not_utf8():
    data = parse("(float x) => (float y) { y = Neg (xyz) }").SerializeToString()
    for old, new in ((b"xyz", b"x\xffz"), (b"Neg", b"N\xffg")):
        try:
            model = onnx.ModelProto.FromString(data.replace(old, new))
        except UnicodeDecodeError:
            pytest.skip("protobuf in pure Python refuses them itself")
        with pytest.raises(InvalidModelError, match=r"UTF-8|UnicodeDecodeError"):
            model_record(model)


def test_what_is_wrong_in_an_unused_node_does_not_count():
    model = parse("(float x) => (float y) { y = Neg (x) a = nowhere.F (b, q) b = Neg (a) }")
    check_equal(model, parse("(float x) => (float y) { y = Neg (x) }"))


def test_only_onnx_ir_warnings_of_this_call_are_silent(caplog):
    model_record(parse("(float x) => (float y) { y = Neg (x) a = Neg (q) }"))
    assert not caplog.records
    logger = logging.getLogger("onnx_ir.serde")
    with _quiet():
        logger.warning("said here")
        thread = threading.Thread(target=logger.warning, args=("said in another thread",))
        thread.start()
        thread.join()
    logger.warning("said afterwards")
    messages = [record.message for record in caplog.records]
    assert messages == ["said in another thread", "said afterwards"]


@pytest.mark.parametrize("model", [b"model.onnx", None, onnx.GraphProto()])
def test_what_is_not_a_model(model):
    with pytest.raises(ModelTypeError):
        model_record(model)
    with pytest.raises(ModelTypeError):
        explain(network(), model)


# Files


def save_external(model, path, **options):
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        size_threshold=0,
        convert_attribute=True,
        **options,
    )


def external_network():
    """With external data in an initializer, a subgraph and an attribute."""
    model = network()
    branch = model.graph.node[1].attribute[0].g
    branch.initializer.append(floats("inner", [[1, 1, 1]]))
    branch.node[0].input.append("inner")
    constant = helper.make_node("Constant", [], ["k"], value=floats("", [2]))
    model.graph.node.append(constant)
    model.graph.node[2].input.append("k")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data_equals_inline_data(tmp_path, one_file):
    inline, external = tmp_path / "inline.onnx", tmp_path / "external.onnx"
    onnx.save(external_network(), inline)
    save_external(external_network(), external, all_tensors_to_one_file=one_file)
    unloaded = onnx.load(external, load_external_data=False)
    assert unloaded.graph.initializer[0].data_location == TensorProto.EXTERNAL

    check_equal(inline, external)
    assert model_record(inline) == model_record(external_network())
    assert model_record(inline).model == hashlib.sha256(inline.read_bytes()).hexdigest()
    assert model_record(external) == model_record(onnx.load(external))
    assert model_record(str(external)) == model_record(external)


def test_one_bit_of_the_external_data_counts(tmp_path):
    save_external(external_network(), tmp_path / "m.onnx", location="data")
    before = model_record(tmp_path / "m.onnx")
    data = tmp_path / "data"
    for index, size in enumerate(data.read_bytes()):
        content = bytearray(data.read_bytes())
        content[index] ^= 1
        data.write_bytes(content)
        after = model_record(tmp_path / "m.onnx")
        assert after.model != before.model
        assert (after.graph, after.weights) != (before.graph, before.weights)
        content[index] = size
        data.write_bytes(content)
    assert model_record(tmp_path / "m.onnx") == before


def test_external_data_has_to_be_loaded(tmp_path):
    save_external(external_network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for call in (lambda: model_record(model), lambda: explain(model, model)):
        with pytest.raises(ExternalDataError, match="was not loaded, so it cannot be hashed"):
            call()


@pytest.fixture
def external_model(tmp_path):
    """A function that saves a model of one external tensor, and gives its path."""
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "outside").write_bytes(bytes(8))
    (directory / "data").write_bytes(bytes(8))

    def save(part="weight", **fields):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=value)
        model = tensor_model(floats("w", [1, 2]))
        if part == "weight":
            model.graph.initializer[0].CopyFrom(tensor)
        elif part == "unused":
            model.graph.initializer.add().CopyFrom(tensor)
        elif part == "attribute":
            model.graph.node[0].attribute.append(helper.make_attribute("v", tensor))
        elif part == "subgraph":
            graph = helper.make_graph([], "g", [], [], [tensor])
            model.graph.node[0].attribute.append(helper.make_attribute("v", graph))
        elif part == "function":
            node = helper.make_node("Constant", [], ["c"], value=tensor)
            model.functions.append(helper.make_function("f", "F", [], ["c"], [node], []))
        elif part == "default":
            function = helper.make_function("f", "F", [], [], [], [])
            function.attribute_proto.append(helper.make_attribute("v", tensor))
            model.functions.append(function)
        elif part == "sparse":
            model.graph.sparse_initializer.add(values=tensor, dims=[5])
        onnx.save(model, directory / "m.onnx")
        return directory / "m.onnx"

    return save


def test_external_data_in_the_directory_is_read(external_model):
    path = external_model(location="data")
    directory = path.parent
    (directory / "sub").mkdir()
    (directory / "sub" / "deep").write_bytes(bytes(8))
    os.symlink("data", directory / "link")
    (directory / "padded").write_bytes(b"\1" * 4 + bytes(8) + b"\1")
    inline = tensor_model(floats("w", [0, 0]))
    for fields in (
        {"location": "data"},
        {"location": "data", "offset": "0", "length": "8", "checksum": "0"},
        {"location": "./sub/../data"},
        {"location": "sub/deep"},
        {"location": "padded", "offset": "4", "length": "8"},
    ):
        check_equal(external_model(**fields), inline)
    check_equal(external_model(location="link"), inline)


def test_external_data_is_found_from_any_directory(external_model, monkeypatch):
    path = external_model(location="data")
    record = model_record(path)
    monkeypatch.chdir(path.parent)
    assert model_record("m.onnx") == record


REFUSED = {
    "absolute": ({"location": "/etc/hostname"}, "'/etc/hostname', expected a relative path"),
    "parent": ({"location": "../outside"}, "'../outside', outside of the model's directory"),
    "hidden parent": ({"location": "a/../../outside"}, "outside of the model's directory"),
    "symlink": ({"location": "to_outside"}, "by a symlink to '.*outside' outside"),
    "symlinked directory": ({"location": "to_parent/outside"}, "by a symlink to"),
    "parent of a symlink": ({"location": "to_parent/model/../outside"}, "by a symlink to"),
    "directory": ({"location": "sub"}, "'sub', which cannot be read: Is a directory"),
    "the model's directory": ({"location": "."}, "which cannot be read: Is a directory"),
    "fifo": ({"location": "fifo"}, "'fifo', which is not a regular file"),
    "device": ({"location": "null"}, "by a symlink to '/dev/null' outside"),
    "missing": ({"location": "nothing"}, "'nothing', which cannot be read: No such file"),
    "no location": ({"offset": "0"}, "has the location None, expected the path of a file"),
    "empty location": ({"location": ""}, "has the location ''"),
    "NUL": ({"location": "data\0"}, "expected a relative path"),
    "negative offset": ({"location": "data", "offset": "-4"}, "has the offset '-4', expected a"),
    "offset": ({"location": "data", "offset": "four"}, "has the offset 'four', expected a number"),
    "empty offset": ({"location": "data", "offset": ""}, "has the offset ''"),
    "other digits": ({"location": "data", "offset": "\u0664"}, "has the offset '\u0664'"),
    "negative length": ({"location": "data", "length": "-8"}, "has the length '-8'"),
    "length": ({"location": "data", "length": "8_0"}, "has the length '8_0'"),
    "beyond the end": (
        {"location": "data", "offset": "4", "length": "8"},
        "8 bytes at offset 4 of 'data', which has 8 bytes: is the file truncated",
    ),
    "begins beyond the end": ({"location": "data", "offset": "9"}, "which has 8 bytes"),
    "empty file": ({"location": "empty", "length": "8"}, "which has 0 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_external_data_is_refused(name, external_model, tmp_path):
    fields, message = REFUSED[name]
    path = external_model(**fields)
    directory = path.parent
    os.symlink(tmp_path / "outside", directory / "to_outside")
    os.symlink("..", directory / "to_parent")
    os.symlink("/dev/null", directory / "null")
    os.mkfifo(directory / "fifo")
    (directory / "sub").mkdir()
    (directory / "empty").write_bytes(b"")
    for call in (lambda: model_record(path), lambda: explain(path, path)):
        with pytest.raises(ExternalDataError, match=message) as caught:
            call()
        assert "tensor 'w'" in str(caught.value)


@pytest.mark.parametrize(
    "part", ["unused", "attribute", "subgraph", "function", "default", "sparse"]
)
def test_external_data_is_refused_wherever_it_stands(part, external_model):
    with pytest.raises(ExternalDataError, match="outside of the model's directory"):
        model_record(external_model(part, location="../outside"))


def test_two_locations_are_refused(external_model):
    path = external_model(location="data")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="other")
    onnx.save(model, path)
    with pytest.raises(ExternalDataError, match="two fields 'location'"):
        model_record(path)


@pytest.mark.parametrize("fields", [{"length": "4"}, {"offset": "4"}])
def test_external_data_of_another_size(fields, external_model):
    path = external_model(location="data", **fields)
    with pytest.raises(InvalidModelError, match="holds 4 bytes, expected 8"):
        model_record(path)


def test_external_strings(external_model):
    path = external_model(location="data")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].data_type = TensorProto.STRING
    onnx.save(model, path)
    with pytest.raises(InvalidModelError, match="is of strings"):
        model_record(path)


def test_what_is_not_the_file_of_a_model(tmp_path):
    with pytest.raises(ModelFileError, match=r"missing\.onnx': No such file"):
        model_record(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="Is a directory"):
        model_record(tmp_path)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelFileError, match="is not an ONNX model"):
        model_record(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"empty\.onnx' is not an ONNX model, it has no graph"):
        model_record(tmp_path / "empty.onnx")
