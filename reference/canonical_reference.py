# SPDX-License-Identifier: Apache-2.0
"""The digests, written a second time: from FORMAT.md alone, short, slow and obvious.

It reads protobuf messages by hand and shares nothing with the package, so that the two can
be compared. Names in capitals in FORMAT.md are methods of the same name here.
"""

import contextlib
import hashlib
import math
import os
import struct
import sys

from onnx import AttributeProto as A
from onnx import FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto

# Bits of an element: a table by the numbers of TensorProto.DataType.
BITS = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64},
    **{14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8},
    **{25: 2, 26: 2, 27: 6, 28: 6},
}
STRING = 8


class InvalidModelError(Exception):
    """The model has no canonical form."""


def digests(model: ModelProto, base_dir: str = "") -> dict:
    """The three digests of a model whose external files lie in ``base_dir``."""
    if not model.HasField("graph"):
        raise InvalidModelError("the model has no graph")
    writer = Writer(model, base_dir)
    graph = string("tvm-model-hash/graph/1") + writer.model_stream()
    weights = string("tvm-model-hash/weights/1") + items(map(writer.tensor, writer.weights))
    return {
        "model": hashlib.sha256(model.SerializeToString()).hexdigest(),
        "graph": hashlib.sha256(graph).hexdigest(),
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def u64(n):
    return struct.pack("<Q", n)


def i64(n):
    return struct.pack("<q", n)


def f32(x):
    return struct.pack("<f", x)


def data(b):
    return u64(len(b)) + b


def string(s):
    return data(s.encode("utf-8"))


def items(parts):
    parts = list(parts)
    return u64(len(parts)) + b"".join(parts)


def utf8(name):
    return name.encode("utf-8")


def domain_of(domain):
    return "" if domain == "ai.onnx" else domain


@contextlib.contextmanager
def deep_recursion():
    """Room for a walk: a visit is two calls deep, and a network some thousand nodes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def define(table, name, value):
    if name in table:
        raise InvalidModelError(f"{name!r} is defined twice")
    table[name] = value


class Scope:
    """A graph or a function's body, with what its names stand for."""

    def __init__(self, proto, imports, outer=None):
        self.proto, self.imports, self.outer = proto, imports, outer
        self.is_function = isinstance(proto, FunctionProto)
        of = (lambda value: value) if self.is_function else (lambda value: value.name)
        self.inputs = [of(value) for value in proto.input]
        self.outputs = [of(value) for value in proto.output]
        self.initializers = {}
        if not self.is_function:
            for tensor in proto.initializer:
                define(self.initializers, tensor.name, tensor)
            for tensor in proto.sparse_initializer:
                define(self.initializers, tensor.values.name, tensor)
        self.computed = {}  # name -> (index of the node in the proto, index of the output)
        for i, node in enumerate(proto.node):
            for j, name in enumerate(node.output):
                if name:
                    define(self.computed, name, (i, j))
        for name in self.computed:
            if name in self.inputs or name in self.initializers:
                raise InvalidModelError(f"{name!r} is defined twice")
        if len(set(self.inputs)) < len(self.inputs):
            raise InvalidModelError("an input is defined twice")
        self.numbers = {}  # index of the node in the proto -> number; once it was walked
        self.weight_numbers = {}  # name -> number; once the stream refers to it

    def defines(self, name):
        return name in self.inputs or name in self.initializers or name in self.computed

    @deep_recursion()
    def walk(self):
        """Number the counted nodes, and return what this graph captures."""
        captures, entered = [], set()

        def visit(name):
            if not self.defines(name):
                if name not in captures:
                    captures.append(name)
            elif name in self.computed:
                visit_node(self.computed[name][0])

        def visit_node(i):
            if i in self.numbers:
                return
            if i in entered:
                raise InvalidModelError(f"a cycle goes through {self.proto.node[i].output[0]!r}")
            entered.add(i)
            node = self.proto.node[i]
            for name in node.input:
                if name:
                    visit(name)
            for attribute in in_order(node.attribute):
                for graph in subgraphs(attribute):
                    for name in Scope(graph, self.imports, self).walk():
                        visit(name)
            self.numbers[i] = len(self.numbers)

        self.numbers = {}
        for name in self.outputs:
            visit(name)
        return captures


def in_order(attributes):
    names = {}
    for attribute in attributes:
        define(names, attribute.name, attribute)
    return [names[name] for name in sorted(names, key=utf8)]


def subgraphs(attribute):
    if attribute.ref_attr_name:
        return []
    return {A.GRAPH: [attribute.g], A.GRAPHS: attribute.graphs}.get(attribute.type, [])


class Writer:
    def __init__(self, model, base_dir):
        self.model, self.base_dir = model, base_dir
        self.functions = {}
        for f in model.functions:
            define(self.functions, (domain_of(f.domain), f.name, f.overload), f)
        self.function_numbers = {}  # (domain, name, overload) -> number, in their order
        self.weights = []  # in the order of their numbers

    def model_stream(self):
        model = self.model
        stream = self.graph(Scope(model.graph, imports_of(model)), is_model=True)
        done = 0
        while done < len(self.function_numbers):
            key = list(self.function_numbers)[done]
            stream += u64(1) + self.function(self.functions[key])
            done += 1
        return stream + u64(0) + items(map(self.weight, self.weights))

    def graph(self, scope, is_model=False):
        scope.walk()

        def input_(i):
            if scope.is_function:
                return b""
            name = scope.inputs[i]
            default = u64(1 if name in scope.initializers else 0)
            if not is_model:
                return default
            return string(name) + self.type(scope.proto.input[i].type) + default

        def output(i):
            name = scope.outputs[i]
            if not name:
                raise InvalidModelError("an output has no name")
            if not is_model:
                return self.ref(name, scope)
            return string(name) + self.type(scope.proto.output[i].type) + self.ref(name, scope)

        counted = sorted(scope.numbers, key=lambda i: scope.numbers[i])
        stream = items(input_(i) for i in range(len(scope.inputs)))
        stream += items(self.node(scope.proto.node[i], scope) for i in counted)
        return stream + items(output(i) for i in range(len(scope.outputs)))

    def node(self, node, scope):
        domain = domain_of(node.domain)
        return (
            string(domain)
            + string(node.op_type)
            + string(node.overload)
            + self.version((domain, node.op_type, node.overload), scope)
            + items(self.ref(name, scope) for name in node.input)
            + items(u64(1 if name else 0) for name in node.output)
            + items(self.attribute(a, scope) for a in in_order(node.attribute))
        )

    def version(self, key, scope):
        if key in self.functions:
            number = self.function_numbers.setdefault(key, len(self.function_numbers))
            return u64(0) + u64(number)
        if key[0] not in scope.imports:
            raise InvalidModelError(f"the domain {key[0]!r} of {key[1]} is not imported")
        return u64(1) + i64(scope.imports[key[0]])

    def ref(self, name, scope):
        if not name:
            return u64(0)
        level = 0
        while not scope.defines(name):
            scope, level = scope.outer, level + 1
            if scope is None:
                raise InvalidModelError(f"nothing defines {name!r}")
        if name in scope.computed:
            node, index = scope.computed[name]
            return u64(4) + u64(level) + u64(scope.numbers[node]) + u64(index)
        if name not in scope.initializers:
            return u64(1) + u64(level) + u64(scope.inputs.index(name))
        if name not in scope.weight_numbers:
            scope.weight_numbers[name] = len(self.weights)
            self.weights.append(scope.initializers[name])
        number = scope.weight_numbers[name]
        if name in scope.inputs:
            return u64(2) + u64(level) + u64(scope.inputs.index(name)) + u64(number)
        return u64(3) + u64(number)

    def attribute(self, a, scope):
        stream = string(a.name) + u64(a.type)
        if a.ref_attr_name:
            return stream + u64(1) + string(a.ref_attr_name)
        one = {
            A.FLOAT: ("f", f32),
            A.INT: ("i", i64),
            A.STRING: ("s", data),
            A.TENSOR: ("t", self.tensor),
            A.SPARSE_TENSOR: ("sparse_tensor", self.tensor),
            A.TYPE_PROTO: ("tp", self.type),
            A.GRAPH: ("g", lambda g: self.graph(Scope(g, scope.imports, scope))),
        }
        many = {
            A.FLOATS: ("floats", A.FLOAT),
            A.INTS: ("ints", A.INT),
            A.STRINGS: ("strings", A.STRING),
            A.TENSORS: ("tensors", A.TENSOR),
            A.SPARSE_TENSORS: ("sparse_tensors", A.SPARSE_TENSOR),
            A.TYPE_PROTOS: ("type_protos", A.TYPE_PROTO),
            A.GRAPHS: ("graphs", A.GRAPH),
        }
        if a.type in one:
            field, write = one[a.type]
            return stream + u64(0) + write(getattr(a, field))
        if a.type in many:
            field, element = many[a.type]
            return stream + u64(0) + items(map(one[element][1], getattr(a, field)))
        raise InvalidModelError(f"attribute {a.name!r} has the type {a.type}")

    def function(self, f):
        scope = Scope(f, imports_of(f))
        # A default lies outside of the body, so a subgraph in it has no graph around it.
        outside = Scope(GraphProto(), imports_of(f))
        return (
            u64(len(f.input))
            + items(string(name) for name in sorted(f.attribute, key=utf8))
            + items(self.attribute(a, outside) for a in in_order(f.attribute_proto))
            + self.graph(scope)
        )

    def type(self, t):
        write = {
            None: lambda _: u64(0),
            "tensor_type": lambda v: u64(1) + u64(v.elem_type) + self.shape(v),
            "sparse_tensor_type": lambda v: u64(2) + u64(v.elem_type) + self.shape(v),
            "sequence_type": lambda v: u64(3) + self.type(v.elem_type),
            "map_type": lambda v: u64(4) + u64(v.key_type) + self.type(v.value_type),
            "optional_type": lambda v: u64(5) + self.type(v.elem_type),
            "opaque_type": lambda v: u64(6) + string(v.domain) + string(v.name),
        }
        kind = t.WhichOneof("value")
        return write[kind](getattr(t, kind) if kind else None)

    def shape(self, tensor_type):
        if not tensor_type.HasField("shape"):
            return u64(0)
        return u64(1) + items(map(self.dim, tensor_type.shape.dim))

    def dim(self, dim):
        write = {
            None: u64(0),
            "dim_value": u64(1) + i64(dim.dim_value),
            "dim_param": u64(2) + string(dim.dim_param),
        }
        return write[dim.WhichOneof("value")]

    def weight(self, t):
        sparse = isinstance(t, SparseTensorProto)
        element_type = t.values.data_type if sparse else t.data_type
        return u64(1 if sparse else 0) + u64(element_type) + items(map(i64, t.dims))

    def tensor(self, t):
        if isinstance(t, SparseTensorProto):
            return self.weight(t) + self.tensor(t.values) + self.tensor(t.indices)
        return self.weight(t) + self.content(t)

    def content(self, t):
        if min(t.dims, default=0) < 0:
            raise InvalidModelError(f"tensor {t.name!r} has the shape {list(t.dims)}")
        count = math.prod(t.dims)
        if t.data_type == STRING:
            if len(t.string_data) != count:
                raise InvalidModelError(
                    f"tensor {t.name!r} has {len(t.string_data)} strings, not {count}"
                )
            return items(map(data, t.string_data))
        if t.data_type not in BITS:
            raise InvalidModelError(f"tensor {t.name!r} has the element type {t.data_type}")
        bits = BITS[t.data_type] * count
        if t.data_location == TensorProto.EXTERNAL:
            content = self.external(t)
        else:
            content = t.raw_data if t.HasField("raw_data") else typed(t)
            if len([1 for field, _ in t.ListFields() if field.name.endswith("_data")]) > 1:
                raise InvalidModelError(f"tensor {t.name!r} keeps data in two places")
        if len(content) != (bits + 7) // 8:
            raise InvalidModelError(f"tensor {t.name!r} has {len(content)} bytes for {bits} bits")
        if bits % 8:
            content = content[:-1] + bytes([content[-1] & ((1 << bits % 8) - 1)])
        return data(content)

    def external(self, t):
        entries = {entry.key: entry.value for entry in t.external_data}
        with open(os.path.join(self.base_dir, entries["location"]), "rb") as file:
            file.seek(int(entries.get("offset", 0)))
            return file.read(int(entries["length"]) if "length" in entries else -1)


def imports_of(proto):
    versions = {}
    for entry in proto.opset_import:
        if versions.setdefault(domain_of(entry.domain), entry.version) != entry.version:
            raise InvalidModelError(f"the domain {entry.domain!r} is imported in two versions")
    return versions


def typed(t):
    """The content of the typed field, as raw_data would hold it."""
    if t.data_type in (TensorProto.FLOAT, TensorProto.COMPLEX64):
        # Not by Python's numbers, which turn a signalling NaN into a quiet one.
        alone = TensorProto()
        alone.CopyFrom(t)
        for field, _ in t.ListFields():
            if field.name != "float_data":
                alone.ClearField(field.name)
        serialized = alone.SerializeToString()
        return serialized[len(serialized) - 4 * len(t.float_data) :]
    if t.data_type in (TensorProto.DOUBLE, TensorProto.COMPLEX128):
        return b"".join(struct.pack("<d", x) for x in t.double_data)
    if t.data_type == TensorProto.INT64:
        return b"".join(map(i64, t.int64_data))
    if t.data_type in (TensorProto.UINT32, TensorProto.UINT64):
        size = BITS[t.data_type]
        return b"".join(low_bits(x, size) for x in t.uint64_data)
    bits = BITS[t.data_type]
    if bits == 6:  # an element in each int32, and in raw_data one after the other
        stream = sum((x & 63) << 6 * i for i, x in enumerate(t.int32_data))
        return stream.to_bytes((6 * len(t.int32_data) + 7) // 8, "little")
    size = max(8, bits)  # smaller elements come packed, a byte in each int32
    return b"".join(low_bits(x, size) for x in t.int32_data)


def low_bits(x, bits):
    return (x & ((1 << bits) - 1)).to_bytes(bits // 8, "little")
