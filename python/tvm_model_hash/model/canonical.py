# SPDX-License-Identifier: Apache-2.0
"""The canonical form of a model, which FORMAT.md states under "The digests".

What attributes, types and tensors hold is read from the protobuf messages, because onnx-ir does
not know all of it: sparse tensors, map and opaque types.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import onnx
import onnx_ir as ir
from onnx import AttributeProto, TensorProto

from ..errors import InvalidModelError
from .contents import Content, Contents
from .external import describe_tensor, is_external
from .scope import (
    GRAPH_TYPES,
    Scope,
    Tensor,
    domain,
    initializers,
    join,
    open_scope,
    opset_imports,
    sorted_attributes,
    subgraphs_of,
    tensor_name,
)

# Domain, type and overload.
_Operator: TypeAlias = tuple[str, str, str]

# Where TensorProto keeps elements that are not in raw_data; of all other types, in int32_data.
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}

_ELEMENT_TYPES = {int(known): known for known in ir.DataType if known != TensorProto.UNDEFINED}

# The field that holds an attribute's value.
_ATTRIBUTE_FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}


class Part(NamedTuple):
    """A piece of a canonical stream, and what it says in words.

    Two streams with equal parts up to here have parts of the same kind here, and no part is the
    beginning of another: so the streams are equal if and only if their parts are.

    Parameters
    ----------
    data : bytes
        The bytes.
    place : str
        The node, input or weight that it belongs to; empty for the model itself.
    what : str
        What of it this is, so that "place: what value" can be read.
    value : object
        What it is: a str as it is to be shown, a list or bytes, or a function that returns
        one of these; None if that cannot be shown.
    """

    data: bytes
    place: str
    what: str
    value: object = None


#: What the part is called that the two models of ``explain`` may differ in and go on.
NODE_COUNT = "number of nodes"


class CanonicalModel:
    """The canonical streams of a model.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it is not changed.
    contents : Contents
        The contents of its tensors.

    Raises
    ------
    InvalidModelError
        By every method, if the model contradicts itself.
    ExternalDataError
        By every method, if a tensor's data is neither in the model nor where it says.
    """

    def __init__(self, proto: onnx.ModelProto, contents: Contents):
        self.proto = proto
        self.contents = contents
        self._functions: dict[_Operator, onnx.FunctionProto] = {}
        for function in proto.functions:
            key = _operator(function, function.name)
            if key in self._functions:
                raise InvalidModelError(f"the function {_operator_text(key)} is defined twice")
            self._functions[key] = function
        self._called: dict[_Operator, int] = {}
        self._calls: list[_Operator] = []
        self._numbers: dict[ir.Value, int] = {}
        self._weights: list[Tensor] = []

    def interface(self) -> Iterator[Part]:
        """Give the parts of the graph's stream that name and type its inputs and outputs.

        Returns
        -------
        parts : iterator of Part
            In the order in which a person compares them.
        """
        graph = self.proto.graph
        defaults = initializers(graph)
        yield _names("inputs", graph.input)
        for index, info in enumerate(graph.input):
            yield from _typed_name("input", index, info)
            yield _default(f"input {info.name!r}", info.name in defaults)
        yield _names("outputs", graph.output)
        for index, info in enumerate(graph.output):
            yield from _typed_name("output", index, info)

    def graph(self) -> Iterator[Part]:
        """Give the stream of the digest ``graph``.

        Returns
        -------
        parts : iterator of Part
            In their order. It can be gone through once.
        """
        yield Part(_str("tvm-model-hash/graph/1"), "", "format")
        if not self.proto.HasField("graph"):
            raise InvalidModelError("the model has no graph: is this the file of a model?")
        scope = open_scope(self.proto.graph, opset_imports(self.proto.opset_import))
        yield from self._graph(scope)
        for number, key in enumerate(self._calls):  # the list grows while this goes on
            yield Part(_u64(1), "", "function")
            yield from self._function(f"function {number}, {_operator_text(key)}", key)
        yield Part(_u64(0), "", "function")
        yield Part(_u64(len(self._weights)), "", "number of weights", str(len(self._weights)))
        for number, tensor in enumerate(self._weights):
            yield from _tensor_type(tensor, _weight_text(number, tensor))

    def weights(self) -> Iterator[Part]:
        """Give the stream of the digest ``weights``; to be called when ``graph`` is through.

        Returns
        -------
        parts : iterator of Part
            In their order.
        """
        yield Part(_str("tvm-model-hash/weights/1"), "", "format")
        yield Part(_u64(len(self._weights)), "", "number of weights", str(len(self._weights)))
        for number, tensor in enumerate(self._weights):
            yield from self._tensor(tensor, _weight_text(number, tensor))

    def _graph(self, scope: Scope) -> Iterator[Part]:
        proto, place = scope.proto, scope.place
        is_model = not place
        is_function = isinstance(proto, onnx.FunctionProto)
        yield _names("inputs", proto.input) if is_model else _count(proto.input, place, "inputs")
        for index, info in enumerate(proto.input):
            where = f"input {index}"
            if is_model:
                yield from _typed_name("input", index, info)
            if not is_function:
                yield _default(join(place, where), info.name in scope.initializers)
        yield Part(_u64(len(scope.order)), place, NODE_COUNT, str(len(scope.order)))
        for node in scope.order:
            yield from self._node(scope, node)
        outputs = proto.output
        yield _names("outputs", outputs) if is_model else _count(outputs, place, "outputs")
        for index, value in enumerate(scope.outputs):
            where = f"output {index}"
            if is_model:
                yield from _typed_name("output", index, outputs[index])
            yield self._reference(scope, value, join(place, where), "computed by")

    def _node(self, scope: Scope, node: ir.Node) -> Iterator[Part]:
        proto = scope.protos[node]
        operator = _operator(proto, proto.op_type)
        name = f", {proto.name!r}" if proto.name else ""
        number = f"node {scope.order[node]}{name} ({proto.op_type})"
        place = join(scope.place, number)
        yield Part(b"".join(map(_str, operator)), place, "operator", _operator_text(operator))
        yield self._version(scope, operator, place)
        yield _count(node.inputs, place, "inputs")
        for index, value in enumerate(node.inputs):
            yield self._reference(scope, value, place, f"input {index} is")
        used = [bool(name) for name in proto.output]
        yield Part(_list(map(_u64, used)), place, "outputs in use are", used)
        attributes = sorted_attributes(proto.attribute, place)
        yield _attribute_names(attributes, place)
        for attribute in attributes:
            subgraphs = scope.subgraphs.get(node, {}).get(attribute.name, [])
            yield from self._attribute(attribute, place, subgraphs)

    def _version(self, scope: Scope, operator: _Operator, place: str) -> Part:
        if operator in self._functions:
            if operator not in self._called:
                self._called[operator] = len(self._calls)
                self._calls.append(operator)
            number = self._called[operator]
            return Part(
                _u64(0) + _u64(number), place, "operator set version", f"none (function {number})"
            )
        versions = scope.imports.get(operator[0], set())
        if len(versions) != 1:
            found = f"in the versions {sorted(versions)}" if versions else "not at all"
            raise InvalidModelError(
                f"{place}: the operator set of the domain '{operator[0]}' is imported {found}, "
                "expected one version in opset_import"
            )
        (version,) = versions
        return Part(_u64(1) + _i64(version), place, "operator set version", str(version))

    def _reference(self, scope: Scope, value: ir.Value | None, place: str, what: str) -> Part:
        if value is None:
            return Part(_u64(0), place, what, "left out")
        owner, level = scope.owner(value)
        around = ["", " of the graph around it", f" of the graph {level} levels around it"]
        suffix = around[min(level, 2)]
        producer = value.producer()
        if producer is not None:
            number, index = owner.order[producer], value.index()
            assert index is not None
            return Part(
                _u64(4) + _u64(level) + _u64(number) + _u64(index),
                place,
                what,
                f"output {index} of node {number}{suffix}",
            )
        tensor = owner.initializers.get(value.name or "")
        if tensor is None:
            index = owner.inputs[value]
            data = _u64(1) + _u64(level) + _u64(index)
            return Part(data, place, what, f"input {index}{suffix}")
        if value not in self._numbers:
            self._numbers[value] = len(self._weights)
            self._weights.append(tensor)
        number = self._numbers[value]
        text = _weight_text(number, tensor)
        if value not in owner.inputs:
            return Part(_u64(3) + _u64(number), place, what, text)
        index = owner.inputs[value]
        return Part(
            _u64(2) + _u64(level) + _u64(index) + _u64(number),
            place,
            what,
            f"input {index}{suffix} or by default {text}",
        )

    def _attribute(
        self, attribute: AttributeProto, place: str, subgraphs: list[Scope]
    ) -> Iterator[Part]:
        name, kind = attribute.name, attribute.type
        yield Part(_str(name), place, "attribute", repr(name))
        what = f"attribute {name!r} is"
        kind_name = AttributeProto.AttributeType.Name(kind)
        yield Part(_u64(kind), place, f"type of attribute {name!r}", kind_name)
        reference = attribute.ref_attr_name
        if reference:
            yield Part(_u64(1) + _str(reference), place, what, f"the function's {reference!r}")
            return
        if kind not in _ATTRIBUTE_FIELDS:
            raise InvalidModelError(
                f"{place}: attribute {name!r} has the type {kind_name}, expected one with a value"
            )
        value = getattr(attribute, _ATTRIBUTE_FIELDS[kind])
        is_list = kind_name.endswith("S")
        if kind in _WRITERS:
            write = _WRITERS[kind]
            data = _list(map(write, value)) if is_list else write(value)
            yield Part(_u64(0) + data, place, what, value)
            return
        yield Part(_u64(0), place, what, f"a value of type {kind_name}")
        place = join(place, f"attribute {name!r}")
        items = value if is_list else [value]
        if is_list:
            yield _count(items, place, "values")
        for index, item in enumerate(subgraphs if kind in GRAPH_TYPES else items):
            where = f"{place}[{index}]" if is_list else place
            if isinstance(item, Scope):
                item.place = where  # with the number of the node, which it has by now
                yield from self._graph(item)
            elif isinstance(item, onnx.TypeProto):
                yield from _type(item, where)
            else:
                yield from self._tensor(item, where)

    def _function(self, place: str, key: _Operator) -> Iterator[Part]:
        proto = self._functions[key]
        imports = opset_imports(proto.opset_import)
        yield _count(proto.input, place, "inputs")
        names = sorted(proto.attribute, key=str)
        yield Part(_list(map(_str, names)), place, "attributes without default are", names)
        attributes = sorted_attributes(proto.attribute_proto, place)
        yield _attribute_names(attributes, place)
        for attribute in attributes:
            where = join(place, f"attribute {attribute.name!r}")
            subgraphs = [open_scope(g, imports, where) for g in subgraphs_of(attribute)]
            yield from self._attribute(attribute, place, subgraphs)
        yield from self._graph(open_scope(proto, imports, place))

    def _tensor(self, tensor: Tensor, place: str) -> Iterator[Part]:
        yield from _tensor_type(tensor, place)
        if isinstance(tensor, onnx.SparseTensorProto):
            yield from self._tensor(tensor.values, join(place, "values"))
            yield from self._tensor(tensor.indices, join(place, "indices"))
            return
        count = math.prod(tensor.dims)
        if tensor.data_type == TensorProto.STRING:
            strings = self._strings(tensor, count, place)
            joined = _list(map(_bytes, strings))
            yield Part(
                _u64(len(joined)) + hashlib.sha256(joined).digest(), place, "content", strings
            )
            return
        element_type = _element_type(tensor.data_type, place)
        bits = count * element_type.bitwidth
        data = self._elements(tensor, place)
        size = data.size if isinstance(data, Content) else len(data)
        if size != (bits + 7) // 8:
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} holds {size} bytes, expected "
                f"{(bits + 7) // 8} for {element_type.name} {_shape_text(tensor.dims)}"
            )
        show = None
        if count <= 8 and not is_external(tensor):
            show = functools.partial(_show_elements, tensor)
        yield Part(_u64(size), place, "number of bytes")
        if isinstance(data, Content):
            digest = data.sha256()
        else:
            if bits % 8:  # what is in the unused bits means nothing
                data = data[:-1] + bytes([data[-1] & (1 << bits % 8) - 1])
            digest = hashlib.sha256(data).digest()
        yield Part(digest, place, "content", show)

    def _elements(self, tensor: TensorProto, place: str) -> bytes | Content:
        if is_external(tensor):
            return self.contents.of(tensor)
        has_raw = tensor.HasField("raw_data")
        field = _FIELDS.get(tensor.data_type, "int32_data")
        found = _typed_fields(tensor)
        # Not looked at where it need not be, because protobuf copies it.
        if found and has_raw and tensor.raw_data:
            found.append("raw_data")
        if found not in ([], [field]):
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} holds data in {' and '.join(found)}, "
                f"expected it in raw_data or {field} alone"
            )
        if has_raw:
            return self.contents.of(tensor)
        try:
            return ir.TensorProtoTensor(tensor).tobytes()
        except ValueError as error:  # elements that their type can't have
            raise InvalidModelError(f"{place}: {describe_tensor(tensor)}: {error}") from error

    def _strings(self, tensor: TensorProto, count: int, place: str) -> list[bytes]:
        found = _typed_fields(tensor)
        if is_external(tensor) or tensor.raw_data or found not in ([], ["string_data"]):
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} is of strings, expected them in string_data"
            )
        if len(tensor.string_data) != count:
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} holds {len(tensor.string_data)} strings, "
                f"expected {count} for the shape {_shape_text(tensor.dims)}"
            )
        return list(tensor.string_data)


def _operator(proto: onnx.NodeProto | onnx.FunctionProto, name: str) -> _Operator:
    return domain(proto.domain), name, proto.overload


# The parts of the stream that depend on nothing around them.


def _type(proto: onnx.TypeProto, place: str) -> Iterator[Part]:
    kind = proto.WhichOneof("value")
    if kind is None:
        yield Part(_u64(0), place, "type", "unknown")
    elif kind in ("tensor_type", "sparse_tensor_type"):
        number, prefix = (1, "") if kind == "tensor_type" else (2, "sparse ")
        tensor = getattr(proto, kind)
        text = prefix + _type_name(tensor.elem_type)
        yield Part(_u64(number) + _type_number(tensor.elem_type, place), place, "type", text)
        if not tensor.HasField("shape"):
            yield Part(_u64(0), place, "shape", "of any rank")
            return
        dims = tensor.shape.dim
        yield Part(_u64(1) + _list(map(_dim, dims)), place, "shape", _shape_text(map(_size, dims)))
    elif kind == "sequence_type":
        yield Part(_u64(3), place, "type", "a sequence")
        yield from _type(proto.sequence_type.elem_type, join(place, "elements"))
    elif kind == "map_type":
        key = proto.map_type.key_type
        text = f"a map with keys of {_type_name(key)}"
        yield Part(_u64(4) + _type_number(key, place), place, "type", text)
        yield from _type(proto.map_type.value_type, join(place, "values"))
    elif kind == "optional_type":
        yield Part(_u64(5), place, "type", "optional")
        yield from _type(proto.optional_type.elem_type, join(place, "element"))
    else:
        opaque = proto.opaque_type
        data = _u64(6) + _str(opaque.domain) + _str(opaque.name)
        yield Part(data, place, "type", f"opaque {opaque.domain!r} {opaque.name!r}")


def _dim(dim: onnx.TensorShapeProto.Dimension) -> bytes:
    kind = dim.WhichOneof("value")
    if kind is None:
        return _u64(0)
    return _u64(1) + _i64(dim.dim_value) if kind == "dim_value" else _u64(2) + _str(dim.dim_param)


def _size(dim: onnx.TensorShapeProto.Dimension) -> object:
    kind = dim.WhichOneof("value")
    return "?" if kind is None else getattr(dim, kind)


def _tensor_type(tensor: Tensor, place: str) -> Iterator[Part]:
    is_sparse = isinstance(tensor, onnx.SparseTensorProto)
    text = describe_tensor(tensor.values if is_sparse else tensor)
    number = tensor.values.data_type if is_sparse else tensor.data_type
    _element_type(number, f"{place}: {text}")
    if any(size < 0 for size in tensor.dims):
        raise InvalidModelError(
            f"{place}: {text} has the shape {_shape_text(tensor.dims)}, expected sizes from 0 on"
        )
    name = ("sparse " if is_sparse else "") + _type_name(number)
    yield Part(_u64(is_sparse) + _u64(number), place, "type", name)
    yield Part(_list(map(_i64, tensor.dims)), place, "shape", _shape_text(tensor.dims))


def _typed_name(what: str, index: int, info: onnx.ValueInfoProto) -> Iterator[Part]:
    yield Part(_str(info.name), f"{what} {index}", "name", repr(info.name))
    yield from _type(info.type, f"{what} {info.name!r}")


def _default(place: str, has_default: bool) -> Part:
    return Part(_u64(has_default), place, "default value", "given" if has_default else "none")


def _names(what: str, infos: Sequence[onnx.ValueInfoProto]) -> Part:
    return Part(_u64(len(infos)), "", f"{what} are", [info.name for info in infos])


def _count(items: Sequence[Any], place: str, what: str) -> Part:
    return Part(_u64(len(items)), place, f"number of {what}", str(len(items)))


def _attribute_names(attributes: list[AttributeProto], place: str) -> Part:
    names = [attribute.name for attribute in attributes]
    return Part(_u64(len(names)), place, "attributes are", names)


def _element_type(number: int, what: str) -> ir.DataType:
    if number not in _ELEMENT_TYPES:
        raise InvalidModelError(
            f"{what} has the element type {number}, expected one from 1 to "
            f"{max(_ELEMENT_TYPES)}: a newer onnx-ir may know more"
        )
    return _ELEMENT_TYPES[number]


def _type_number(number: int, place: str) -> bytes:
    if number < 0:
        raise InvalidModelError(f"{place}: the element type is {number}, expected one from 0 on")
    return _u64(number)


def _typed_fields(tensor: TensorProto) -> list[str]:
    fields = dict.fromkeys([*_FIELDS.values(), "int32_data"])
    return [field for field in fields if len(getattr(tensor, field))]


def _show_elements(tensor: TensorProto) -> list[object]:
    return ir.TensorProtoTensor(tensor).numpy().ravel().tolist()


# Texts for messages and for explain.


def _weight_text(number: int, tensor: Tensor) -> str:
    return f"weight {number}, {tensor_name(tensor)!r}"


def _operator_text(operator: _Operator) -> str:
    domain, name, overload = operator
    return (f"{domain}." if domain else "") + name + (f":{overload}" if overload else "")


def _type_name(number: int) -> str:
    try:
        return ir.DataType(number).name
    except ValueError:
        return f"type {number}"


def _shape_text(sizes: Iterable[object]) -> str:
    return f"({', '.join(map(str, sizes))})"


# The notation of FORMAT.md.

_u64 = struct.Struct("<Q").pack
_i64 = struct.Struct("<q").pack
_f32 = struct.Struct("<f").pack


def _bytes(data: bytes) -> bytes:
    return _u64(len(data)) + data


def _str(text: str) -> bytes:
    if not isinstance(text, str):  # protobuf's way to say so
        raise InvalidModelError(f"the name {text!r} is not UTF-8, expected it to be")
    return _bytes(text.encode())


def _list(items: Iterable[bytes]) -> bytes:
    items = list(items)
    return _u64(len(items)) + b"".join(items)


_WRITERS: dict[int, Callable[[Any], bytes]] = {
    AttributeProto.FLOAT: _f32,
    AttributeProto.INT: _i64,
    AttributeProto.STRING: _bytes,
    AttributeProto.FLOATS: _f32,
    AttributeProto.INTS: _i64,
    AttributeProto.STRINGS: _bytes,
}
