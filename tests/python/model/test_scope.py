# SPDX-License-Identifier: Apache-2.0
"""What names mean, which nodes count, and how they are numbered."""

import sys

import canonical_reference
import onnx
import pytest
from onnx import AttributeProto, helper
from small_models import (
    check_differ,
    check_equal,
    check_invalid,
    floats,
    function_model,
    parse,
    sparse,
)

from tvm_model_hash.errors import InvalidModelError
from tvm_model_hash.model.difference import explain
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.record import Record


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


def test_what_is_wrong_in_an_unused_node_does_not_count():
    model = parse("(float x) => (float y) { y = Neg (x) a = nowhere.F (b, q) b = Neg (a) }")
    check_equal(model, parse("(float x) => (float y) { y = Neg (x) }"))


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


def nested(depth, message):
    """Put a graph with names of its own into the attribute of a node, so many deep."""
    model = parse("(float x) => (float y) { y = Op (x) }")
    graph = model.graph
    for level in range(depth - 1):
        graph = graph.node[0].attribute.add(name="body", type=AttributeProto.GRAPH).g
        graph.node.add(op_type="Op", input=["x"], output=[f"y{level}"])
        graph.output.add(name=f"y{level}")
    graph.node[0].op_type = message
    return model


def test_graphs_may_be_nested_64_deep_and_no_deeper():
    # No file holds graphs so deep, and protobuf does not write them: so by explain, from messages.
    # With the stack that Python has; TVM makes it larger.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert "operator A in the first model, B" in explain(nested(64, "A"), nested(64, "B"))
        for depth in (65, 3000):
            model = nested(depth, "A")
            with pytest.raises(InvalidModelError, match="nested more than 64 deep"):
                explain(model, model)
    finally:
        sys.setrecursionlimit(limit)


def test_many_values_captured_through_many_graphs():
    names = [f"v{index}" for index in range(300)]
    model = parse("(float x) => (float y) { y = Op (x) }")
    graph = model.graph
    graph.node.add(op_type="Split", input=["x"], output=names)
    for level in range(30):
        graph = graph.node[0].attribute.add(name="body", type=AttributeProto.GRAPH).g
        graph.node.add(op_type="Op", input=["x"], output=[f"y{level}"])
        graph.output.add(name=f"y{level}")
    graph.node[0].input[:] = names
    other = onnx.ModelProto.FromString(model.SerializeToString())
    check_equal(model, other)
    inner = other.graph
    while inner.node[0].attribute:
        inner = inner.node[0].attribute[0].g
    inner.node[0].input[100], inner.node[0].input[101] = "v101", "v100"
    record, changed = model_record(model), model_record(other)
    assert record == canonical_reference_record(model)
    assert changed == canonical_reference_record(other)
    assert "input 100 is output 100 of node 0 of the graph 30 levels around" in explain(
        model, other
    )


def canonical_reference_record(model):
    digests = canonical_reference.digests(model)
    return Record(digests["model"], digests["graph"], digests["weights"])


def branches(one, other, before=""):
    return parse(
        f"(bool c, float x) => (float y) {{{{ {before} y = If (c) <then_branch = {one}, "
        f"else_branch = {other}> }}}}".replace("{{", "{").replace("}}", "}")
    )


SHADOWING = {
    "a node's output": ("t () => (float h) { h = Neg (x) }", "h"),
    "an input": ("t (float h) => (float z) { z = Neg (h) }", "h"),
    "an initializer": ("t () => (float z) <float h = {1}> { z = Neg (h) }", "h"),
    "an input of the model's graph": ("t () => (float x) { x = Neg (c) }", "x"),
    "the output of the node itself": ("t () => (float y) { y = Neg (x) }", "y"),
}


@pytest.mark.parametrize("name", SHADOWING)
def test_a_subgraph_that_defines_a_name_of_a_graph_around_it_is_refused(name):
    branch, shadowed = SHADOWING[name]
    other = "e () => (float q) { q = Abs (h) }"
    check_invalid(
        branches(branch, other, "h = Abs (x)"),
        f"attribute 'then_branch': .* of graph 't' defines '{shadowed}', which a graph around",
    )


def test_two_subgraphs_may_define_the_same_name_if_none_is_around_the_other():
    one = branches("t () => (float p) { p = Neg (x) }", "e () => (float p) { p = Abs (x) }")
    other = branches("t () => (float p) { p = Neg (x) }", "e () => (float q) { q = Abs (x) }")
    check_equal(one, other)


def test_a_name_of_a_subgraph_is_gone_behind_it():
    model = branches("t () => (float p) { p = Neg (x) }", "e () => (float q) { q = Abs (p) }")
    # Attributes go by their names: the branch with p comes second.
    check_invalid(model, "attribute 'else_branch', the Abs that computes 'q': 'p' is used")
    model.graph.node[0].attribute[0].name, model.graph.node[0].attribute[1].name = "a", "b"
    check_invalid(model, "attribute 'b', the Abs that computes 'q': 'p' is used")


def test_of_a_subgraph_of_a_node_that_does_not_count_only_the_names_are_looked_at():
    model = parse("(float x) => (float y) { y = Neg (x) }")
    expected = model_record(model)
    dead = model.graph.node.add(op_type="If", input=["x"], output=["z"])
    branch = dead.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
    branch.node.add(op_type="Neg", input=["nothing"], output=["q"])
    branch.output.add()
    found = model_record(model)
    assert (found.graph, found.weights) == (expected.graph, expected.weights)
    model.graph.output[0].name = "z"
    check_invalid(model, "attribute 'then_branch', output 0 has no name")


DEAD = """(bool c, float x) => (float y) <float w = {{1}}> {{
    h = Neg (x)
    u = If (c) <then_branch = t () => (float p) {{ p = Abs (h) }},
                else_branch = e () => (float q) {}>
    y = Add (h, w)
}}"""
# TVM's importer takes each of them for that of the model's graph, in the Add behind.
LEAKING = {
    "an initializer": "<float NAME = {7}> { q = Neg (NAME) }",
    "a node's output": "{ NAME = Abs (h) q = Neg (NAME) }",
    "in a subgraph of a subgraph": "{ q = If (c) <then_branch = n () => (float r) "
    "<float NAME = {7}> { r = Neg (NAME) }> }",
}


@pytest.mark.parametrize("name", LEAKING)
def test_a_node_that_does_not_count_shadows_nothing(name):
    def model(value):
        return parse(DEAD.format(LEAKING[name].replace("NAME", value)))

    check_equal(
        model("v"),
        parse("(bool c, float x) => (float y) <float w = {1}> { h = Neg (x) y = Add (h, w) }"),
    )
    check_invalid(model("w"), "defines 'w', which a graph around it defines too")
    deep = model("w")
    deep.graph.node[1].attribute[1].type = AttributeProto.FLOAT  # importers take the graph
    check_invalid(deep, "defines 'w', which a graph around it defines too")


def weights_of_branches(one, other, dtype="float"):
    # Imported with freeze_params=False, both weights have the value of the last one.
    return branches(
        "t () => (float p) <float w = {1}> { p = Add (x, w) }",
        f"e () => (float q) <{dtype} {one} = {other}> {{ q = Neg (x) }}",
    )


def test_initializers_of_one_name_in_two_subgraphs_have_to_be_equal():
    check_equal(weights_of_branches("w", "{1}"), weights_of_branches("v", "{2}"))
    check_invalid(weights_of_branches("w", "{2}"), "initializer 'w' stands in two subgraphs")
    check_invalid(weights_of_branches("w", "{1}", "float[1]"), "stands in two subgraphs")
    check_invalid(weights_of_branches("w", "{1}", "int32"), "stands in two subgraphs")


def test_nodes_of_a_subgraph_are_in_order():
    # TVM's importer takes the k that another subgraph has left, if there is one.
    for nodes in (
        "p = Abs (k) k = Exp (x)",
        "p = If (c) <b = n () => (float r) { r = Neg (k) }> k = Exp (x)",
    ):
        model = branches(f"t () => (float p) {{ {nodes} }}", "e () => (float q) { q = Neg (x) }")
        check_invalid(model, "uses a value of the Exp that computes 'k', which stands behind it")
    check_equal(
        parse("(float x) => (float y) { y = Abs (k) k = Exp (x) }"),
        parse("(float x) => (float y) { k = Exp (x) y = Abs (k) }"),
    )


LOOP = """(int64 n, bool c, float x) => (float y) <float NAME = {7}> {
    y = OPERATOR (n, c, x) <body = b (int64 i, bool d, float s) => (bool e, float t) {
        e = Identity (d) t = Add (s, NAME)
    }>
}"""
USED = "y = OPERATOR (n, c, x)"


@pytest.mark.parametrize(("operator", "name"), [("Loop", "max_count"), ("Scan", "iter")])
def test_a_name_of_tvms_importers_own_is_refused(operator, name):
    def model(value, text=LOOP, old="NAME"):
        return parse(text.replace(old, value).replace("OPERATOR", operator).replace("NAME", "w"))

    check_equal(model("v"), model("w"))
    for text, old in [
        (LOOP, "NAME"),
        (LOOP, "int64 i"),
        (LOOP.replace(USED, "y = Neg (x) u = OPERATOR (n, c, x)"), "NAME"),
    ]:
        value = f"int64 {name}" if old == "int64 i" else name
        check_invalid(model(value, text, old), f"'{name}' is defined in a model with a {operator}")
    check_equal(
        parse(f"(float x) => (float y) {{ {name} = Abs (x) y = Abs ({name}) }}"),
        parse("(float x) => (float y) { h = Abs (x) y = Abs (h) }"),
    )


def with_two(field, value):
    model = parse("(float x) => (float y) { y = Neg (x) }")
    getattr(model.graph, field).extend([value] * 2)
    return model


def unnamed_input(model):
    model.graph.input.add()
    return model


def unnamed_output(model):
    model.graph.output.add()
    return model


def unnamed_output_of_a_branch():
    model = branches("t () => (float p) { p = Neg (x) }", "e () => (float q) { q = Neg (x) }")
    model.graph.node[0].attribute[0].g.output.add()
    return model


def unnamed_output_of_a_function():
    model = function_model("(a) => (b) { b = Neg (a) }")
    model.functions[0].output.append("")
    return model


INVALID = {
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
        "output 0: 'y' is used",
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
    "two initializers": (
        with_two("initializer", floats("z", [1])),
        "an initializer of graph or function 'g' defines 'z'",
    ),
    "two sparse initializers": (
        with_two("sparse_initializer", sparse("z")),
        "an initializer of .* defines 'z'",
    ),
    "function's output": (
        function_model("(a) => (b) { c = Neg (a) }"),
        "function 0, custom.F, output 0: 'b' is used",
    ),
    "function uses a value of the model": (
        function_model("(a) => (b) { b = Neg (x) }"),
        "function 0, custom.F, the Neg that computes 'b': 'x' is used",
    ),
    "an output without a name": (
        unnamed_output(parse("(float x) => (float y) { y = Neg (x) }")),
        "^output 1 has no name",
    ),
    "an output and an input without a name": (
        unnamed_output(unnamed_input(parse("(float x) => (float y) { y = Neg (x) }"))),
        "^output 1 has no name",
    ),
    "an output of a subgraph without a name": (
        unnamed_output_of_a_branch(),
        "attribute 'then_branch', output 1 has no name",
    ),
    "an output of a function without a name": (
        unnamed_output_of_a_function(),
        "function 0, custom.F, output 1 has no name",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_graph_whose_names_contradict_each_other(name):
    check_invalid(*INVALID[name])


def test_empty_names_define_nothing():
    model = parse("(float x) => (float y) { y, u = Op (x) z = Op (x) }")
    expected = model_record(model)
    model.graph.node[1].output[0] = ""
    model.graph.initializer.extend([floats("", [1])] * 2)
    found = model_record(model)
    assert (found.graph, found.weights) == (expected.graph, expected.weights)
    unnamed_input(unnamed_input(model))
    assert model_record(model).graph != expected.graph  # they are part of the interface


NOT_UTF8 = ["input", "initializer", "output of a node", "output of a node without use", "output"]
NOT_UTF8 += ["operator", "operand", "attribute", "reference", "domain", "import", "symbol"]
NOT_UTF8 += ["function's attribute"]


@pytest.mark.parametrize("place", NOT_UTF8)
def test_names_that_are_not_utf8(place):
    texts = {
        "input": "(float x, float QQQ) => (float y) { y = Neg (x) }",
        "initializer": "(float x) => (float y) <float QQQ = {1}> { y = Neg (x) }",
        "output of a node": "(float x) => (float y) { y, QQQ = Neg (x) }",
        "output of a node without use": "(float x) => (float y) { y = Neg (x) QQQ = Neg (x) }",
        "output": "(float x) => (float QQQ) { QQQ = Neg (x) }",
        "operator": "(float x) => (float y) { y = QQQ (x) }",
        "operand": "(float x) => (float y) { y = Neg (QQQ) }",
        "attribute": "(float x) => (float y) { y = Neg <QQQ = 1> (x) }",
        "domain": "(float x) => (float y) { y = QQQ.Neg (x) }",
        "symbol": "(float[QQQ] x) => (float y) { y = Neg (x) }",
    }
    if place == "import":
        model = parse(texts["operator"].replace("QQQ", "Neg"), imports=', "QQQ" : 1')
    elif place == "function's attribute":
        model = function_model("<p, QQQ> (a) => (b) { b = Neg (a) }")
    elif place == "reference":
        model = function_model("(a) => (b) { b = Neg <v: int = @QQQ> (a) }")
    else:
        model = parse(texts[place])
    data = model.SerializeToString()
    assert b"QQQ" in data
    try:
        broken = onnx.ModelProto.FromString(data.replace(b"QQQ", b"Q\xffQ"))
    except UnicodeDecodeError:
        pytest.skip("protobuf in pure Python refuses them itself")
    check_invalid(broken, "UTF-8")
