# SPDX-License-Identifier: Apache-2.0
"""The digests, written a second time: from FORMAT.md alone, short, slow and obvious.

It shares nothing with the package, so that the two can be compared. Names in capitals in
FORMAT.md are methods of the same name here.
"""

import contextlib
import hashlib
import math
import re
import stat
import struct
import sys
from pathlib import Path

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import AttributeProto as A
from onnx import FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto

# Bits of an element: a table by the numbers of TensorProto.DataType.
BITS = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64},
    **{14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8},
    **{25: 2, 26: 2, 27: 6, 28: 6},
}
STRING = 8

# The typed field of an element type: int32_data, but for these.
TYPED = {
    **{1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data"},
    **{7: "int64_data", 12: "uint64_data", 13: "uint64_data", STRING: "string_data"},
}
TYPED_FIELDS = ("int32_data", *sorted(set(TYPED.values())))

# The numbers of the fields that FORMAT.md knows: those of onnx 1.23.
KNOWN = {
    "ModelProto": {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26},
    "OperatorSetIdProto": {1, 2},
    "GraphProto": {1, 2, 5, 10, 11, 12, 13, 14, 15, 16},
    "FunctionProto": {1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
    "NodeProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
    "AttributeProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 20, 21, 22, 23},
    "ValueInfoProto": {1, 2, 3, 4},
    "TensorProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16},
    "SparseTensorProto": {1, 2, 3},
    "StringStringEntryProto": {1, 2},
    "TypeProto": {1, 4, 5, 6, 7, 8, 9},
    **{name: {1, 2} for name in ("Tensor", "SparseTensor", "Map", "Opaque")},
    **{name: {1} for name in ("Sequence", "Optional", "TensorShapeProto")},
    "Dimension": {1, 2, 3},
}
# Device configurations: not known to an onnx that is older.
MAY_BE_UNKNOWN = {"ModelProto": {26}, "NodeProto": {10}}

MOST_DIMENSIONS = 64
DEEPEST = 64  # of graphs, and of types

# The names that TVM's importer gives to values of its own.
IMPORTERS_NAMES = {"Loop": "max_count", "Scan": "iter"}


class InvalidModelError(Exception):
    """The model has no canonical form; its first argument is one of the vectors' reasons."""


def require(condition, reason, *what):
    if not condition:
        raise InvalidModelError(reason, *what)


def digests_of_file(path) -> dict:
    """The three digests of the model in a file."""
    return digests(read(path), Path(path).parent)


def model_digest_of_file(path) -> str:
    """The one digest that a model may have that contradicts itself."""
    return model_digest(read(path), Path(path).parent)


def read(path):
    try:
        return ModelProto.FromString(Path(path).read_bytes())
    except DecodeError as error:
        raise InvalidModelError("not a protobuf message", path) from error


def digests(model: ModelProto, base_dir=None) -> dict:
    """The three digests of a model whose external files lie in ``base_dir``.

    Without ``base_dir`` it is a model in memory, which has to have its data.
    """
    return {"model": model_digest(model, base_dir), **stream_digests(model, base_dir)}


def model_digest(model, base_dir=None):
    loaded = ModelProto()
    loaded.CopyFrom(model)
    for tensor in tensors(loaded):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = external(tensor, base_dir)
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
    return hashlib.sha256(loaded.SerializeToString()).hexdigest()


def stream_digests(model, base_dir=None):
    writer = Writer(model, base_dir)
    graph = string("tvm-model-hash/graph/1") + writer.model_stream()
    weights = string("tvm-model-hash/weights/1") + items(map(writer.tensor, writer.weights))
    return {
        "graph": hashlib.sha256(graph).hexdigest(),
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def tensors(message):
    """All tensors in a message, wherever they stand."""
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from tensors(part)


def u64(n):
    return struct.pack("<Q", n)


def i64(n):
    return struct.pack("<q", n)


def f32(x):
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    return struct.pack("<I", bits | 0x400000 if math.isnan(x) else bits)


def data(b):
    return u64(len(b)) + b


def string(s):
    return data(text(s).encode("utf-8"))


def items(parts):
    parts = list(parts)
    return u64(len(parts)) + b"".join(parts)


def text(name):
    """A name that is looked at. Protobuf gives bytes for what is not UTF-8."""
    require(isinstance(name, str), "a name is not UTF-8", name)
    return name


def utf8(name):
    return name.encode("utf-8")


def domain_of(domain):
    return "" if text(domain) == "ai.onnx" else domain


def known(message):
    """The message, if this page knows all of its fields."""
    name = message.DESCRIPTOR.name
    numbers = {field.number for field, _ in message.ListFields()}
    unknown = {field.field_number for field in UnknownFieldSet(message)}
    unknown = unknown - MAY_BE_UNKNOWN.get(name, set()) | numbers - KNOWN[name]
    require(not unknown, "an unknown field", name, unknown)
    return message


@contextlib.contextmanager
def deep_recursion():
    """Room for a walk: a visit is two calls deep, and a network some thousand nodes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def define(table, name, value, reason="a name is defined twice"):
    require(name not in table, reason, name)
    table[name] = value


class Scope:
    """A graph or a function's body, with what its names stand for."""

    def __init__(self, proto, imports, outer=None, in_function=False):
        known(proto)
        self.proto, self.imports, self.outer = proto, imports, outer
        self.is_function = isinstance(proto, FunctionProto)
        self.in_function = in_function or self.is_function
        self.depth = outer.depth + 1 if outer else 1
        require(self.depth <= DEEPEST, "graphs are nested too deep")
        of = text if self.is_function else (lambda value: text(known(value).name))
        self.inputs = [of(value) for value in proto.input]
        self.outputs = [of(value) for value in proto.output]
        require(all(self.outputs), "an output has no name")
        self.initializers = {}
        if not self.is_function:
            for tensor in proto.initializer:
                if text(tensor.name):
                    define(self.initializers, tensor.name, tensor)
            for tensor in proto.sparse_initializer:
                if text(tensor.values.name):
                    define(self.initializers, tensor.values.name, tensor)
        self.computed = {}  # name -> (index of the node in the proto, index of the output)
        for i, node in enumerate(proto.node):
            for j, name in enumerate(node.output):
                if text(name):
                    define(self.computed, name, (i, j))
        names = [name for name in self.inputs if name]
        names += [name for name in self.initializers if name not in self.inputs]
        names += self.computed
        self.names = set(names)
        require(len(self.names) == len(names), "a name is defined twice")
        while outer:
            require(not self.names & outer.names, "a subgraph defines a name of a graph around it")
            outer = outer.outer
        self.numbers = {}  # index of the node in the proto -> number; once it was walked
        self.weight_numbers = {}  # name -> number; once the stream refers to it

    def defines(self, name):
        return name in self.names

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
            require(i not in entered, "a cycle", i)
            entered.add(i)
            node = self.proto.node[i]
            used = [name for name in node.input if text(name)]
            for attribute in in_order(node.attribute):
                for graph in subgraphs(attribute):
                    used += Scope(graph, self.imports, self).walk()
            for name in used:
                behind = self.depth > 1 and self.computed.get(name, (0,))[0] > i
                require(not behind, "a subgraph's nodes are not in order", name)
                visit(name)
            self.numbers[i] = len(self.numbers)

        self.numbers = {}
        for name in self.outputs:
            visit(name)
        return captures


def all_names(graph, depth):
    """What a graph and those in it define, of nodes that count and others: (name, by what), ...

    And (operator, None) for each node with a subgraph.
    """
    require(depth <= DEEPEST, "graphs are nested too deep")
    own = {name: "node" for node in graph.node for name in node.output}
    if isinstance(graph, FunctionProto):
        own |= dict.fromkeys(graph.input, "input")
    else:
        own |= {info.name: "input" for info in graph.input}
        own |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        own |= {tensor.name: tensor for tensor in graph.initializer}
    own.pop("", None)
    found = [(text(name), by) for name, by in own.items()]
    for node in graph.node:
        for a in node.attribute:
            for inner in [*([a.g] if a.HasField("g") else []), *a.graphs]:
                deeper = all_names(inner, depth + 1)
                shadowed = {name for name, by in deeper if by is not None} & set(own)
                require(not shadowed, "a subgraph defines a name of a graph around it", shadowed)
                found += [*deeper, (node.op_type, None)]
    return found


def in_order(attributes):
    names = {}
    for attribute in attributes:
        define(names, text(attribute.name), attribute, "two attributes of one name")
    return [names[name] for name in sorted(names, key=utf8)]


def subgraphs(attribute):
    if attribute.ref_attr_name:
        return []
    return {A.GRAPH: [attribute.g], A.GRAPHS: attribute.graphs}.get(attribute.type, [])


class Writer:
    def __init__(self, model, base_dir):
        require(model.HasField("graph"), "the model has no graph")
        self.model, self.base_dir = known(model), base_dir
        self.functions = {}
        for f in model.functions:
            key = (domain_of(f.domain), text(f.name), text(f.overload))
            define(self.functions, key, f, "two functions of one name")
        self.function_numbers = {}  # (domain, name, overload) -> number, in their order
        self.weights = []  # in the order of their numbers

    def model_stream(self):
        imports = imports_of(self.model)
        stream = self.opset(imports.get("", set()))
        stream += self.graph(Scope(self.model.graph, imports), is_model=True)
        done = 0
        while done < len(self.function_numbers):
            key = list(self.function_numbers)[done]
            stream += u64(1) + self.function(self.functions[key])
            done += 1
        return stream + u64(0) + items(map(self.weight, self.weights))

    def opset(self, versions):
        require(len(versions) <= 1, "a domain is imported in two versions")
        return b"".join(u64(1) + i64(version) for version in versions) or u64(0)

    def check_names(self, graph):
        """Check a graph that has none around it for names that readers take for another's."""
        names, operators = {}, set()
        for name, by in all_names(graph, 1):
            if by is None:
                operators.add(name)
            else:
                names.setdefault(name, []).append(by)
        for operator, name in IMPORTERS_NAMES.items():
            both = operator in operators and name in names
            require(not both, "a name that an importer gives to a value of its own", name)
        for found in names.values():
            weights = [by for by in found if by not in ("input", "node")]
            equal = len(weights) < 2 or len(set(map(self.tensor, weights))) == 1
            require(equal, "initializers of one name differ")

    def graph(self, scope, is_model=False):
        scope.walk()
        if not scope.outer:
            self.check_names(scope.proto)

        def input_(i):
            if scope.is_function:
                return b""
            name = scope.inputs[i]
            default = u64(1 if name in scope.initializers else 0)
            stream = string(name) if is_model else b""
            return stream + self.type(scope.proto.input[i].type) + default

        def output(i):
            name = scope.outputs[i]
            if not is_model:
                return self.ref(name, scope)
            return string(name) + self.type(scope.proto.output[i].type) + self.ref(name, scope)

        counted = sorted(scope.numbers, key=lambda i: scope.numbers[i])
        stream = items(input_(i) for i in range(len(scope.inputs)))
        stream += items(self.node(scope.proto.node[i], scope) for i in counted)
        return stream + items(output(i) for i in range(len(scope.outputs)))

    def node(self, node, scope):
        domain = domain_of(known(node).domain)
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
        versions = scope.imports.get(key[0], set())
        require(versions, "a domain is not imported", key)
        require(len(versions) == 1, "a domain is imported in two versions", key)
        return u64(1) + i64(min(versions))

    def ref(self, name, scope):
        if not name:
            return u64(0)
        level = 0
        while not scope.defines(name):
            scope, level = scope.outer, level + 1
            require(scope, "nothing defines a name", name)
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
        one = {
            A.FLOAT: ("f", f32),
            A.INT: ("i", i64),
            A.STRING: ("s", data),
            A.TENSOR: ("t", self.tensor),
            A.SPARSE_TENSOR: ("sparse_tensor", self.tensor),
            A.TYPE_PROTO: ("tp", self.type),
            A.GRAPH: ("g", lambda g: self.graph(Scope(g, scope.imports, scope, scope.in_function))),
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
        values = {field for field, _ in (*one.values(), *many.values())}
        found = {field.name for field, _ in known(a).ListFields()} & values
        stream = string(a.name) + u64(a.type)
        if a.ref_attr_name:
            require(scope.in_function, "a reference outside of a function's body", a.name)
            require(not found, "a reference has a value", a.name)
            return stream + u64(1) + string(a.ref_attr_name)
        require(a.type in one or a.type in many, "an attribute has no type", a.name)
        field = (one.get(a.type) or many[a.type])[0]
        require(found <= {field}, "an attribute has a value of another type", a.name)
        if a.type in one:
            require(found or field in ("f", "i", "s"), "an attribute has no value", a.name)
            return stream + u64(0) + one[a.type][1](getattr(a, field))
        element = many[a.type][1]
        return stream + u64(0) + items(map(one[element][1], getattr(a, field)))

    def function(self, f):
        scope = Scope(f, imports_of(f))
        # A default lies outside of the body, so a subgraph in it has no graph around it.
        outside = Scope(GraphProto(), imports_of(f))
        outside.depth = 0
        for default in f.attribute_proto:
            for graph in subgraphs(default):
                self.check_names(graph)
        defaults = in_order(f.attribute_proto)
        names = [*map(text, f.attribute), *(a.name for a in defaults)]
        require(len(set(names)) == len(names), "two attributes of one name", f.name)
        return (
            items(string(name) for name in sorted(f.attribute, key=utf8))
            + items(self.attribute(a, outside) for a in defaults)
            + self.graph(scope)
        )

    def type(self, t, depth=1):
        require(depth <= DEEPEST, "types are nested too deep")
        write = {
            None: lambda _: u64(0),
            "tensor_type": lambda v: u64(1) + element_type(v.elem_type) + self.shape(v),
            "sparse_tensor_type": lambda v: u64(2) + element_type(v.elem_type) + self.shape(v),
            "sequence_type": lambda v: u64(3) + self.type(v.elem_type, depth + 1),
            "map_type": lambda v: (
                u64(4) + element_type(v.key_type) + self.type(v.value_type, depth + 1)
            ),
            "optional_type": lambda v: u64(5) + self.type(v.elem_type, depth + 1),
            "opaque_type": lambda v: u64(6) + string(v.domain) + string(v.name),
        }
        kind = known(t).WhichOneof("value")
        return write[kind](known(getattr(t, kind)) if kind else None)

    def shape(self, tensor_type):
        if not tensor_type.HasField("shape"):
            return u64(0)
        return u64(1) + items(map(self.dim, known(tensor_type.shape).dim))

    def dim(self, dim):
        kind = known(dim).WhichOneof("value")
        if kind == "dim_value":
            return u64(1) + i64(dim.dim_value)
        return u64(2) + string(dim.dim_param) if kind else u64(0)

    def weight(self, t):
        sparse = isinstance(t, SparseTensorProto)
        data_type = t.values.data_type if sparse else t.data_type
        require(data_type == STRING or data_type in BITS, "an unknown element type", data_type)
        require(len(t.dims) <= MOST_DIMENSIONS, "too many dimensions")
        require(min(t.dims, default=0) >= 0, "a negative dimension")
        require(math.prod(d for d in t.dims if d) < 2**63, "too many elements")
        return u64(1 if sparse else 0) + u64(data_type) + items(map(i64, t.dims))

    def tensor(self, t):
        if isinstance(t, SparseTensorProto):
            known(t)
            return self.weight(t) + self.tensor(t.values) + self.tensor(t.indices)
        text(known(t).name)
        return self.weight(t) + self.content(t)

    def content(self, t):
        require(not t.HasField("segment"), "a tensor in segments", t.name)
        typed_field = TYPED.get(t.data_type, "int32_data")
        is_external = t.data_location == TensorProto.EXTERNAL
        places = [field for field in TYPED_FIELDS if getattr(t, field)]
        require(set(places) <= {typed_field}, "data in another type's field", t.name)
        places += ["raw_data"] if t.HasField("raw_data") else []
        places += ["file"] if is_external else []
        require(len(places) <= 1, "data in two places", t.name)
        count = math.prod(t.dims)
        if t.data_type == STRING:
            require(places in ([], ["string_data"]), "strings as raw bytes", t.name)
            require(len(t.string_data) == count, "data of another size", t.name)
            b = items(map(data, t.string_data))
            return u64(len(b)) + hashlib.sha256(b).digest()
        bits = BITS[t.data_type] * count
        if is_external:
            for entry in t.external_data:
                known(entry)
            b = external(t, self.base_dir)
        elif t.HasField("raw_data"):
            b = t.raw_data
        else:
            require(len(getattr(t, typed_field)) == entries(t, count), "data of another size")
            b = typed(t)
        require(len(b) == (bits + 7) // 8, "data of another size", t.name)
        if bits % 8:
            b = b[:-1] + bytes([b[-1] & ((1 << bits % 8) - 1)])
        return u64(len(b)) + hashlib.sha256(b).digest()


def imports_of(proto):
    """The versions in which each domain is imported."""
    versions = {}
    for entry in proto.opset_import:
        versions.setdefault(domain_of(known(entry).domain), set()).add(entry.version)
    return versions


def element_type(number):
    require(number >= 0, "a negative element type", number)
    return u64(number)


def external(t, base_dir):
    """The bytes of an external tensor, from its file."""
    require(base_dir is not None, "external data that were not loaded", t.name)
    found = {}
    for entry in t.external_data:
        if entry.key in ("location", "offset", "length"):
            define(found, entry.key, text(entry.value), "a key of external data stands twice")
    offset, length = (number(found.get(key)) for key in ("offset", "length"))
    location = found.get("location", "")
    parts = location.split("/")
    require("" not in parts and ".." not in parts, "a location that is not allowed", location)
    base = Path(base_dir).resolve()
    try:
        path = (base / location).resolve(strict=True)
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidModelError("not a file of the model's directory", location) from error
    require(regular and base in path.parents, "not a file of the model's directory", location)
    content = path.read_bytes()
    offset = offset or 0
    rest = len(content) - offset
    require(rest >= (length or 0), "a range beyond the end of the file", location)
    require(length != 0 or rest == 0, "a length of 0 before the end of the file", location)
    return content[offset:] if length is None else content[offset : offset + length]


def number(digits):
    require(digits is None or re.fullmatch("[0-9]{1,19}", digits), "not a number", digits)
    return None if digits is None else int(digits)


def entries(t, count):
    """How many entries of its typed field ``count`` elements take."""
    bits = BITS[t.data_type]
    if t.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    return -(-count // (8 // bits)) if bits in (2, 4) else count


def typed(t):
    """The content of the typed field, as raw_data would hold it."""
    if t.data_type in (TensorProto.FLOAT, TensorProto.COMPLEX64):
        # Not by Python's numbers, which turn a signalling NaN into a quiet one.
        alone = TensorProto()
        alone.CopyFrom(t)
        for field, _ in t.ListFields():
            if field.name != "float_data":
                alone.ClearField(field.name)
        alone.DiscardUnknownFields()
        serialized = alone.SerializeToString()
        return serialized[len(serialized) - 4 * len(t.float_data) :]
    if t.data_type in (TensorProto.DOUBLE, TensorProto.COMPLEX128):
        return b"".join(struct.pack("<d", x) for x in t.double_data)
    bits = BITS[t.data_type]
    if bits in (2, 4):
        bits = 8  # such elements share an entry, as they share a byte
    values = [low_bits(x, bits) for x in getattr(t, TYPED.get(t.data_type, "int32_data"))]
    stream = "".join(f"{x:0{bits}b}" for x in reversed(values))  # the first in the lowest bits
    return int(stream or "0", 2).to_bytes((bits * len(values) + 7) // 8, "little")


def low_bits(x, bits):
    require(-(2 ** (bits - 1)) <= x < 2**bits, "an entry that does not fit", x)
    return x % 2**bits
