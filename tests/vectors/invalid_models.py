# SPDX-License-Identifier: Apache-2.0
"""Models that have no digests, by what is wrong with them. See make_models.py.

Each is a name, the model (text of onnx.parser or of protobuf, or bytes), and where it has
external data the files beside it and links to files.
"""

import json

from odd_encodings import FLOATS, PLACES, RAW, RELU, TENSOR_TYPE, of_relu, of_sparse, sequences
from wire import (
    UNKNOWN,
    attribute,
    field,
    graph,
    model,
    nested,
    node,
    of_input_type,
    of_node,
    of_weight,
)

HEAD = '<ir_version: 10, opset_import: ["": 21, "custom": 1]>\n'
G = HEAD + "g (bool c, float[2] x) => (float[2] y) "
FUNCTION = '\n<domain: "custom", opset_import: ["": 21]> '
CALL = HEAD + "g (bool c, float[2] x) => (float[2] y) { y = custom.f(x) }" + FUNCTION
DEAD = "else_branch = e () => (float[2] q) { q = Neg(x) }> }"
IMPORTS = 'ir_version: 10 opset_import { version: 21 } graph { input { name: "x" } '
Y = 'output { name: "y" }'


def with_weight(parts):
    return (
        f'{IMPORTS} initializer {{ name: "w" {parts} }} '
        f'node {{ op_type: "Identity" input: "w" output: "y" }} {Y} }}'
    )


def with_attribute(parts):
    """A node with attributes, in the text format."""
    return f'{IMPORTS} node {{ op_type: "Relu" input: "x" output: "y" {parts} }} {Y} }}'


def with_function(parts):
    """A function that is called, of one input "a", in the text format."""
    called = f'{IMPORTS} node {{ op_type: "f" input: "x" output: "y" }} {Y} }}'
    return f'{called} functions {{ name: "f" input: "a" opset_import {{ version: 21 }} {parts} }}'


def in_file(*entries, parts="dims: 2 data_type: 1"):
    """An external weight, of (key, value) pairs."""
    pairs = " ".join(
        f"external_data {{ key: {json.dumps(key)} value: {json.dumps(value)} }}"
        for key, value in entries
    )
    return with_weight(f"{parts} data_location: EXTERNAL {pairs}")


def located(location):
    return in_file(("location", location))


W = ("location", "w.bin")
FILE = {"w.bin": FLOATS.hex()}
BIG = 2**62

INVALID = {
    "not a protobuf message": [
        ("a text", b"ir_version: 10"),
        ("a message cut off", of_relu()[:-1]),
        ("a varint of eleven bytes", of_relu(b"\x28" + b"\xff" * 10 + b"\x01")),
        ("a field of number 0", of_relu(b"\x00\x01")),
        ("subgraphs nested 34 deep", model(field(7, nested(34)))),
        ("a type nested 50 deep", of_input_type(sequences(49))),
    ],
    "the model has no graph": [
        ("an empty file", b""),
        ("a model without graph", "ir_version: 10 opset_import { version: 21 }"),
    ],
    "an unknown field": [
        ("of the model", of_relu(UNKNOWN)),
        ("of an import", of_relu(field(8, [field(1, "other"), UNKNOWN]))),
        ("of the graph", of_relu(field(7, UNKNOWN))),
        ("of a known number and another wire type", of_relu(field(7, field(15, 1)))),
        ("of an input", model(field(7, [RELU, field(11, [field(1, "z"), UNKNOWN])]))),
        ("of an output", model(field(7, [RELU, field(12, [field(1, "x"), UNKNOWN])]))),
        ("of a node", of_node(UNKNOWN)),
        ("of an attribute", of_node(attribute("i", 2, UNKNOWN))),
        ("of an attribute: its type", of_node(attribute("i", 99))),
        ("of an attribute: its later type", of_node(attribute("i", 2, field(20, 99)))),
        ("of a subgraph", of_node(attribute("g", 5, field(6, UNKNOWN)))),
        ("of a subgraph's input", of_node(attribute("g", 5, field(6, field(11, UNKNOWN))))),
        (
            "of a node of a subgraph",
            of_node(
                attribute(
                    "g", 5, field(6, graph(node("Neg", ["x"], ["p"], UNKNOWN), outputs=["p"]))
                )
            ),
        ),
        ("of a weight", of_weight(RAW, UNKNOWN)),
        ("of a weight: its data_location", of_weight(RAW, field(14, 2))),
        ("of a sparse weight", of_sparse(field(1, [field(2, 1), field(8, "w")]), UNKNOWN)),
        (
            "of a sparse weight's indices",
            of_sparse(
                field(1, [field(2, 1), field(1, 2), field(8, "w"), RAW]),
                field(2, [PLACES, UNKNOWN]),
            ),
        ),
        (
            "of an external tensor's entry",
            of_weight(field(13, [field(1, "location"), field(2, "w.bin"), UNKNOWN]), field(14, 1)),
            FILE,
        ),
        (
            "of a tensor in an attribute",
            of_node(attribute("t", 4, field(5, [field(2, 1), UNKNOWN]))),
        ),
        ("of a type", of_input_type(TENSOR_TYPE + UNKNOWN)),
        ("of a type that is not known", of_input_type(field(10, field(1, 1)))),
        ("of a tensor's type", of_input_type(field(1, [field(1, 1), UNKNOWN]))),
        ("of a shape", of_input_type(field(1, [field(1, 1), field(2, UNKNOWN)]))),
        ("of a dimension", of_input_type(field(1, [field(1, 1), field(2, field(1, UNKNOWN))]))),
        ("of the type in a sequence", of_input_type(field(4, field(1, UNKNOWN)))),
        ("of a map's type", of_input_type(field(5, UNKNOWN))),
        ("of an opaque type", of_input_type(field(7, UNKNOWN))),
        (
            "of a function that counts",
            of_relu(field(25, [field(1, "Relu"), field(4, "a"), field(5, "a"), UNKNOWN])),
        ),
        (
            "of an import of a function that counts",
            of_relu(
                field(
                    25,
                    [
                        field(1, "Relu"),
                        field(4, "a"),
                        field(5, "a"),
                        field(9, [field(1, "z"), UNKNOWN]),
                    ],
                )
            ),
        ),
    ],
    "a name is not UTF-8": [
        ("an input's", model(field(7, [RELU, field(11, field(1, b"\xff"))]))),
        ("an output's", model(field(7, [RELU, field(12, field(1, b"\xff"))]))),
        ("a dead node's output", model(field(7, [RELU, node("Neg", ["x"], [b"\xff"])]))),
        ("a node's input", model(field(7, graph(node("Neg", [b"\xff"], ["y"]))))),
        ("a node's type", of_node(field(4, b"\xff"))),
        ("a node's domain", of_node(field(7, b"\xff"))),
        ("a node's overload", of_node(field(8, b"\xff"))),
        ("an import's domain", of_relu(field(8, field(1, b"\xff")))),
        ("an attribute's", of_node(attribute(b"\xff", 2))),
        ("a dead weight's", model(field(7, [RELU, field(5, field(8, b"\xc0\x80"))]))),
        ("a dead function's", of_relu(field(25, field(1, b"\xed\xa0\x80")))),
        ("a symbol", of_input_type(field(1, field(2, field(1, field(2, b"\xff")))))),
        ("an opaque type's", of_input_type(field(7, field(2, b"\xff")))),
        (
            "an external tensor's location",
            of_weight(field(13, [field(1, "location"), field(2, b"\xff")]), field(14, 1)),
            {},
        ),
    ],
    "a domain is imported in two versions": [
        (
            "ai.onnx, which nothing uses",
            HEAD.replace('"": 21', '"": 21, "": 20')
            + "g (float[2] x) => (float[2] y) { y = custom.F(x) }",
        ),
        (
            "ai.onnx in both spellings",
            HEAD.replace('"": 21', '"": 21, "ai.onnx": 20')
            + "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        ),
        (
            "a domain that a node uses",
            HEAD.replace('"": 21', '"custom": 21')
            + "g (float[2] x) => (float[2] y) { y = custom.F(x) }",
        ),
        (
            "in a function",
            CALL.replace('"": 21]', '"": 21, "": 20]') + "f (a) => (b) { b = Relu(a) }",
        ),
    ],
    "a domain is not imported": [
        ("of a node", HEAD + "g (float[2] x) => (float[2] y) { y = other.F(x) }"),
        (
            "ai.onnx",
            '<ir_version: 10, opset_import: ["custom": 1]>\n'
            "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        ),
        ("by a function, but by the model", CALL + "f (a) => (b) { b = custom.F(a) }"),
        (
            "by a function, for a node in a subgraph",
            CALL + "f (a) => (b) { b = If(a) <then_branch = t () => (p) { p = custom.F(a) }> }",
        ),
        (
            "of a node in a subgraph",
            G + "{ y = If (c) <then_branch = t () => (float[2] p) { p = other.F(x) }, " + DEAD,
        ),
        (
            "of an overload that is no function",
            CALL.replace("custom.f(x)", "other.f:two(x)").replace(
                '"custom", opset', '"other", opset'
            )
            + "f (a) => (b) { b = Relu(a) }",
        ),
    ],
    "two functions of one name": [
        (
            "which nothing calls",
            G + "{ y = Relu(x) }" + 2 * (FUNCTION + "f (a) => (b) { b = Neg(a) }"),
        ),
        (
            "in both spellings of ai.onnx",
            G
            + "{ y = Relu(x) }"
            + "".join(
                f'\n<domain: "{domain}", opset_import: ["": 21]> f (a) => (b) {{ b = Neg(a) }}'
                for domain in ("", "ai.onnx")
            ),
        ),
    ],
    "a name is defined twice": [
        ("by two nodes", G + "{ y = Neg(x) y = Exp(x) }"),
        ("by two dead nodes", G + "{ d = Neg(x) d = Exp(x) y = Exp(x) }"),
        ("by one node", G + "{ y, y = custom.F(x) }"),
        ("by an input and a node", G + "{ x = Neg(c) y = Exp(x) }"),
        ("by a weight and a dead node", G + "<float[2] w = {1, 2}> { w = Neg(x) y = Exp(x) }"),
        ("by two weights", G + "<float[2] w = {1, 2}, float[2] w = {1, 2}> { y = Exp(x) }"),
        ("by two inputs", HEAD + "g (float[2] x, float[2] x) => (float[2] x) {}"),
        (
            "by a dense and a sparse weight",
            f'{IMPORTS} initializer {{ name: "w" }} '
            f'sparse_initializer {{ values {{ name: "w" }} }} {Y.replace("y", "x")} }}',
        ),
        (
            "in a subgraph",
            G + "{ y = If (c) "
            "<then_branch = t () => (float[2] p) { p = Exp(x) p = Neg(x) }, " + DEAD,
        ),
        ("by two inputs of a function", CALL + "f (a, a) => (b) { b = Relu(a) }"),
        ("by an input and a node of a function", CALL + "f (a) => (a) { a = Relu(a) }"),
    ],
    "an output has no name": [
        ("of the model's graph", f"{IMPORTS} output {{ }} }}"),
        ("beside an input without one", f"{IMPORTS} input {{ }} output {{ }} }}"),
        (
            "of a subgraph",
            with_attribute('attribute { name: "g" type: GRAPH g { input { } output { } } }'),
        ),
        (
            "of a function",
            with_function('input: "" output: ""'),
        ),
    ],
    "initializers of one name differ": [
        (
            "in two branches",
            G + "{ y = If (c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> "
            "{ p = Add(x, w) }, else_branch = e () => (float[2] q) <float[2] w = {1, 3}> "
            "{ q = Neg(x) }> }",
        ),
    ],
    "a name that an importer gives to a value of its own": [
        (
            "a weight that a Loop uses",
            G + "<float[2] max_count = {1, 2}, int64 n = {3}> { y = Loop (n, c, x) <body = b "
            "(int64 i, bool d, float[2] s) => (bool e, float[2] t) { e = Identity (d) "
            "t = Add (s, max_count) }> }",
        ),
        (
            "beside a Scan that does not count",
            G + "{ iter = Exp (x) y = Neg (iter) u = Scan (x) <num_scan_inputs = 1, body = b "
            "(float s) => (float t) { t = Neg (s) }> }",
        ),
    ],
    "a subgraph's nodes are not in order": [
        (
            "in a branch",
            G
            + "{ y = If (c) <then_branch = t () => (float[2] p) { p = Abs (k) k = Exp (x) }, "
            + DEAD,
        ),
    ],
    "a subgraph defines a name of a graph around it": [
        (
            "of a node that does not count",
            G + "<float[2] w = {1, 2}> { u = If (c) <then_branch = t () => (float[2] p) "
            "{ p = Neg(x) }, else_branch = e () => (float[2] q) <float[2] w = {3, 4}> "
            "{ q = Neg(w) }> y = Add(x, w) }",
        ),
        (
            "as a node's output",
            G + "{ a = Exp(x) y = If (c) "
            "<then_branch = t () => (float[2] a) { a = Neg(x) }, " + DEAD,
        ),
        ("as an input", G + "{ y = custom.F <b = b (float[2] x) => (float[2] x) {}> (x) }"),
        (
            "as a weight",
            G + "<float[2] w = {1, 2}> { y = If (c) "
            "<then_branch = t () => (float[2] w) <float[2] w = {3, 4}> {}, " + DEAD,
        ),
        (
            "as a dead node's output",
            G + "{ y = If (c) "
            "<then_branch = t () => (float[2] p) { p = Exp(x) c = Exp(x) }, " + DEAD,
        ),
        (
            "of the node that it is in",
            G + "{ y = If (c) <then_branch = t () => (float[2] y) { y = Neg(x) }, " + DEAD,
        ),
        (
            "of a dead node",
            G + "{ a = Exp(x) y = If (c) "
            "<then_branch = t () => (float[2] p) { a = Neg(x) p = Exp(a) }, " + DEAD,
        ),
        (
            "of a graph further out",
            G + "{ y = If (c) <then_branch = t () => (float[2] p) { p = If (c) "
            "<then_branch = tt () => (float[2] x) { x = Neg(c) }, "
            "else_branch = te () => (float[2] r) { r = Neg(x) }> }, " + DEAD,
        ),
        (
            "in a function",
            CALL + "f (a) => (b) { b = If (a) <then_branch = t () => (a) { a = Exp(b) }> }",
        ),
    ],
    "nothing defines a name": [
        ("of a node's input", G + "{ y = Neg(nothing) }"),
        ("of an output", G + "{}"),
        (
            "of a capture",
            G + "{ y = If (c) <then_branch = t () => (float[2] p) { p = Neg(nothing) }, " + DEAD,
        ),
        (
            "outside of the subgraph that defines it",
            G + "{ a = If (c) "
            "<then_branch = t () => (float[2] p) { p = Exp(x) }, "
            "else_branch = e () => (float[2] q) { q = Neg(x) }> y = Add(a, p) }",
        ),
        (
            "in a subgraph beside the one that defines it",
            G + "{ y = If (c) "
            "<then_branch = t () => (float[2] p) { p = Exp(x) }, "
            "else_branch = e () => (float[2] p) {}> }",
        ),
        ("in a function, but in the model", CALL + "f (a) => (b) { b = Neg(x) }"),
        (
            "in a default of a function, but in its body",
            with_function(
                'output: "a" attribute_proto { name: "g" type: GRAPH g { output { name: "a" } } }'
            ),
        ),
    ],
    "a cycle": [
        ("of two nodes", G + "{ a = Add(x, b) b = Neg(a) y = Neg(b) }"),
        ("of one node", G + "{ y = Neg(y) }"),
        ("through a subgraph", G + "{ y = If (c) <then_branch = t () => (float[2] y) {}, " + DEAD),
        (
            "in a subgraph",
            G + "{ y = If (c) <then_branch = t () => (float[2] p) { p = Neg(p) }, " + DEAD,
        ),
        ("in a function", CALL + "f (a) => (b) { b = Neg(b) }"),
    ],
    "two attributes of one name": [
        ("of a node", G + "{ y = Elu <a = 1, a = 1> (x) }"),
        (
            "of a node, both references",
            CALL + "f <k> (a) => (b) { b = Elu <a: int = @k, a: int = @k> (a) }",
        ),
        ("of a function", CALL + "f <k, k> (a) => (b) { b = Elu(a) }"),
        (
            "of a function, with and without default",
            CALL + "f <k, k: int = 1> (a) => (b) { b = Elu(a) }",
        ),
        (
            "of a function, both with default",
            CALL + "f <k: int = 1, k: int = 1> (a) => (b) { b = Elu(a) }",
        ),
    ],
    "an attribute has a value of another type": [
        ("FLOAT beside INT", with_attribute('attribute { name: "a" type: FLOAT f: 1 i: 1 }')),
        ("INT in place of FLOAT", with_attribute('attribute { name: "a" type: FLOAT i: 1 }')),
        ("a 0 beside", with_attribute('attribute { name: "a" type: STRING s: "a" i: 0 }')),
        ("a list beside", with_attribute('attribute { name: "a" type: INT i: 1 ints: 1 }')),
        ("a graph beside", with_attribute('attribute { name: "a" type: INTS ints: 1 g { } }')),
        ("a type beside", with_attribute('attribute { name: "a" type: GRAPHS tp { } }')),
    ],
    "an attribute has no value": [
        ("TENSOR", with_attribute('attribute { name: "a" type: TENSOR }')),
        ("GRAPH", with_attribute('attribute { name: "a" type: GRAPH }')),
        ("SPARSE_TENSOR", with_attribute('attribute { name: "a" type: SPARSE_TENSOR }')),
        ("TYPE_PROTO", with_attribute('attribute { name: "a" type: TYPE_PROTO }')),
    ],
    "an attribute has no type": [
        ("but a value", with_attribute('attribute { name: "a" i: 1 }')),
        ("nor a value", with_attribute('attribute { name: "a" type: UNDEFINED }')),
        (
            "in a function's default",
            with_function('output: "a" attribute_proto { name: "k" }'),
        ),
    ],
    "a reference outside of a function's body": [
        (
            "in the model's graph",
            with_attribute('attribute { name: "a" type: INT ref_attr_name: "k" }'),
        ),
        (
            "with a value beside it",
            with_attribute('attribute { name: "a" type: INT i: 1 ref_attr_name: "k" }'),
        ),
        (
            "in a subgraph",
            with_attribute(
                'attribute { name: "g" type: GRAPH g { output { name: "p" } node { op_type: "F" '
                'output: "p" attribute { name: "a" type: INT ref_attr_name: "k" } } } }'
            ),
        ),
        (
            "as a function's default",
            with_function(
                'output: "a" attribute: "q" '
                'attribute_proto { name: "k" type: INT ref_attr_name: "q" }'
            ),
        ),
        (
            "in a graph that is a function's default",
            with_function(
                'output: "a" attribute: "q" attribute_proto { name: "k" type: GRAPH g { '
                'node { op_type: "F" output: "p" attribute { name: "a" ref_attr_name: "q" } } '
                'output { name: "p" } } }'
            ),
        ),
    ],
    "a reference has a value": [
        (
            name,
            with_function(
                'output: "b" attribute: "k" node { op_type: "Elu" input: "a" output: "b" '
                f'attribute {{ name: "a" {parts} ref_attr_name: "k" }} }}'
            ),
        )
        for name, parts in (
            ("of its type", "type: INT i: 0"),
            ("of another type", "type: INT floats: 1"),
        )
    ],
    "a negative element type": [
        ("of a tensor", of_input_type(field(1, field(1, -1)))),
        ("of a sparse tensor", of_input_type(field(8, field(1, -1)))),
        ("of a map's keys", of_input_type(field(5, [field(1, -2), field(2, b"")]))),
        (
            "in the type of a subgraph's input",
            of_node(attribute("g", 5, field(6, field(11, field(2, field(1, field(1, -1))))))),
        ),
    ],
    "an unknown element type": [
        ("0", with_weight("dims: 0")),
        ("29", with_weight('dims: 1 data_type: 29 raw_data: "1"')),
        ("-1", with_weight("dims: 1 data_type: -1 int32_data: 1")),
        (
            "of a sparse weight without values",
            f'{IMPORTS} sparse_initializer {{ values {{ name: "x" }} '
            'dims: 1 indices { data_type: 7 } } output { name: "x" } }',
        ),
        (
            "of a sparse weight without indices",
            f'{IMPORTS} sparse_initializer {{ values {{ name: "x" '
            'data_type: 1 dims: 1 float_data: 1 } dims: 1 } output { name: "x" } }',
        ),
        (
            "of a tensor in an attribute",
            with_attribute('attribute { name: "a" type: TENSOR t { dims: 0 } }'),
        ),
    ],
    "a negative dimension": [
        ("-1", with_weight("dims: -1 data_type: 1")),
        ("beside 0", with_weight("dims: 0 dims: -3 data_type: 1")),
        (
            "of a sparse weight",
            of_sparse(
                field(1, [field(1, 2), field(2, 1), field(8, "w"), RAW]),
                field(2, PLACES),
                field(3, -6),
            ),
        ),
    ],
    "too many dimensions": [
        ("65 of 1", with_weight("dims: 1 " * 65 + "data_type: 1 float_data: 1")),
        ("65 of 0", with_weight("dims: 0 " * 65 + "data_type: 1")),
        (
            "of a sparse weight",
            of_sparse(
                field(1, [field(1, 2), field(2, 1), field(8, "w"), RAW]),
                field(2, PLACES),
                field(3, 1) * 65,
            ),
        ),
    ],
    "too many elements": [
        ("2^63", with_weight(f"dims: {BIG} dims: 2 data_type: 1")),
        ("2^64, which is 0 in 64 bits", with_weight(f"dims: {BIG} dims: 4 data_type: 1")),
        ("beside 0", with_weight(f"dims: 0 dims: {BIG} dims: 4 data_type: 1")),
        (
            "of a sparse weight",
            of_sparse(
                field(1, [field(1, 2), field(2, 1), field(8, "w"), RAW]),
                field(2, PLACES),
                field(3, BIG),
                field(3, 6),
            ),
        ),
    ],
    "a tensor in segments": [
        ("in one", with_weight("dims: 1 data_type: 1 float_data: 1 segment { begin: 0 end: 1 }")),
        ("an empty one", with_weight("dims: 1 data_type: 1 float_data: 1 segment { }")),
    ],
    "data in another type's field": [
        ("floats for INT32", with_weight("dims: 1 data_type: 6 float_data: 1")),
        ("int32_data for INT64", with_weight("dims: 1 data_type: 7 int32_data: 1")),
        ("int32_data for UINT32", with_weight("dims: 1 data_type: 12 int32_data: 1")),
        ("float_data for FLOAT16", with_weight("dims: 1 data_type: 10 float_data: 1")),
        ("strings for UINT8", with_weight('dims: 1 data_type: 2 string_data: "1"')),
        ("two typed fields", with_weight("dims: 1 data_type: 1 float_data: 1 double_data: 1")),
        ("raw bytes beside", with_weight('dims: 1 data_type: 2 raw_data: "1" int64_data: 1')),
        ("no elements, but one there", with_weight("dims: 0 data_type: 1 int32_data: 1")),
    ],
    "data in two places": [
        (
            "raw bytes and a typed field",
            with_weight('dims: 1 data_type: 2 raw_data: "1" int32_data: 49'),
        ),
        (
            "empty raw bytes and a typed field",
            with_weight('dims: 1 data_type: 2 raw_data: "" int32_data: 49'),
        ),
        (
            "a file and raw bytes",
            in_file(W, parts='dims: 8 data_type: 2 raw_data: "12345678"'),
            FILE,
        ),
        ("a file and empty raw bytes", in_file(W, parts='dims: 8 data_type: 2 raw_data: ""'), FILE),
        (
            "a file and a typed field",
            in_file(W, parts="dims: 2 data_type: 1 float_data: [1, 2]"),
            FILE,
        ),
        ("strings twice", with_weight('dims: 1 data_type: 8 raw_data: "1" string_data: "1"')),
    ],
    "strings as raw bytes": [
        ("in raw_data", with_weight('dims: 1 data_type: 8 raw_data: "1"')),
        ("in empty raw_data", with_weight('dims: 0 data_type: 8 raw_data: ""')),
        ("in a file", in_file(W, parts="dims: 1 data_type: 8"), FILE),
    ],
    "data of another size": [
        ("nothing", with_weight("dims: 1 data_type: 1")),
        ("nothing, a scalar", with_weight("data_type: 1")),
        ("too few floats", with_weight("dims: 3 data_type: 1 float_data: [1, 2]")),
        ("too many floats", with_weight("dims: 1 data_type: 1 float_data: [1, 2]")),
        ("too few raw bytes", with_weight('dims: 1 data_type: 1 raw_data: "123"')),
        ("too many raw bytes", with_weight('dims: 1 data_type: 1 raw_data: "12345"')),
        ("raw bytes for no elements", with_weight('dims: 0 data_type: 1 raw_data: "1234"')),
        ("floats for no elements", with_weight("dims: 0 data_type: 1 float_data: 1")),
        ("too few strings", with_weight('dims: 3 data_type: 8 string_data: ["a", "b"]')),
        ("half a complex number", with_weight("dims: 1 data_type: 14 float_data: 1")),
        ("an entry for each INT4", with_weight("dims: 2 data_type: 22 int32_data: [1, 2]")),
        ("a byte for each UINT2", with_weight('dims: 3 data_type: 25 raw_data: "123"')),
        (
            "FLOAT6 entries of as many bytes",
            with_weight("dims: 3 data_type: 27 int32_data: [1, 2, 3, 4]"),
        ),
        (
            "indices of a sparse weight",
            of_sparse(
                field(1, [field(1, 2), field(2, 1), field(8, "w"), RAW]),
                field(2, [field(1, 2), field(2, 7), RAW]),
                field(3, 6),
            ),
        ),
        ("a file too short", in_file(W, parts="dims: 3 data_type: 1"), FILE),
        ("a file too long", in_file(W, parts="dims: 1 data_type: 1"), FILE),
        ("a range too short", in_file(W, ("length", "4")), FILE),
        (
            "a tensor in an attribute",
            with_attribute(
                'attribute { name: "a" type: TENSOR t { dims: 2 data_type: 1 float_data: 1 } }'
            ),
        ),
        (
            "a tensor in a list",
            with_attribute('attribute { name: "a" type: TENSORS tensors { data_type: 1 } }'),
        ),
    ],
    "an entry that does not fit": [
        (f"{name}: {entry}", with_weight(f"dims: 1 data_type: {number} {where}: {entry}"))
        for name, number, where, values in (
            ("INT8", 3, "int32_data", (256, -129)),
            ("BOOL", 9, "int32_data", (256,)),
            ("UINT16", 4, "int32_data", (65536, -32769)),
            ("FLOAT16", 10, "int32_data", (65536,)),
            ("FLOAT8E8M0", 24, "int32_data", (256,)),
            ("FLOAT6E2M3", 27, "int32_data", (64, -33)),
            ("INT4", 22, "int32_data", (256, -129)),
            ("UINT2", 25, "int32_data", (256,)),
            ("UINT32", 12, "uint64_data", (2**32,)),
        )
        for entry in values
    ],
    "a key of external data stands twice": [
        ("location", in_file(W, W), FILE),
        ("offset", in_file(W, ("offset", "0"), ("offset", "0")), FILE),
        ("length", in_file(("length", "8"), W, ("length", "8")), FILE),
    ],
    "not a number": [
        (repr(value), in_file(W, ("offset", value)), FILE)
        for value in ("", "-0", "+0", " 0", "0x0", "0.0", "1_0", "\u0660", "0" * 20)
    ]
    + [("a length", in_file(W, ("length", "8 ")), FILE)],
    "a location that is not allowed": [
        ("none", in_file(("offset", "0")), FILE),
        ("an empty one", located(""), FILE),
        ("absolute", located("/w.bin"), FILE),
        ("above", located("../w.bin"), FILE | {"../w.bin": FLOATS.hex()}),
        ("above and back", located("../model/w.bin"), FILE),
        ("by way of nothing", located("none/../w.bin"), FILE),
        ("a slash behind", located("w.bin/"), FILE),
        ("two slashes", located("d//w.bin"), {"d/w.bin": FLOATS.hex()}),
        (
            "in a dead weight",
            f"{IMPORTS} initializer {{ data_location: EXTERNAL external_data "
            f'{{ key: "location" value: "../w.bin" }} }} {Y.replace("y", "x")} }}',
            {"../w.bin": FLOATS.hex()},
        ),
    ],
    "not a file of the model's directory": [
        ("nothing there", located("other.bin"), FILE),
        ("a directory", located("d"), {"d/w.bin": FLOATS.hex()}),
        ("the directory itself", located("."), FILE),
        ("a file as a directory", located("w.bin/w.bin"), FILE),
        ("a byte 0", located("w.bin\0"), FILE),
        (
            "a link that leads out",
            located("link"),
            {"../w.bin": FLOATS.hex()},
            {"link": "../w.bin"},
        ),
        (
            "a link of the directory that leads out",
            located("d/w.bin"),
            {"../d/w.bin": FLOATS.hex()},
            {"d": "../d"},
        ),
        ("a link to itself", located("link"), {}, {"link": "link"}),
        ("a link to nothing", located("link"), {}, {"link": "nothing"}),
        ("a device", located("link"), {}, {"link": "/dev/zero"}),
        (
            "in a sparse tensor",
            f"{IMPORTS} sparse_initializer {{ values {{ data_location: EXTERNAL "
            f'external_data {{ key: "location" value: "w.bin" }} }} }} {Y.replace("y", "x")} }}',
            {},
        ),
    ],
    "a range beyond the end of the file": [
        ("an offset", in_file(W, ("offset", "9")), FILE),
        ("a length", in_file(W, ("length", "9")), FILE),
        ("offset and length", in_file(W, ("offset", "4"), ("length", "8")), FILE),
        ("19 digits", in_file(W, ("offset", "9" * 19)), FILE),
        (
            "nothing, behind the end",
            in_file(W, ("offset", "9"), ("length", "0"), parts="dims: 0 data_type: 1"),
            FILE,
        ),
    ],
    "a length of 0 before the end of the file": [
        ("for no elements", in_file(W, ("length", "0"), parts="dims: 0 data_type: 1"), FILE),
        ("for the whole file", in_file(W, ("length", "0")), FILE),
    ],
}
