# SPDX-License-Identifier: Apache-2.0
"""Small models, and what it takes for two to be the same."""

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_model_hash.errors import InvalidModelError
from tvm_model_hash.model.difference import explain
from tvm_model_hash.model.digest import model_record

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


def function_model(body, count=1):
    model = parse("(float x) => (float y) { y = custom.F (x) }")
    function = onnx.parser.parse_function(f'<domain: "custom", opset_import: ["" : 17]> F {body}')
    model.functions.extend([function] * count)
    return model


def floats(name, values):
    return numpy_helper.from_array(np.array(values, np.float32), name)


def sparse(name, value=7.0, index=2):
    values = floats(name, [value])
    indices = numpy_helper.from_array(np.array([index], np.int64), "")
    return helper.make_sparse_tensor(values, indices, [5])


def tensor_type():
    return helper.make_tensor_type_proto(TensorProto.FLOAT, [2])


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


def check_invalid(model, message):
    """Both ways to read it say what is wrong with a model."""
    with pytest.raises(InvalidModelError, match=message):
        model_record(model)
    with pytest.raises(InvalidModelError, match=message):
        explain(model, model)
