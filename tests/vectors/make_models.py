# SPDX-License-Identifier: Apache-2.0
"""Writes models.json and invalid_models.json: small models with their digests, or without.

Run it after a change of the lists, with any version of onnx: ``python make_models.py``. The
digests, and the reasons why there are none, are those of the reference implementation. Two
models have the same graph and weights only where SAME says so.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import onnx.parser
from google.protobuf import text_format

PATH = Path(__file__).with_name("models.json")
INVALID_PATH = Path(__file__).with_name("invalid_models.json")
sys.path.append(str(PATH.parents[2] / "reference"))

import canonical_reference  # noqa: E402
import invalid_models  # noqa: E402
import odd_encodings  # noqa: E402
import wire  # noqa: E402

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
CUSTOM = '<ir_version: 10, opset_import: ["": 21, "custom": 1]>\n'

# In the syntax of onnx.parser.
TEXT = {
    # Nodes and how they are wired.
    "one operator": HEAD + "g (float[2] x) => (float[2] y) { y = Relu(x) }",
    "another operator": HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }",
    "the output is the input": HEAD + "g (float[2] x) => (float[2] x) {}",
    "the output is a weight": HEAD + "g () => (float[2] w) <float[2] w = {1, 2}> {}",
    "no outputs, so nothing counts": HEAD + "g (float[2] x) => () { y = Relu(x) }",
    "operands in order": HEAD + "g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }",
    "operands in the other order": HEAD
    + "g (float[2] a, float[2] b) => (float[2] y) { y = Sub(b, a) }",
    "inputs in the other order": HEAD
    + "g (float[2] b, float[2] a) => (float[2] y) { y = Sub(a, b) }",
    "outputs": HEAD + "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(x) }",
    "outputs in the other order": HEAD
    + "g (float[2] x) => (float[2] z, float[2] y) { y = Relu(x) z = Neg(x) }",
    "independent nodes": HEAD
    + "g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(x) y = Sub(a, b) }",
    "independent nodes in the other order, renamed": HEAD
    + "g (float[2] x) => (float[2] y) { p = Neg(x) q = Relu(x) y = Sub(q, p) }",
    "shared: one random node used twice": HEAD
    + "g () => (float[2] y) { a = RandomNormal <shape = [2]> () y = Sub(a, a) }",
    "not shared: two random nodes": HEAD
    + "g () => (float[2] y) { a = RandomNormal <shape = [2]> () "
    "b = RandomNormal <shape = [2]> () y = Sub(a, b) }",
    "dead nodes": HEAD
    + "g (float[2] x) => (float[2] y) { d = Neg(x) e = Exp(d) y = Relu(x) f = Abs(y) }",
    "an optional input is empty": HEAD
    + "g (float[2] x, float m) => (float[2] y) { y = Clip(x, , m) }",
    "an optional input is not empty": HEAD
    + "g (float[2] x, float m) => (float[2] y) { y = Clip(x, m) }",
    "the second output is used": HEAD
    + "g (float[4] x) => (float[2] y) { a, y = Split <num_outputs = 2> (x) }",
    "the first output is used": HEAD
    + "g (float[4] x) => (float[2] y) { y, b = Split <num_outputs = 2> (x) }",
    "an output is empty": CUSTOM
    + "g (float[2] x) => (float[2] y, float[2] z) { y, , z = custom.F(x) }",
    "no output is empty": CUSTOM
    + "g (float[2] x) => (float[2] y, float[2] z) { y, unused, z = custom.F(x) }",
    "a diamond of shared values": HEAD
    + "g (float[2] x) => (float[2] y) { a = Exp(x) b = Add(a, a) c = Add(b, b) y = Add(c, a) }",
    "nodes out of order": HEAD + "g (float[2] x) => (float[2] y) { y = Neg(a) a = Exp(x) }",
    "dead nodes that could not run": HEAD
    + "g (float[2] x) => (float[2] y) { a = Add(b, nothing) b = unknown.F(a) y = Relu(x) }",
    # Operator sets and domains.
    "operator set 13": '<ir_version: 10, opset_import: ["": 13]>\n'
    "g (float[2] x) => (float[2] y) { y = Relu(x) }",
    "the domain spelled ai.onnx": '<ir_version: 10, opset_import: ["ai.onnx": 21]>\n'
    "g (float[2] x) => (float[2] y) { y = ai.onnx.Relu(x) }",
    "an import that no node uses": '<ir_version: 10, opset_import: ["": 21, "unused": 7]>\n'
    "g (float[2] x) => (float[2] y) { y = Relu(x) }",
    "a custom domain": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.Relu(x) }",
    "two domains": '<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 4]>\n'
    "g (float[2] x) => (float[2] y) { a = ai.onnx.ml.Binarizer <threshold = 0.5> (x) y = Neg(a) }",
    "another version of ai.onnx, which no node uses": CUSTOM.replace("21", "13")
    + "g (float[2] x) => (float[2] y) { y = custom.F (x) }",
    "no ai.onnx at all": '<ir_version: 10, opset_import: ["custom": 1]>\n'
    "g (float[2] x) => (float[2] y) { y = custom.F (x) }",
    "no ai.onnx but in a function": '<ir_version: 10, opset_import: ["custom": 1]>\n'
    "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }',
    # What does not count.
    "cosmetics": '<ir_version: 9, opset_import: ["": 21], producer_name: "p", '
    'producer_version: "1", domain: "d", model_version: 3, doc_string: "text", '
    'metadata_props: ["k": "v"]>\n'
    "another_name (float[2] x) => (float[2] y) <float[2] z> { z = Neg(x) y = Relu(x) }",
    # Attributes.
    "attributes of each simple kind": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.F <f = 0.5, i = -3, s = "
    '"text", fs = [0.5, -1.0], is = [1, -2], ss = ["a", "", "bc"]> (x) }',
    "attributes in another order": CUSTOM
    + 'g (float[2] x) => (float[2] y) { y = custom.F <ss = ["a", "", "bc"], is = [1, -2], '
    'fs = [0.5, -1.0], s = "text", i = -3, f = 0.5> (x) }',
    "empty lists of each kind": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.F <fs: floats = [], is: ints = [], "
    "ss: strings = []> (x) }",
    "an attribute of zero is not a missing one": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.F <i = 0> (x) }",
    "no attribute": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.F (x) }",
    "a float of a whole number": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.F <i: float = 0.0> (x) }",
    "a tensor attribute": HEAD
    + "g () => (float[2] y) { y = Constant <value: tensor = float[2] {1, 2}> () }",
    "a tensor attribute of other content": HEAD
    + "g () => (float[2] y) { y = Constant <value: tensor = float[2] {1, 3}> () }",
    # Inputs and outputs.
    "an unused input": HEAD + "g (float[2] x, int64 u) => (float[2] y) { y = Relu(x) }",
    "another name of the input": HEAD + "g (float[2] z) => (float[2] y) { y = Relu(z) }",
    "another name of the output": HEAD + "g (float[2] x) => (float[2] z) { z = Relu(x) }",
    "an input of another element type": HEAD + "g (double[2] x) => (float[2] y) { y = Relu(x) }",
    "an input of another size": HEAD + "g (float[3] x) => (float[2] y) { y = Relu(x) }",
    "symbolic and unknown dimensions": HEAD
    + "g (float[N, ?, 3] x) => (float[N, ?, 3] y) { y = Relu(x) }",
    "another symbol": HEAD + "g (float[M, ?, 3] x) => (float[M, ?, 3] y) { y = Relu(x) }",
    "a scalar": HEAD + "g (float x) => (float y) { y = Relu(x) }",
    "any rank": HEAD + "g (float[] x) => (float[] y) { y = Relu(x) }",
    "an output without type": HEAD + "g (float[2] x) => (y) { y = Relu(x) }",
    "inputs of sequence, optional, map and sparse types": HEAD
    + "g (seq(float[N]) s, optional(seq(int64[2])) o, map(int64, float[2]) m, "
    "map(string, map(int64, double)) mm, sparse_tensor(float[2, N]) t) => (int64 y) "
    "{ y = SequenceLength(s) }",
    # Weights.
    "a weight": HEAD + "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }",
    "a weight of other content": HEAD
    + "g (float[2] x) => (float[2] y) <float[2] w = {1, 3}> { y = Add(x, w) }",
    "a weight of another element type": HEAD
    + "g (float[2] x) => (float[2] y) <int32[2] w = {1, 2}> { y = Add(x, w) }",
    "a weight of another shape": HEAD
    + "g (float[2] x) => (float[2] y) <float[1, 2] w = {1, 2}> { y = Add(x, w) }",
    "a weight renamed, an unused weight": HEAD
    + "g (float[2] x) => (float[2] y) <float[3] u = {1, 2, 3}, float[2] v = {1, 2}> "
    "{ y = Add(x, v) }",
    "a scalar weight": HEAD + "g (float[2] x) => (float[2] y) <float w = {1}> { y = Add(x, w) }",
    "an empty weight": HEAD
    + "g (float[2] x) => (float[0, 3] y) <float[0, 3] w = {}> { y = Identity(w) }",
    "one weight used twice": HEAD + "g () => (float[2] y) <float[2] w = {1, 2}> { y = Add(w, w) }",
    "two equal weights": HEAD
    + "g () => (float[2] y) <float[2] v = {1, 2}, float[2] w = {1, 2}> { y = Add(v, w) }",
    "weights in the order of their use": HEAD
    + "g () => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> { y = Sub(w, v) }",
    "weights in the order of their use, declared in the other one": HEAD
    + "g () => (float[2] y) <float[2] a = {3, 4}, float[2] b = {1, 2}> { y = Sub(a, b) }",
    "a string weight": HEAD
    + 'g () => (string[3] y) <string[3] w = {"a", "", "bc"}> { y = Identity(w) }',
    "a string weight cut elsewhere": HEAD
    + 'g () => (string[3] y) <string[3] w = {"ab", "", "c"}> { y = Identity(w) }',
    "a weight that is the default of an input": HEAD
    + "g (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Add(x, w) }",
    "IR version 3, whose weights are inputs": '<ir_version: 3, opset_import: ["": 9]>\n'
    "g (float[2] x, float[2] w = {1, 2}, float[2] u = {5, 6}) => (float[2] y) { y = Add(x, w) }",
    # Quantized.
    "quantize and dequantize": HEAD
    + "g (float[2] x) => (float[2] y) <float s = {0.5}, uint8 z = {128}> "
    "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
    "a quantized operator": HEAD
    + "g (uint8[2, 2] x) => (uint8[2, 2] y) <float s = {0.5}, uint8 z = {128}, "
    "int8[2, 2] w = {1, -2, 3, -4}, float[2] t = {0.25, 0.5}, int8[2] v = {0, -1}> "
    "{ y = QLinearMatMul(x, s, z, w, t, v, s, z) }",
    # Subgraphs.
    "an If that captures values": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) y = If (c) "
    "<then_branch = t () => (float[2] p) { p = Neg(a) }, "
    "else_branch = e () => (float[2] q) { q = Add(x, a) }> }",
    "an If whose branches come in the other order and use one name": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) y = If (c) "
    "<else_branch = e () => (float[2] r) { r = Add(x, a) }, "
    "then_branch = t () => (float[2] r) { r = Neg(a) }> }",
    "captures are numbered by their first use": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) b = Neg(x) y = If (c) "
    "<then_branch = t () => (float[2] p) { p = Sub(b, a) }, "
    "else_branch = e () => (float[2] q) { q = Sub(a, b) }> }",
    "a branch's output is a captured value": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) y = If (c) "
    "<then_branch = t () => (float[2] a) {}, else_branch = e () => (float[2] x) {}> }",
    "what only a dead node of a subgraph captures is dead": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) b = Sin(x) y = If (c) "
    "<then_branch = t () => (float[2] p) { d = Neg(b) p = Neg(a) }, "
    "else_branch = e () => (float[2] q) { q = Add(x, a) }> }",
    "weights inside and outside of subgraphs": HEAD
    + "g (bool c, float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> "
    "{ a = Add(x, w) y = If (c) "
    "<then_branch = t () => (float[2] p) <float[2] i = {5, 6}> { p = Mul(a, i) }, "
    "else_branch = e () => (float[2] q) <float[2] j = {7, 8}> { m = Sub(v, j) q = Mul(m, w) }> }",
    "captures through two levels": HEAD
    + "g (bool c, bool d, float[2] x) => (float[2] y) { a = Exp(x) b = Sin(x) y = If (c) "
    "<then_branch = t () => (float[2] p) { k = Neg(a) p = If (d) "
    "<then_branch = tt () => (float[2] s) { s = Sub(k, b) }, "
    "else_branch = te () => (float[2] s) { s = Sub(x, a) }> }, "
    "else_branch = e () => (float[2] x) {}> }",
    "a weight that only a branch's output refers to": HEAD
    + "g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = If (c) "
    "<then_branch = t () => (float[2] w) {}, else_branch = e () => (float[2] x) {}> }",
    "a subgraph's input with a default": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.F "
    "<body = b (float[2] a, float[2] k = {1, 2}) => (float[2] p) { p = Add(a, k) }> (x) }",
    "a subgraph whose weight is no default": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.F "
    "<body = b (float[2] a) => (float[2] p) <float[2] k = {1, 2}> { p = Add(a, k) }> (x) }",
    "a Loop": HEAD + "g (int64 n, bool c, float[2] x, float[2] k) => (float[2] y, float[N, 2] z) "
    "{ y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] v) => "
    "(bool co, float[2] w, float[2] u) { co = Identity(ci) w = Add(v, k) u = Mul(v, v) }> }",
    "a Loop whose body's outputs have other types": HEAD
    + "g (int64 n, bool c, float[2] x, float[2] k) => (float[2] y, float[N, 2] z) "
    "{ y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] v) => "
    "(co, int8[3] w, string u) { co = Identity(ci) w = Add(v, k) u = Mul(v, v) }> }",
    "a Loop whose body's inputs have other types": HEAD
    + "g (int64 n, bool c, float[2] x, float[2] k) => (float[2] y, float[N, 2] z) "
    "{ y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[2, 1] v) => "
    "(bool co, float[2] w, float[2] u) { co = Identity(ci) w = Add(v, k) u = Mul(v, v) }> }",
    "a Loop whose body's inputs have no types": HEAD
    + "g (int64 n, bool c, float[2] x, float[2] k) => (float[2] y, float[N, 2] z) "
    "{ y, z = Loop (n, c, x) <body = b (i, ci, v) => "
    "(bool co, float[2] w, float[2] u) { co = Identity(ci) w = Add(v, k) u = Mul(v, v) }> }",
    "two subgraphs side by side that use the same names": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { a = If (c) "
    "<then_branch = t () => (float[2] p) { p = Neg(x) }, "
    "else_branch = e () => (float[2] p) { p = Exp(x) }> y = If (c) "
    "<then_branch = t () => (float[2] p) <float[2] p = {1, 2}> { }, "
    "else_branch = e () => (float[2] q) { p = Exp(a) q = Exp(p) }> }",
    "a subgraph that does not count, with a name twice and one that nothing defines": HEAD
    + "g (bool c, float[2] x) => (float[2] y) { y = Relu(x) d = If (c) "
    "<then_branch = t () => (float[2] p) { p = Neg(x) p = Abs(x) }, "
    "else_branch = e () => (float[2] q) { q = Exp(nothing) }> }",
    "a function's names are its own": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (y) => (x) { x = Relu(y) }',
    "a function that does not count contradicts itself": HEAD
    + "g (float[2] x) => (float[2] y) { y = Relu(x) d = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21, "": 20]> f <a, a> (a, a) => (b) '
    "{ a = Relu(nothing) a = Elu <k = 1, k = 2> (x) }",
    "a reference in a subgraph of a function": CUSTOM
    + "g (bool c, float[2] x) => (float[2] y) { y = custom.f <axis = 0> (c, x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f <axis> (c, a) => (b) { b = If (c) '
    "<then_branch = t () => (float[2] p) { p = Softmax <axis: int = @axis> (a) }, "
    "else_branch = e () => (float[2] q) { q = Neg(a) }> }",
    "a Scan": HEAD + "g (float[2] x, float[3, 2] s) => (float[2] y, float[3, 2] z) "
    "{ y, z = Scan (x, s) <num_scan_inputs = 1, body = b (float[2] v, float[2] e) => "
    "(float[2] w, float[2] u) { w = Add(v, e) u = Identity(w) }> }",
    "a Scan with its inputs crossed": HEAD
    + "g (float[2] x, float[3, 2] s) => (float[2] y, float[3, 2] z) "
    "{ y, z = Scan (x, s) <num_scan_inputs = 1, body = b (float[2] v, float[2] e) => "
    "(float[2] w, float[2] u) { w = Add(e, v) u = Identity(w) }> }",
    # Functions.
    "a function": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }',
    "a function whose domain is not imported": HEAD
    + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }',
    "a function with another body": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Neg(a) }',
    "a function with its own operator set": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 13]> f (a) => (b) { b = Relu(a) }',
    "a function with an unused input": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a, c) => (b) { b = Relu(a) }',
    "a function that calls itself": CUSTOM + "g (float[2] x) => (float[2] y) { y = custom.f(x) }\n"
    '<domain: "custom", opset_import: ["": 21, "custom": 1]> f (a) => (b) { b = custom.f(a) }',
    "a function that gives back its inputs crossed": CUSTOM
    + "g (float[2] x) => (float[2] y, float[2] z) { y, z = custom.f(x, x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a, c) => (c, a) {}',
    "an operator without the function": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f(x) }",
    "a function that nothing uses": HEAD + "g (float[2] x) => (float[2] y) { y = Relu(x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }',
    "a function in place of a standard operator": HEAD
    + "g (float[2] x) => (float[2] y) { y = Relu(x) }\n"
    '<domain: "", opset_import: ["": 21]> Relu (a) => (b) { z = Sub(a, a) b = Max(a, z) }',
    "an overload": CUSTOM
    + "g (float[2] x) => (float[2] y) { a = custom.f:one(x) y = custom.f:two(a) }\n"
    '<domain: "custom", overload: "one", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }\n'
    '<domain: "custom", overload: "two", opset_import: ["": 21]> f (a) => (b) { b = Neg(a) }',
    "the other overload first": CUSTOM
    + "g (float[2] x) => (float[2] y) { a = custom.f:two(x) y = custom.f:one(a) }\n"
    '<domain: "custom", overload: "one", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }\n'
    '<domain: "custom", overload: "two", opset_import: ["": 21]> f (a) => (b) { b = Neg(a) }',
    "nested functions": CUSTOM
    + "g (float[2] x) => (float[2] y) { a = custom.outer(x) y = custom.inner(a) }\n"
    '<domain: "custom", opset_import: ["": 21]> inner (a) => (b) { b = Neg(a) }\n'
    '<domain: "custom", opset_import: ["": 21, "custom": 1]> outer (a) => (b) '
    "{ c = custom.last(a) b = custom.inner(c) }\n"
    '<domain: "custom", opset_import: ["": 21]> last (a) => (b) { d = Exp(a) b = Abs(a) }',
    "nested functions in another order": CUSTOM
    + "g (float[2] x) => (float[2] y) { a = custom.outer(x) y = custom.inner(a) }\n"
    '<domain: "custom", opset_import: ["": 21]> last (i) => (o) { o = Abs(i) }\n'
    '<domain: "custom", opset_import: ["": 21, "custom": 1]> outer (i) => (o) '
    "{ c = custom.last(i) o = custom.inner(c) }\n"
    '<domain: "custom", opset_import: ["": 21]> inner (i) => (o) { o = Neg(i) }',
    "a function with attributes and references to them": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f <axis = 0> (x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f <axis, alpha: float = 0.5> (a) => (b) '
    "{ s = Softmax <axis: int = @axis> (a) b = LeakyRelu <alpha: float = @alpha> (s) }",
    "a function with another default": CUSTOM
    + "g (float[2] x) => (float[2] y) { y = custom.f <axis = 0> (x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f <axis, alpha: float = 0.25> (a) => (b) '
    "{ s = Softmax <axis: int = @axis> (a) b = LeakyRelu <alpha: float = @alpha> (s) }",
    "a function with a subgraph that captures": CUSTOM
    + "g (bool c, float[2] x) => (float[2] y) { y = custom.f(c, x) }\n"
    '<domain: "custom", opset_import: ["": 21]> f (c, a) => (b) { k = Exp(a) b = If (c) '
    "<then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Add(k, w) }, "
    "else_branch = e () => (float[2] q) { q = Neg(a) }> }",
    "a function called in a subgraph only": CUSTOM
    + "g (bool c, float[2] x) => (float[2] y) { y = If (c) "
    "<then_branch = t () => (float[2] p) { p = custom.f(x) }, "
    "else_branch = e () => (float[2] q) { q = Neg(x) }> }\n"
    '<domain: "custom", opset_import: ["": 21]> f (a) => (b) { b = Relu(a) }',
}

IMPORT = 'ir_version: 10 opset_import { version: 21 } graph { name: "g" '
OUTPUT = 'output { name: "y" type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } }'
IDENTITY = 'node { op_type: "Identity" input: "w" output: "y" } ' + OUTPUT


def weight(parts):
    return f'initializer {{ name: "w" {parts} }}'


def sparse(name="", last=2, dims="dims: 2", indices="1, 4"):
    return (
        f'{{ dims: 2 dims: 3 values {{ name: "{name}" dims: 2 data_type: 1 '
        f"float_data: [1, {last}] }} indices {{ {dims} data_type: 7 int64_data: [{indices}] }} }}"
    )


# In protobuf's text format: what onnx.parser has no syntax for.
TEXTPROTO = {
    # A newer onnx.parser drops the empty input.
    "a trailing input is empty": f"{IMPORT}"
    'input { name: "x" type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } } '
    'input { name: "m" type { tensor_type { elem_type: 1 shape { } } } } '
    'node { op_type: "Clip" input: "x" input: "m" input: "" output: "y" } '
    f"{OUTPUT} }}",
    "a sparse weight": f"{IMPORT}sparse_initializer {sparse('w')} {IDENTITY} }}",
    "a sparse weight of other content": f"{IMPORT}"
    f"sparse_initializer {sparse('w', last=3)} {IDENTITY} }}",
    "a sparse weight with indices in coordinates": f"{IMPORT}"
    f"sparse_initializer {sparse('w', dims='dims: 2 dims: 2', indices='0, 1, 1, 1')} {IDENTITY} }}",
    "a sparse tensor attribute": f"{IMPORT}"
    'node { op_type: "Constant" output: "y" attribute { name: "sparse_value" type: SPARSE_TENSOR '
    f"sparse_tensor {sparse()} }} }} {OUTPUT} }}",
    "lists of tensors, sparse tensors, types and graphs": "ir_version: 10 "
    'opset_import { domain: "custom" version: 2 } graph { name: "g" '
    'node { domain: "custom" op_type: "F" output: "y" '
    'attribute { name: "t" type: TENSORS tensors { dims: 1 data_type: 1 float_data: 1 } '
    "tensors { data_type: 7 int64_data: 5 } } "
    'attribute { name: "s" type: SPARSE_TENSORS '
    f"sparse_tensors {sparse()} }} "
    'attribute { name: "p" type: TYPE_PROTOS type_protos { tensor_type { elem_type: 1 } } '
    "type_protos { optional_type { elem_type { sequence_type { elem_type "
    '{ tensor_type { elem_type: 8 shape { dim { dim_param: "N" } } } } } } } } } '
    'attribute { name: "g" type: GRAPHS graphs { name: "a" '
    'node { domain: "custom" op_type: "A" output: "o" } output { name: "o" } } graphs { name: "b" '
    'input { name: "i" } initializer { name: "i" dims: 1 data_type: 6 int32_data: -1 } '
    'input { name: "j" } output { name: "i" } } } } '
    f"{OUTPUT} }}",
    "a type attribute": "ir_version: 10 opset_import { version: 21 } "
    'graph { name: "g" node { op_type: "Optional" output: "y" attribute { name: "type" '
    "type: TYPE_PROTO tp { sparse_tensor_type { elem_type: 1 shape { dim { } } } } } } "
    f"{OUTPUT} }}",
    "opaque, absent and incomplete types": f"{IMPORT}"
    'input { name: "a" type { opaque_type { domain: "ai.onnx" name: "n" } } } '
    'input { name: "b" type { opaque_type { } } } input { name: "c" } '
    'input { name: "d" type { } } input { name: "e" type { sequence_type { } } } '
    'input { name: "f" type { tensor_type { } } } '
    'input { name: "w" type { denotation: "IMAGE" tensor_type { elem_type: 1 '
    'shape { dim { denotation: "DATA_CHANNEL" dim_value: 2 } } } } } '
    f"{IDENTITY} }}",
    "a function in place of a standard operator, its domain spelled ai.onnx": "ir_version: 10 "
    'opset_import { domain: "ai.onnx" version: 21 } graph { name: "g" '
    'input { name: "x" type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } } '
    'node { domain: "ai.onnx" op_type: "Relu" input: "x" output: "y" } '
    f"{OUTPUT} }} "
    'functions { name: "Relu" domain: "" input: "a" output: "b" '
    'opset_import { domain: "ai.onnx" version: 21 } '
    'node { op_type: "Sub" input: "a" input: "a" output: "z" } '
    'node { op_type: "Max" input: "a" input: "z" output: "b" } }',
    "annotations and training": f"{IMPORT}"
    'input { name: "x" type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } } '
    'node { name: "n" doc_string: "d" op_type: "Relu" input: "x" output: "y" '
    'metadata_props { key: "k" value: "v" } } '
    'quantization_annotation { tensor_name: "x" quant_parameter_tensor_names '
    '{ key: "SCALE_TENSOR" value: "s" } } '
    'initializer { name: "s" data_type: 1 float_data: 1 } '
    f'{OUTPUT} }} training_info {{ algorithm {{ name: "t" }} }}',
    "sizes of 0 and -1, and a symbol without name": f"{IMPORT}"
    'input { name: "w" type { tensor_type { elem_type: 1 shape { dim { dim_value: 0 } '
    'dim { dim_value: -1 } dim { dim_param: "" } } } } } '
    f"{IDENTITY} }}",
    "one value under one output's name twice": f"{IMPORT}"
    'input { name: "w" type { tensor_type { elem_type: 1 } } } '
    f"{IDENTITY} {OUTPUT} }}",
    "floats that are no numbers, and minus zero": f"{IMPORT}"
    'node { op_type: "Identity" input: "w" output: "y" '
    'attribute { name: "a" type: FLOATS floats: [nan, inf, -inf, -0.0] } } '
    'initializer { name: "w" dims: 4 data_type: 1 float_data: [nan, inf, -inf, -0.0] } '
    f"{OUTPUT} }}",
    "a sparse weight that is the default of an input": f"{IMPORT}"
    f'sparse_initializer {sparse("w")} input {{ name: "w" }} {IDENTITY} }}',
    "attributes without values": f"{IMPORT}"
    'node { op_type: "Identity" input: "w" output: "y" attribute { name: "f" type: FLOAT } '
    'attribute { name: "g" type: GRAPHS } attribute { name: "i" type: INT } '
    'attribute { name: "s" type: STRING } attribute { name: "t" type: TENSORS } } '
    'input { name: "w" type { tensor_type { elem_type: 1 } } } '
    f"{OUTPUT} }}",
    "a function whose attributes have defaults of several kinds": "ir_version: 10 "
    'opset_import { domain: "custom" version: 1 } graph { name: "g" '
    'input { name: "x" type { tensor_type { elem_type: 1 } } } '
    'node { domain: "custom" op_type: "f" input: "x" output: "y" } '
    f"{OUTPUT} }} "
    'functions { domain: "custom" name: "f" input: "a" output: "b" attribute: "q" attribute: "é" '
    'attribute: "Q" attribute_proto { name: "z" type: INTS ints: [1, 2] } '
    'attribute_proto { name: "d" type: TENSOR t { data_type: 1 float_data: 1 } } '
    'attribute_proto { name: "body" type: GRAPH g { name: "d" '
    'initializer { name: "k" dims: 1 data_type: 1 float_data: 2 } '
    'node { domain: "custom" op_type: "G" input: "k" output: "p" } output { name: "p" } } } '
    'opset_import { domain: "custom" version: 2 } '
    'node { domain: "custom" op_type: "H" input: "a" output: "b" '
    'attribute { name: "body" type: GRAPH ref_attr_name: "body" } '
    'attribute { name: "z" type: INTS ref_attr_name: "z" } } }',
    "names and strings beyond ASCII": 'ir_version: 10 opset_import { domain: "custom" version: 1 } '
    'graph { name: "g" input { name: "größe" type { tensor_type { elem_type: 1 } } } '
    'node { domain: "custom" op_type: "Ω" input: "größe" output: "y" '
    'attribute { name: "\\357\\275\\236" type: STRING s: "\\377\\000" } '
    'attribute { name: "\\360\\220\\200\\200" type: INT i: 1 } } '
    f"{OUTPUT} }}",
    "a default's graph is of the operator sets of its function": "ir_version: 10 "
    'opset_import { domain: "custom" version: 1 } graph { name: "g" '
    'node { domain: "custom" op_type: "f" output: "y" } '
    f"{OUTPUT} }} "
    'functions { domain: "custom" name: "f" output: "b" '
    'attribute_proto { name: "body" type: GRAPH g { name: "d" '
    'node { domain: "other" op_type: "G" output: "b" } output { name: "b" } } } '
    'opset_import { domain: "other" version: 3 } '
    'node { domain: "other" op_type: "H" output: "b" '
    'attribute { name: "body" ref_attr_name: "body" } } }',
    "values of 0 written out": f"{IMPORT}"
    'node { op_type: "Identity" input: "w" output: "y" attribute { name: "f" type: FLOAT f: 0 } '
    'attribute { name: "g" type: GRAPHS } attribute { name: "i" type: INT i: 0 } '
    'attribute { name: "s" type: STRING s: "" } attribute { name: "t" type: TENSORS } } '
    'input { name: "w" type { tensor_type { elem_type: 1 } } } '
    f"{OUTPUT} }}",
    "names that are empty": f"{IMPORT}"
    'input { name: "" } input { name: "w" } input { } initializer { data_type: 1 float_data: 1 } '
    'initializer { data_type: 99 } node { op_type: "Neg" input: "" output: "" output: "" } '
    f"{IDENTITY} }}",
    "an attribute without name": f"{IMPORT}"
    'node { op_type: "Identity" input: "w" output: "y" attribute { type: INT i: 1 } } '
    f'input {{ name: "w" }} {OUTPUT} }}',
    "numbers of element types and keys that are not known": f"{IMPORT}"
    'input { name: "w" type { tensor_type { elem_type: 99 } } } '
    'input { name: "m" type { map_type { key_type: 1000 value_type { } } } } '
    'input { name: "n" type { map_type { } } } '
    f"{IDENTITY} }}",
    "a dead weight that contradicts itself": f"{IMPORT}"
    f"{weight('dims: 2 data_type: 1 float_data: [1, 2]')} "
    'initializer { name: "d" dims: -1 data_type: 99 float_data: 1 raw_data: "123" segment { } } '
    f"{IDENTITY} }}",
    "a sparse weight of strings": f"{IMPORT}"
    'sparse_initializer { dims: 5 values { name: "w" dims: 1 data_type: 8 string_data: "a" } '
    f"indices {{ dims: 1 data_type: 7 int64_data: 3 }} }} {IDENTITY} }}",
    "a sparse weight of nothing": f"{IMPORT}"
    'sparse_initializer { dims: 0 values { name: "w" dims: 0 data_type: 1 } '
    f"indices {{ dims: 0 data_type: 7 }} }} {IDENTITY} }}",
    "64 dimensions": f"{IMPORT}"
    f"{weight('dims: 1 ' * 64 + 'data_type: 1 float_data: 1')} {IDENTITY} }}",
    "many elements but for a dimension of 0": f"{IMPORT}"
    f"{weight('dims: 4611686018427387904 dims: 0 data_type: 1')} {IDENTITY} }}",
    "nothing, and no place for it": f"{IMPORT}{weight('dims: 0 data_type: 1')} {IDENTITY} }}",
    "nothing, as raw bytes": f"{IMPORT}"
    f"{weight('dims: 0 data_type: 1 raw_data: dq'.replace('dq', chr(34) * 2))} {IDENTITY} }}",
    "no strings": f"{IMPORT}{weight('dims: 0 data_type: 8')} {IDENTITY} }}",
    "FLOAT6 of 30 bits": f"{IMPORT}"
    f"{weight('dims: 5 data_type: 27 int32_data: [33, 13, 62, 1, 2]')} {IDENTITY} }}",
    "FLOAT6 of 30 bits, unused ones set": f"{IMPORT}"
    + weight(r'dims: 5 data_type: 27 raw_data: "\x61\xe3\x07\xc2"')
    + f" {IDENTITY} }}",
    "unused bits of a packed weight that are set": f"{IMPORT}"
    f'initializer {{ name: "w" dims: 3 data_type: 22 raw_data: "\\x21\\xfd" }} {IDENTITY} }}',
}

# Each element type of tensors: three elements in the typed field, and as raw bytes.
ELEMENT_TYPES = {
    "FLOAT": (1, "float_data: [1, -2.5, 0.1]", "0000803f000020c0cdcccc3d"),
    "UINT8": (2, "int32_data: [1, 128, 255]", "0180ff"),
    "INT8": (3, "int32_data: [1, -128, -1]", "0180ff"),
    "UINT16": (4, "int32_data: [1, 32768, 65535]", "01000080ffff"),
    "INT16": (5, "int32_data: [1, -32768, -1]", "01000080ffff"),
    "INT32": (6, "int32_data: [1, -2147483648, -1]", "0100000000000080ffffffff"),
    "INT64": (
        7,
        "int64_data: [1, -9223372036854775808, -1]",
        "01000000000000000000000000000080ffffffffffffffff",
    ),
    "BOOL": (9, "int32_data: [1, 0, 1]", "010001"),
    "FLOAT16": (10, "int32_data: [15360, 49408, 31744]", "003c00c1007c"),
    "DOUBLE": (
        11,
        "double_data: [1, -2.5, 0.1]",
        "000000000000f03f00000000000004c09a9999999999b93f",
    ),
    "UINT32": (12, "uint64_data: [1, 2147483648, 4294967295]", "0100000000000080ffffffff"),
    "UINT64": (
        13,
        "uint64_data: [1, 9223372036854775808, 18446744073709551615]",
        "01000000000000000000000000000080ffffffffffffffff",
    ),
    "COMPLEX64": (
        14,
        "float_data: [1, -2.5, 0.1, 0, -0.0, 2]",
        "0000803f000020c0cdcccc3d000000000000008000000040",
    ),
    "COMPLEX128": (
        15,
        "double_data: [1, -2.5, 0.1, 0, -0.0, 2]",
        "000000000000f03f00000000000004c09a9999999999b93f000000000000000000000000000000800000000000000040",
    ),
    "BFLOAT16": (16, "int32_data: [16256, 49184, 32640]", "803f20c0807f"),
    "FLOAT8E4M3FN": (17, "int32_data: [56, 194, 127]", "38c27f"),
    "FLOAT8E4M3FNUZ": (18, "int32_data: [56, 194, 128]", "38c280"),
    "FLOAT8E5M2": (19, "int32_data: [60, 193, 124]", "3cc17c"),
    "FLOAT8E5M2FNUZ": (20, "int32_data: [60, 193, 128]", "3cc180"),
    "UINT4": (21, "int32_data: [33, 13]", "210d"),
    "INT4": (22, "int32_data: [33, 13]", "210d"),
    "FLOAT4E2M1": (23, "int32_data: [33, 13]", "210d"),
    "FLOAT8E8M0": (24, "int32_data: [127, 128, 255]", "7f80ff"),
    "UINT2": (25, "int32_data: 57", "39"),
    "INT2": (26, "int32_data: 57", "39"),
    "FLOAT6E2M3": (27, "int32_data: [33, 13, 62]", "61e303"),
    "FLOAT6E3M2": (28, "int32_data: [33, 13, 62]", "61e303"),
}
for _name, (_number, _typed, _hex) in ELEMENT_TYPES.items():
    _raw = "".join(f"\\x{_hex[i : i + 2]}" for i in range(0, len(_hex), 2))
    for _how, _data in (("in its typed field", _typed), ("in raw bytes", f'raw_data: "{_raw}"')):
        _weight = f'{{ name: "w" dims: 3 data_type: {_number} {_data} }}'
        TEXTPROTO[f"{_name} {_how}"] = f"{IMPORT}initializer {_weight} {IDENTITY} }}"

# Entries of typed fields: the lowest one, and the highest one that has the same bits.
LOWEST = {
    "INT8": (3, "int32_data: -128", "int32_data: 128"),
    "UINT8": (2, "int32_data: -1", "int32_data: 255"),
    "BOOL": (9, "int32_data: -1", "int32_data: 255"),
    "FLOAT8E8M0": (24, "int32_data: -128", "int32_data: 128"),
    "INT16": (5, "int32_data: -32768", "int32_data: 32768"),
    "UINT16": (4, "int32_data: -1", "int32_data: 65535"),
    "BFLOAT16": (16, "int32_data: -32768", "int32_data: 32768"),
    "FLOAT6E3M2": (28, "int32_data: -32", "int32_data: 32"),
    "UINT4": (21, "int32_data: -1", "int32_data: 255"),
    "INT2": (26, "int32_data: -128", "int32_data: 128"),
}
for _name, (_number, *_both) in LOWEST.items():
    for _how, _data in zip(("the lowest entry", "the entry of the same bits"), _both, strict=True):
        TEXTPROTO[f"{_name}, {_how}"] = (
            f"{IMPORT}{weight(f'dims: 1 data_type: {_number} {_data}')} {IDENTITY} }}"
        )


def of_file(entries, parts="dims: 2 data_type: 1"):
    """A model with an external weight, of (key, value) pairs."""
    pairs = " ".join(
        f"external_data {{ key: {json.dumps(key)} value: {json.dumps(value)} }}"
        for key, value in entries
    )
    return f"{IMPORT}{weight(f'{parts} data_location: EXTERNAL {pairs}')} {IDENTITY} }}"


IN_FILE = [("location", "w.bin")]
FLOATS = "0000803f00000040"  # 1 and 2

# Models in a directory: in the text format; the files beside them, in hexadecimal; links.
EXTERNAL = {
    "a whole file": (of_file(IN_FILE), {"w.bin": FLOATS}),
    "from an offset to the end": (
        of_file([*IN_FILE, ("offset", "3")]),
        {"w.bin": "ffffff" + FLOATS},
    ),
    "from an offset, so many bytes": (
        of_file([("length", "8"), ("offset", "03"), *IN_FILE]),
        {"w.bin": "ffffff" + FLOATS + "ee"},
    ),
    "keys that are not known, one of them twice": (
        of_file([*IN_FILE, ("checksum", "1"), ("checksum", "2"), ("", "")]),
        {"w.bin": FLOATS},
    ),
    "a file in a directory, by way of the same": (
        of_file([("location", "./d/./w.bin")]),
        {"d/w.bin": FLOATS},
    ),
    "a link to a file in the directory": (
        of_file([("location", "link")]),
        {"d/w.bin": FLOATS},
        {"link": "d/w.bin"},
    ),
    "a location beyond ASCII": (of_file([("location", "größe")]), {"größe": FLOATS}),
    "no bytes at the end of a file": (
        of_file([*IN_FILE, ("offset", "8"), ("length", "0")], "dims: 0 data_type: 1"),
        {"w.bin": FLOATS},
    ),
    "an empty file": (of_file(IN_FILE, "dims: 0 data_type: 1"), {"w.bin": ""}),
    "unused bits in a file that are set": (
        of_file(IN_FILE, "dims: 3 data_type: 22"),
        {"w.bin": "21fd"},
    ),
    "two weights in one file": (
        IMPORT
        + " ".join(
            f'initializer {{ name: "{name}" dims: 1 data_type: 1 data_location: EXTERNAL '
            f'external_data {{ key: "location" value: "w.bin" }} '
            f'external_data {{ key: "offset" value: "{offset}" }} '
            'external_data { key: "length" value: "4" } }'
            for name, offset in (("v", 0), ("w", 4))
        )
        + f' node {{ op_type: "Sub" input: "v" input: "w" output: "y" }} {OUTPUT} }}',
        {"w.bin": FLOATS},
    ),
    "a file wherever a tensor stands": (
        f"{IMPORT}"
        + " ".join(
            place.replace(
                "<>",
                'dims: 1 data_type: 1 data_location: EXTERNAL external_data { key: "location" '
                'value: "w.bin" }',
            )
            for place in (
                'initializer { name: "dead" <> }',
                "sparse_initializer { values { <> } indices { <> } dims: 1 }",
                'node { op_type: "Constant" output: "y" '
                'attribute { name: "value" type: TENSOR t { <> } } }',
                f"{OUTPUT} }} training_info {{ initialization {{ initializer {{ <> }} }} }}",
                'functions { name: "dead" attribute_proto { name: "a" tensors { <> } } }',
            )
        ),
        {"w.bin": "0000803f"},
    ),
    "text that is not UTF-8 beside a file": (
        wire.model(
            wire.field(
                7,
                [
                    wire.field(2, b"\xff"),
                    wire.graph(wire.node("Identity", ["w"], ["y"])),
                    wire.field(
                        5,
                        wire.tensor(
                            wire.field(13, [wire.field(1, b"\xff"), wire.field(2, b"\xff")]),
                            wire.field(13, [wire.field(1, "location"), wire.field(2, "w.bin")]),
                            wire.field(14, 1),
                        ),
                    ),
                ],
            )
        ),
        {"w.bin": FLOATS},
    ),
    "unknown fields in a dead weight in a file": (
        odd_encodings.of_weight(odd_encodings.RAW)
        + wire.field(
            7,
            wire.field(
                5,
                [
                    wire.UNKNOWN,
                    wire.field(8, "d"),
                    wire.field(14, 1),
                    wire.field(
                        13, [wire.field(1, "location"), wire.field(2, "w.bin"), wire.UNKNOWN]
                    ),
                ],
            ),
        ),
        {"w.bin": ""},
    ),
    "a dead weight in a file, and in two more places": (
        f"{IMPORT}{weight('dims: 2 data_type: 1 float_data: [1, 2]')} "
        'initializer { name: "d" raw_data: "1" int32_data: 1 data_location: EXTERNAL '
        f'external_data {{ key: "location" value: "w.bin" }} }} {IDENTITY} }}',
        {"w.bin": "00"},
    ),
}

# Groups of models that have the same graph and the same weights.
SAME = [
    *odd_encodings.SAME,
    {
        "one operator",
        "dead nodes",
        "the domain spelled ai.onnx",
        "an import that no node uses",
        "cosmetics",
        "a function that nothing uses",
        "dead nodes that could not run",
        "a function that does not count contradicts itself",
        "annotations and training",
    },
    {"independent nodes", "independent nodes in the other order, renamed"},
    {"attributes of each simple kind", "attributes in another order"},
    {"a weight", "a weight renamed, an unused weight"},
    {"a Loop", "a Loop whose body's outputs have other types"},
    {"attributes without values", "values of 0 written out"},
    {
        "nothing, and no place for it",
        "nothing, as raw bytes",
        "no bytes at the end of a file",
        "an empty file",
    },
    {"FLOAT6 of 30 bits", "FLOAT6 of 30 bits, unused ones set"},
    {
        "a dead weight that contradicts itself",
        "a dead weight in a file, and in two more places",
        "a whole file",
        "from an offset to the end",
        "from an offset, so many bytes",
        "keys that are not known, one of them twice",
        "a file in a directory, by way of the same",
        "a link to a file in the directory",
        "a location beyond ASCII",
    },
    {
        "weights in the order of their use",
        "weights in the order of their use, declared in the other one",
    },
    {
        "an If that captures values",
        "an If whose branches come in the other order and use one name",
        "what only a dead node of a subgraph captures is dead",
    },
    {"a function", "a function whose domain is not imported", "a function's names are its own"},
    {
        "a function in place of a standard operator",
        "a function in place of a standard operator, its domain spelled ai.onnx",
    },
    {"nested functions", "nested functions in another order"},
    {
        "INT4 in its typed field",
        "INT4 in raw bytes",
        "unused bits of a packed weight that are set",
        "unused bits in a file that are set",
    },
    *({f"{name}, the lowest entry", f"{name}, the entry of the same bits"} for name in LOWEST),
    *(
        {f"{name} in its typed field", f"{name} in raw bytes"}
        for name in ELEMENT_TYPES
        if name != "INT4"
    ),
]


def parse(entry):
    """The model of an entry, without its files."""
    if "text" in entry:
        return onnx.parser.parse_model(entry["text"])
    return onnx.ModelProto.FromString(encoded(entry))


def encoded(entry):
    """The bytes of an entry's model."""
    if "hex" in entry:
        return bytes.fromhex(entry["hex"])
    if "textproto" in entry:
        return text_format.Parse(entry["textproto"], onnx.ModelProto()).SerializeToString()
    return parse(entry).SerializeToString()


def write(entry, directory):
    """Write an entry's model and files into an empty directory, and give the model's path."""
    directory = Path(directory, "model")
    directory.mkdir()
    for name, content in entry.get("files", {}).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes.fromhex(content))
    for name, target in entry.get("links", {}).items():
        (directory / name).symlink_to(target)
    path = directory / "model.onnx"
    path.write_bytes(encoded(entry))
    return path


def entry_of(name, source, files=None, links=None):
    """What the files say of a model: bytes, or text of the parser or of protobuf."""
    if isinstance(source, bytes):
        entry = {"name": name, "hex": source.hex()}
    else:
        entry = {"name": name, "text" if source.startswith("<") else "textproto": source}
    entry.update({"files": files} if files is not None else {})
    return {**entry, **({"links": links} if links else {})}


def on_disk(entry, digest):
    with tempfile.TemporaryDirectory() as directory:
        return digest(write(entry, directory))


def make():
    """The content of models.json."""
    entries = [entry_of(*item) for item in (TEXT | TEXTPROTO | odd_encodings.ENCODINGS).items()]
    with_files = [entry_of(name, *parts) for name, parts in EXTERNAL.items()]
    for entry in entries + with_files:
        try:
            entry.update(on_disk(entry, canonical_reference.digests_of_file))
        except Exception as error:
            raise ValueError(f"the model {entry['name']!r}: {error}") from error
    return {"models": entries, "models with files": with_files}


def make_invalid():
    """The content of invalid_models.json: ``model`` stands where only that digest exists."""
    entries = []
    for wrong, models in invalid_models.INVALID.items():
        for name, *parts in models:
            entry = {**entry_of(name, *parts), "wrong": wrong}
            if reason(entry) != wrong:
                raise ValueError(f"the model {name!r} is not refused for {wrong!r}")
            with contextlib.suppress(canonical_reference.InvalidModelError):
                entry["model"] = on_disk(entry, canonical_reference.model_digest_of_file)
            entries.append(entry)
    return {"models": entries}


def reason(entry):
    """Why the reference refuses an entry; None if it does not."""
    try:
        on_disk(entry, canonical_reference.digests_of_file)
    except canonical_reference.InvalidModelError as error:
        return error.args[0]
    return None


def dump(content, path):
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    dump(make(), PATH)
    dump(make_invalid(), INVALID_PATH)
