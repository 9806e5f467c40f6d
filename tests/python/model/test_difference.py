# SPDX-License-Identifier: Apache-2.0
"""What is said of the difference between two models."""

import copy

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper
from small_models import (
    attribute_model,
    check_differ,
    check_equal,
    floats,
    function_model,
    network,
    parse,
    tensor_model,
)

from tvm_model_hash.model.contents import FileContent
from tvm_model_hash.model.difference import explain
from tvm_model_hash.model.digest import model_record


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
        "version of ai.onnx 17 in the first model, 18 in the second",
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
        "weight 0, 'a' (in the second model weight 0, 'b'): content, at element 999999, 0 in the "
        "first model, 1 in the second",
    )


def test_element_type_that_is_not_known_yet():
    model = parse("(float x) => (float y) { y = Neg (x) }")
    other = copy.deepcopy(model)
    other.graph.input[0].type.tensor_type.elem_type = 99
    check_differ(model, other, "input 'x': type FLOAT in the first model, type 99 in the second")


def saved(model, path):
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location=path.stem)
    return path


def test_the_first_element_that_differs_is_named_wherever_the_weights_are(tmp_path):
    content = np.zeros(3_000_000, np.float32)
    other = content.copy()
    other[[2_000_001, 2_000_007]] = 0.5
    a, b = tensor_model(floats("w", content)), tensor_model(floats("w", other))
    typed = copy.deepcopy(b)
    typed.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", TensorProto.FLOAT, [3_000_000], other)
    )
    onnx.save(a, tmp_path / "inline.onnx")
    sources_a = [a, tmp_path / "inline.onnx", saved(copy.deepcopy(a), tmp_path / "a.onnx")]
    sources_b = [b, typed, saved(copy.deepcopy(b), tmp_path / "b.onnx")]
    for source_a in sources_a:
        for source_b in sources_b:
            assert explain(source_a, source_b) == (
                "weight 0, 'w': content, at element 2000001, 0 in the first model, 0.5 in the "
                "second"
            )


def test_only_the_weight_that_differs_is_read_again(tmp_path, monkeypatch):
    weights = [floats(f"w{index}", np.full(100_000, index)) for index in range(4)]
    a, b = tensor_model(*weights), tensor_model(*weights[:3], floats("w3", np.full(100_000, 7)))
    paths = [saved(a, tmp_path / "a.onnx"), saved(b, tmp_path / "b.onnx")]
    reads = []
    read = FileContent.read

    def counted(content, index):
        reads.append(content)
        return read(content, index)

    monkeypatch.setattr(FileContent, "read", counted)
    assert explain(*paths) == (
        "weight 3, 'w3': content, at element 0, 3 in the first model, 7 in the second"
    )
    twice = {content for content in reads if reads.count(content) > 1}
    assert len(set(reads)) == 8
    assert len(twice) == 2


@pytest.mark.parametrize(
    ("data_type", "raw", "other", "found"),
    [
        (
            TensorProto.BOOL,
            b"\0\1",
            b"\0\0",
            "content [False, True] in the first model, [False, False]",
        ),
        (
            TensorProto.FLOAT16,
            b"\0\x3c\0\0",
            b"\0\0\0\0",
            "content [1, 0] in the first model, [0, 0]",
        ),
        (
            TensorProto.BFLOAT16,
            b"\1\0\0\0",
            b"\2\0\0\0",
            "content [1, 0] in the first model, [2, 0]",
        ),
        (TensorProto.INT4, b"\x21", b"\x31", "content [33] in the first model, [49]"),
    ],
)
def test_elements_are_shown_as_numbers_or_else_by_their_bits(data_type, raw, other, found):
    models = [
        tensor_model(TensorProto(name="w", data_type=data_type, dims=[2], raw_data=data))
        for data in (raw, other)
    ]
    check_differ(*models, f"weight 0, 'w': {found} in the second")


def test_strings_are_shown():
    models = [
        tensor_model(helper.make_tensor("w", TensorProto.STRING, [2], strings))
        for strings in ([b"a", b"b"], [b"a", b"c"])
    ]
    check_differ(
        *models, "weight 0, 'w': content ['a', 'b'] in the first model, ['a', 'c'] in the second"
    )
