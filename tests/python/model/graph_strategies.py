# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for small valid models.

Every value is a float tensor of one shape, so that nodes can be put together freely.
"""

import numpy as np
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

SHAPE = [2, 3]
FLOAT = TensorProto.FLOAT

_UNARY = ["Relu", "Neg", "Identity", "Tanh", "Sigmoid"]
_BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]
_WEIGHT_TYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool"]

# What a step can add; those of the second list have bodies of their own.
_SIMPLE = ["unary", "attribute", "binary", "sum", "clip", "weight", "cast", "constant"]
_SIMPLE += ["random", "split", "dropout", "quantize"]
_NESTED = ["if", "loop", "function"]


@st.composite
def models(draw, kinds=(), dead=False):
    """Models of a few nodes.

    ``kinds`` are steps that the model's graph certainly has, by their names in this file. With
    ``dead``, some nodes may be of no use; without, all are.
    """
    return _Model(draw, dead).build(kinds)


class _Model:
    def __init__(self, draw, dead):
        self.draw, self.dead = draw, dead
        self.opset = draw(st.integers(13, 21))
        self.functions = []
        self.inputs = []  # of the model's graph
        self.count = 0

    def build(self, kinds):
        names = [self.name("x") for _ in range(self.draw(st.integers(1, 3)))]
        self.inputs = [helper.make_tensor_value_info(name, FLOAT, SHAPE) for name in names]
        body = _Body(self, names, depth=2)
        body.grow(kinds)
        outputs = body.results()
        graph = helper.make_graph(
            body.nodes,
            "graph",
            self.inputs,
            [helper.make_tensor_value_info(name, FLOAT, SHAPE) for name in outputs],
            body.initializers,
            sparse_initializer=body.sparse,
        )
        return helper.make_model(
            graph,
            ir_version=self.draw(st.integers(8, 10)),
            opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("local", 1)],
            functions=self.functions,
        )

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def function(self, depth):
        """The name of a function, of which the model gets the definition."""
        if self.functions and self.draw(st.booleans()):
            return self.draw(st.sampled_from(self.functions))
        inputs = [self.name("a"), self.name("a")]
        body = _Body(self, inputs, depth, in_function=True)
        body.node("LeakyRelu", [inputs[0]])
        body.nodes[-1].attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
        body.node("Softmax", [inputs[1]])
        body.nodes[-1].attribute.add(name="axis", type=AttributeProto.INT, ref_attr_name="axis")
        body.grow(())
        output = body.sum()
        function = helper.make_function(
            "local",
            self.name("f"),
            inputs,
            [output],
            body.nodes,
            [helper.make_opsetid("", self.opset), helper.make_opsetid("local", 1)],
            ["axis"],
            [helper.make_attribute("slope", 0.25)],
        )
        self.functions.append(function)
        return function


class _Body:
    """The nodes of a graph or function, and the names they can use."""

    def __init__(self, model, values, depth, in_function=False):
        self.model, self.draw, self.depth, self.in_function = model, model.draw, depth, in_function
        self.values = list(values)
        self.unused = []  # what nodes computed that nothing uses yet
        self.nodes, self.initializers, self.sparse = [], [], []

    def grow(self, kinds):
        steps = _SIMPLE + (_NESTED if self.depth else [])
        more = self.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=2 + 2 * self.depth))
        for kind in self.draw(st.permutations([*kinds, *more])):
            getattr(self, "add_" + kind)()

    def results(self):
        """Names of outputs, so that nothing is dead (or some are)."""
        if self.model.dead:
            return self.unused[: self.draw(st.integers(1, len(self.unused)))]
        return self.unused if self.draw(st.booleans()) else [self.sum()]

    def sum(self):
        if self.model.dead or len(self.unused) == 1:
            return self.unused[-1]
        return self.node("Sum", list(self.unused))

    def node(self, op_type, inputs, outputs=1, domain="", **attributes):
        """Add a node and return the name of its first output."""
        names = [self.model.name("v") for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, domain=domain, **attributes))
        self.unused = [name for name in self.unused if name not in inputs]
        self.unused.append(names[0])
        self.values.append(names[0])
        return names[0]

    def value(self):
        return self.draw(st.sampled_from(self.values))

    def weight(self, array):
        """The name of a new weight, or in a function of a constant."""
        name = self.model.name("w")
        if self.in_function:
            tensor = numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            return name
        if self.draw(st.booleans()):
            tensor = numpy_helper.from_array(array, name)
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = helper.make_tensor(name, kind, array.shape, array.flatten().tolist())
        self.initializers.append(tensor)
        if self.is_main and self.draw(st.integers(0, 3)) == 0:  # the default of an input
            info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            self.model.inputs.append(info)
        return name

    @property
    def is_main(self):
        return self.depth == 2

    def array(self, dtype):
        random = np.random.default_rng(self.draw(st.integers(0, 2**32)))
        return (random.standard_normal(SHAPE) * 50).astype(dtype)

    def scalar(self, value, dtype="float32"):
        return self.weight(np.array(value, dtype))

    def add_unary(self):
        self.node(self.draw(st.sampled_from(_UNARY)), [self.value()])

    def add_attribute(self):
        value = self.draw(st.floats(0.0, 1.0, width=32))
        op_type = self.draw(st.sampled_from(["LeakyRelu", "Elu", "ThresholdedRelu"]))
        self.node(op_type, [self.value()], alpha=value)

    def add_binary(self):
        self.node(self.draw(st.sampled_from(_BINARY)), [self.value(), self.value()])

    def add_sum(self):
        self.node("Sum", [self.value() for _ in range(self.draw(st.integers(1, 4)))])

    def add_clip(self):
        """An optional input that is empty."""
        self.node("Clip", [self.value(), "", self.scalar(4.0)])

    def add_weight(self):
        weight = self.weight(self.array("float32"))
        self.node(self.draw(st.sampled_from(_BINARY)), [self.value(), weight])
        self.values.append(weight)

    def add_cast(self):
        """A weight of another type."""
        array = self.array(self.draw(st.sampled_from(_WEIGHT_TYPES)))
        self.node("Cast", [self.weight(array)], to=FLOAT)

    def add_sparse(self):
        """A sparse weight. No importer takes one here: only where it is asked for."""
        values = numpy_helper.from_array(np.array([0.5, 2.0], "float32"), self.model.name("w"))
        indices = numpy_helper.from_array(np.array([1, 4], "int64"), "")
        self.sparse.append(helper.make_sparse_tensor(values, indices, SHAPE))
        self.node("Add", [self.value(), values.name])

    def add_constant(self):
        self.node("Constant", [], value=numpy_helper.from_array(self.array("float32")))

    def add_random(self):
        """What makes it matter whether a node is shared."""
        name = self.node("RandomNormal", [], shape=SHAPE)
        self.node("Sub", [name, name])

    def add_split(self):
        """A node with two outputs."""
        sizes = self.weight(np.array([1, 2], "int64"))
        first = self.node("Split", [self.value(), sizes], outputs=2, axis=1)
        both = [first, self.nodes[-1].output[1]]
        self.values.remove(first)
        self.node("Concat", both if self.draw(st.booleans()) else both[::-1], axis=1)

    def add_dropout(self):
        """An output that nothing uses."""
        self.node("Dropout", [self.value()], outputs=self.draw(st.integers(1, 2)))

    def add_quantize(self):
        scale, zero = self.scalar(0.5), self.scalar(128, "uint8")
        name = self.node("QuantizeLinear", [self.value(), scale, zero])
        self.values.remove(name)
        self.node("DequantizeLinear", [name, scale, zero])

    def add_if(self):
        branches = [self.subgraph("branch", [], []) for _ in range(2)]
        condition = self.scalar(True, "bool")
        self.node("If", [condition], then_branch=branches[0], else_branch=branches[1])

    def add_loop(self):
        count, condition, value = (self.model.name(prefix) for prefix in ("i", "c", "x"))
        inputs = [
            helper.make_tensor_value_info(count, TensorProto.INT64, []),
            helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
            helper.make_tensor_value_info(value, FLOAT, SHAPE),
        ]
        body = self.subgraph("body", inputs, [value])
        passed = helper.make_tensor_value_info(self.model.name("c"), TensorProto.BOOL, [])
        body.node.append(helper.make_node("Identity", [condition], [passed.name]))
        body.output.insert(0, passed)
        self.node("Loop", [self.scalar(2, "int64"), "", self.value()], body=body)

    def add_function(self):
        function = self.model.function(self.depth - 1)
        inputs = [self.value(), self.value()]
        attributes = {"slope": 0.75} if self.draw(st.booleans()) else {}
        self.node(function.name, inputs, domain="local", axis=1, **attributes)

    def subgraph(self, name, inputs, values):
        """A subgraph of one output, which may use this body's values."""
        body = _Body(self.model, [*self.values, *values], self.depth - 1)
        body.in_function = False  # a subgraph in a function has initializers
        body.grow(())
        output = helper.make_tensor_value_info(body.sum(), FLOAT, SHAPE)
        # A function is called before it gets into the list, so none calls itself.
        return helper.make_graph(body.nodes, name, inputs, [output], body.initializers)
