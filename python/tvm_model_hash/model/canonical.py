# SPDX-License-Identifier: Apache-2.0
"""The canonical form of a model, which FORMAT.md states under "The digests"."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import onnx
from onnx import AttributeProto, TensorProto

from .. import limits
from ..errors import InvalidModelError
from .contents import Content, Contents
from .elements import (
    ELEMENT_TYPES,
    MAX_ELEMENTS,
    TYPED_FIELDS,
    ElementType,
    count_elements,
    raw_bytes,
    raw_size,
)
from .external import describe_tensor, is_external
from .file import LARGE_BYTES
from .known_fields import check_fields
from .scope import (
    GRAPH_TYPES,
    Node,
    Place,
    Scope,
    Tensor,
    Value,
    check_utf8,
    domain,
    opset_imports,
    placed_graphs,
    sorted_attributes,
    tensor_name,
)

# Domain, type and overload.
_Operator: TypeAlias = tuple[str, str, str]

# The field that holds an attribute's value.
_ATTRIBUTE_FIELDS: dict[int, str] = {
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

# Those of the lists, and of the messages, for which not to be set is not a value.
_LIST_FIELDS = {"floats", "ints", "strings", "tensors", "graphs", "sparse_tensors", "type_protos"}
_MESSAGE_FIELDS = {"t", "g", "sparse_tensor", "tp"}

# So many parts are handed on at a time, of a list that may be long.
_CHUNK = 1024


class Part(NamedTuple):
    """A piece of a canonical stream, and what it says in words.

    Two streams with equal parts up to here have parts of the same kind here, and no part is the
    beginning of another: so the streams are equal if and only if their parts are.

    Most parts are hashed and never shown. So the words are made of these when they are asked for.

    Parameters
    ----------
    data : bytes
        The bytes.
    place : object
        Its text is the node, input or weight that it belongs to; empty for the model itself.
    what : str
        What of it this is, so that "place: what value" can be read.
    value : object
        What it is: a str as it is to be shown, a number, a list, bytes, a :class:`Data`, or a
        function that returns one of these; None if that cannot be shown.
    """

    data: bytes
    place: object
    what: str
    value: object = None


class Data(NamedTuple):
    """A tensor's content, to be shown.

    Parameters
    ----------
    data_type : int
        The type of its elements, not strings.
    content : bytes or Content
        The elements, or where they are.
    """

    data_type: int
    content: bytes | Content


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
        Here and by every method, if the model contradicts itself.
    ExternalDataError
        By every method, if a tensor's data is neither in the model nor where it says.
    """

    def __init__(self, proto: onnx.ModelProto, contents: Contents):
        self.proto = proto
        self.contents = contents
        check_fields(proto, "")
        if not proto.HasField("graph"):
            raise InvalidModelError("the model has no graph: is this the file of a model?")
        self._imports = opset_imports(proto.opset_import)
        versions = sorted(self._imports.get("", set()))
        if len(versions) > 1:
            raise InvalidModelError(
                "the operator set of the domain '' (ai.onnx) is imported in the versions "
                f"{versions}, expected one version in opset_import"
            )
        self._version = versions[0] if versions else None
        self._functions: dict[_Operator, onnx.FunctionProto] = {}
        for function in proto.functions:
            key = _operator(function, function.name)
            for name in key:
                check_utf8(name)
            if key in self._functions:
                raise InvalidModelError(f"the function {_operator_text(key)} is defined twice")
            self._functions[key] = function
        self._called: dict[_Operator, int] = {}
        self._calls: list[_Operator] = []
        self._weights: list[Value] = []

    def interface(self) -> Iterator[Part]:
        """Give the parts of the graph's stream that name and type its inputs and outputs.

        Returns
        -------
        parts : iterator of Part
            In the order in which a person compares them.
        """
        graph, scope = self.proto.graph, self._scope
        yield _names("inputs", graph.input)
        for index, info in enumerate(graph.input):
            yield from _typed_name("input", index, info)
            yield _default(f"input {info.name!r}", scope.inputs[index])
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
        return itertools.chain.from_iterable(self._model())

    def weights(self) -> Iterator[Part]:
        """Give the stream of the digest ``weights``; to be called when ``graph`` is through.

        Returns
        -------
        parts : iterator of Part
            In their order.
        """
        begin = Part(_str("tvm-model-hash/weights/1"), "", "format")
        weights = (self._tensor(value.tensor, value) for value in self._weights)
        return itertools.chain(
            [begin, _count(self._weights, "", "weights")], itertools.chain.from_iterable(weights)
        )

    @functools.cached_property
    def _scope(self) -> Scope:
        return Scope(self.proto.graph, self._imports)

    # Parts are made in lists, of a node or so: to hand on each by itself through all the graphs
    # around it would take longer than to make it.

    def _model(self) -> Iterator[list[Part]]:
        version = self._version
        opset = _u64(0) if version is None else _u64(1) + _i64(version)
        yield [
            Part(_str("tvm-model-hash/graph/1"), "", "format"),
            Part(opset, "", "version of ai.onnx", "none" if version is None else version),
        ]
        yield from self._graph(self._scope)
        for number, key in enumerate(self._calls):  # the list grows while this goes on
            yield [Part(_u64(1), "", "function")]
            yield from self._function(f"function {number}, {_operator_text(key)}", key)
        yield [Part(_u64(0), "", "function"), _count(self._weights, "", "weights")]
        for value in self._weights:
            yield _tensor_type(value.tensor, value)

    def _graph(self, scope: Scope) -> Iterator[list[Part]]:
        proto, place = scope.proto, scope.place
        is_model = scope is self._scope
        is_function = isinstance(proto, onnx.FunctionProto)
        for one, other in scope.repeated:
            self._check_equal(one, other, place)
        yield [_names("inputs", proto.input) if is_model else _count(proto.input, place, "inputs")]
        if not is_function:
            for index, info in enumerate(proto.input):
                where = Place(place, f"input {index}")
                if is_model:
                    yield _typed_name("input", index, info)
                else:
                    check_fields(info, where)
                    yield _type(info.type, where)
                yield [_default(where, scope.inputs[index])]
        yield [Part(_u64(len(scope.order)), place, NODE_COUNT, len(scope.order))]
        for node in scope.order:
            yield from self._node(scope, node)
        outputs = proto.output
        yield [_names("outputs", outputs) if is_model else _count(outputs, place, "outputs")]
        for index, value in enumerate(scope.outputs):
            where = Place(place, f"output {index}")
            if is_model:
                yield _typed_name("output", index, outputs[index])
            elif not is_function:
                check_fields(outputs[index], where)
            yield [self._reference(scope, value, where, "computed by")]

    def _check_equal(self, one: Tensor, other: Tensor, place: object) -> None:
        where = Place(place, f"initializer {tensor_name(one)!r}")
        data, other_data = (
            [part.data for part in self._tensor(tensor, where)] for tensor in (one, other)
        )
        if data != other_data:
            raise InvalidModelError(
                f"{where} stands in two subgraphs with another type, shape or content: readers "
                "differ in which of the two is meant, expected two names"
            )

    def _node(self, scope: Scope, node: Node) -> Iterator[list[Part]]:
        proto = node.proto
        operator = _operator(proto, proto.op_type)
        place = Place(scope.place, node)
        text = functools.partial(_operator_text, operator)
        parts = [
            Part(_operator_data(operator), place, "operator", text),
            self._operator_version(scope, operator, place),
            _count(node.inputs, place, "inputs"),
        ]
        for index, value in enumerate(node.inputs):
            parts.append(self._reference(scope, value, place, f"input {index} is"))
            if len(parts) >= _CHUNK:
                yield parts
                parts = []
        used = [bool(name) for name in proto.output]
        parts.append(Part(_list(map(_u64, used)), place, "outputs in use are", used))
        attributes = sorted_attributes(proto.attribute, place)
        parts.append(_attribute_names(attributes, place))
        yield parts
        for attribute in attributes:
            scopes = node.subgraphs.get(attribute.name, []) if node.subgraphs else []
            yield from self._attribute(attribute, place, scopes, scope.in_function)

    def _operator_version(self, scope: Scope, operator: _Operator, place: Place) -> Part:
        if operator in self._functions:
            if operator not in self._called:
                self._called[operator] = len(self._calls)
                self._calls.append(operator)
            number = self._called[operator]
            data = _u64(0) + _u64(number)
            return Part(data, place, "operator set version", f"none (function {number})")
        versions = scope.imports.get(operator[0], ())
        if len(versions) != 1:
            found = f"in the versions {sorted(versions)}" if versions else "not at all"
            raise InvalidModelError(
                f"{place}: the operator set of the domain '{operator[0]}' is imported {found}, "
                "expected one version in opset_import"
            )
        (version,) = versions
        return Part(_u64(1) + _i64(version), place, "operator set version", version)

    def _reference(self, scope: Scope, value: Value | None, place: Place, what: str) -> Part:
        if value is None:
            return Part(_u64(0), place, what, "left out")
        owner, index = value.scope, value.index
        level = scope.depth - owner.depth
        if value.node is not None:
            assert index is not None
            data = _four_u64(4, level, owner.node(value).number, index)
        elif value.initializer is None:
            assert index is not None
            data = _three_u64(1, level, index)
        else:
            if value.number is None:
                value.number = len(self._weights)
                self._weights.append(value)
            number = value.number
            data = _two_u64(3, number) if index is None else _four_u64(2, level, index, number)
        return Part(data, place, what, functools.partial(_reference_text, value, level))

    def _attribute(
        self, attribute: AttributeProto, place: object, scopes: list[Scope], in_function: bool
    ) -> Iterator[list[Part]]:
        name, kind = attribute.name, attribute.type
        check_fields(attribute, Place(place, f"attribute {name!r}"))
        kind_name = AttributeProto.AttributeType.Name(kind)
        reference = attribute.ref_attr_name
        field = "" if reference else _ATTRIBUTE_FIELDS.get(kind, "")
        _check_attribute(attribute, kind_name, field, place, in_function)
        what = f"attribute {name!r} is"
        parts = [
            Part(_str(name), place, "attribute", repr(name)),
            Part(_u64(kind), place, f"type of attribute {name!r}", kind_name),
        ]
        if reference:
            data = _u64(1) + _str(reference)
            yield [*parts, Part(data, place, what, f"the function's {reference!r}")]
            return
        value = getattr(attribute, field)
        is_list = field in _LIST_FIELDS
        if kind in _WRITERS:
            write = _WRITERS[kind]
            data = _list(map(write, value)) if is_list else write(value)
            yield [*parts, Part(_u64(0) + data, place, what, value)]
            return
        parts.append(Part(_u64(0), place, what, f"a value of type {kind_name}"))
        where = Place(place, f"attribute {name!r}")
        if is_list:
            parts.append(_count(value, where, "values"))
        yield parts
        if kind in GRAPH_TYPES:
            for scope in scopes:
                yield from self._graph(scope)
            return
        for index, item in enumerate(value if is_list else [value]):
            at = Place(place, f"attribute {name!r}[{index}]") if is_list else where
            is_type = isinstance(item, onnx.TypeProto)
            yield _type(item, at) if is_type else self._tensor(item, at)

    def _function(self, place: str, key: _Operator) -> Iterator[list[Part]]:
        proto = self._functions[key]
        imports = opset_imports(proto.opset_import, place)
        names = list(proto.attribute)
        for name in names:
            check_utf8(name)
        names.sort()
        attributes = sorted_attributes(proto.attribute_proto, place)
        for one, other in itertools.pairwise(sorted([*names, *(a.name for a in attributes)])):
            if one == other:
                raise InvalidModelError(
                    f"{place}: the attribute {one!r} stands twice, expected it once"
                )
        yield [
            Part(_list(map(_str, names)), place, "attributes without default are", names),
            _attribute_names(attributes, place),
        ]
        for attribute in attributes:
            scopes = []
            if attribute.type in GRAPH_TYPES and not attribute.ref_attr_name:
                scopes = [
                    Scope(graph, imports, at) for graph, at in placed_graphs(attribute, place)
                ]
            yield from self._attribute(attribute, place, scopes, False)
        yield from self._graph(Scope(proto, imports, place))

    def _tensor(self, tensor: Tensor, place: object) -> list[Part]:
        parts = _tensor_type(tensor, place)
        if isinstance(tensor, onnx.SparseTensorProto):
            parts += self._tensor(tensor.values, Place(place, "values"))
            parts += self._tensor(tensor.indices, Place(place, "indices"))
        elif tensor.data_type == TensorProto.STRING:
            parts.append(self._strings(tensor, place))
        else:
            parts.append(self._elements(tensor, place))
        return parts

    def _elements(self, tensor: TensorProto, place: object) -> Part:
        element = ELEMENT_TYPES[tensor.data_type]
        content = self._content(tensor, element, place)
        if isinstance(content, bytes):
            size, digest = len(content), hashlib.sha256(content).digest
        else:
            size, digest = content.size, content.sha256
        expected = raw_size(tensor)
        if size != expected:
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} holds {size} bytes, expected "
                f"{expected} for {element.name} {_shape_text(tensor.dims)}"
            )
        return Part(_u64(size) + digest(), place, "content", Data(tensor.data_type, content))

    def _content(self, tensor: TensorProto, element: ElementType, place: object) -> bytes | Content:
        found = _find_data(tensor, element.field, place)
        if found == "raw_data" and not element.bits % 8:
            # A model may have a million small ones, which are in their messages.
            size = raw_size(tensor)
            if size and size < LARGE_BYTES and len(data := tensor.raw_data) == size:
                return data
        if found != element.field:
            return self.contents.of(tensor)
        try:
            return raw_bytes(tensor)
        except ValueError as error:  # elements that their type can't have
            raise InvalidModelError(f"{place}: {describe_tensor(tensor)}: {error}") from error

    def _strings(self, tensor: TensorProto, place: object) -> Part:
        if _find_data(tensor, "string_data", place) != "string_data":
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} is of strings, expected them in string_data"
            )
        strings = list(tensor.string_data)
        count = count_elements(tensor.dims)
        if len(strings) != count:
            raise InvalidModelError(
                f"{place}: {describe_tensor(tensor)} holds {len(strings)} strings, "
                f"expected {count} for the shape {_shape_text(tensor.dims)}"
            )
        data = _list(map(_bytes, strings))
        digest = hashlib.sha256(data).digest()
        return Part(_u64(len(data)) + digest, place, "content", strings)


@functools.lru_cache(maxsize=1024)
def _operator_data(operator: _Operator) -> bytes:
    return b"".join(map(_str, operator))


def _operator(proto: onnx.NodeProto | onnx.FunctionProto, name: str) -> _Operator:
    return domain(proto.domain), name, proto.overload


def _check_attribute(
    attribute: AttributeProto, kind_name: str, field: str, place: object, in_function: bool
) -> None:
    """Check that an attribute has the value of its type, or a reference, and nothing beside it."""
    name = attribute.name
    if attribute.ref_attr_name:
        if not in_function:
            raise InvalidModelError(
                f"{place}: attribute {name!r} refers to {attribute.ref_attr_name!r} of a function, "
                "expected that in the nodes of a function only"
            )
    elif not field:
        raise InvalidModelError(
            f"{place}: attribute {name!r} has the type {kind_name}, expected one with a value"
        )
    values = {found.name for found, _ in attribute.ListFields()}.intersection(
        _ATTRIBUTE_FIELDS.values()
    )
    if values - {field}:
        expected = f"{field} alone for its type {kind_name}" if field else "no value beside it"
        found = " and ".join(sorted(values)) + (" and a reference" if not field else "")
        raise InvalidModelError(
            f"{place}: attribute {name!r} has {found}, expected {expected}: readers differ in "
            "which they take"
        )
    if field in _MESSAGE_FIELDS and not values:
        raise InvalidModelError(
            f"{place}: attribute {name!r} of the type {kind_name} has no {field}, expected one"
        )


def _find_data(tensor: TensorProto, field: str, place: object) -> str:
    """Find the one place in which a tensor has its data; the typed field if it has none."""
    check_fields(tensor, place)
    check_utf8(tensor.name)
    if tensor.HasField("segment"):
        raise InvalidModelError(
            f"{place}: {describe_tensor(tensor)} is a segment, expected the whole tensor"
        )
    # By presence: to look at raw_data is to copy it.
    found = [name for name in TYPED_FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        found.append("raw_data")
    if is_external(tensor):
        for entry in tensor.external_data:
            check_fields(entry, place)
        found.append("a file")
    if not found:
        return field
    if len(found) > 1 or found[0] not in (field, "raw_data", "a file"):
        raise InvalidModelError(
            f"{place}: {describe_tensor(tensor)} holds data in {' and '.join(found)}, "
            f"expected it in raw_data, in {field} or in a file alone"
        )
    return found[0]


# The parts of the stream that depend on nothing around them.


def _type(proto: onnx.TypeProto, place: object, depth: int = 1) -> list[Part]:
    if depth > limits.GRAPH_DEPTH:
        raise InvalidModelError(
            f"{place}: the type is nested more than {limits.GRAPH_DEPTH} deep, expected no more"
        )
    check_fields(proto, place)
    kind = proto.WhichOneof("value")
    if kind is None:
        return [Part(_u64(0), place, "type", "unknown")]
    value = getattr(proto, kind)
    check_fields(value, place)
    if kind in ("tensor_type", "sparse_tensor_type"):
        number, prefix = (1, "") if kind == "tensor_type" else (2, "sparse ")
        text = prefix + _type_name(value.elem_type)
        data = _u64(number) + _type_number(value.elem_type, place)
        return [Part(data, place, "type", text), _shape(value, place)]
    if kind == "sequence_type":
        outer = Part(_u64(3), place, "type", "a sequence")
        return [outer, *_type(value.elem_type, Place(place, "elements"), depth + 1)]
    if kind == "map_type":
        text = f"a map with keys of {_type_name(value.key_type)}"
        outer = Part(_u64(4) + _type_number(value.key_type, place), place, "type", text)
        return [outer, *_type(value.value_type, Place(place, "values"), depth + 1)]
    if kind == "optional_type":
        outer = Part(_u64(5), place, "type", "optional")
        return [outer, *_type(value.elem_type, Place(place, "element"), depth + 1)]
    data = _u64(6) + _str(value.domain) + _str(value.name)
    return [Part(data, place, "type", f"opaque {value.domain!r} {value.name!r}")]


def _shape(proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor, place: object) -> Part:
    if not proto.HasField("shape"):
        return Part(_u64(0), place, "shape", "of any rank")
    check_fields(proto.shape, place)
    sizes: list[object] = []
    data = []
    for dim in proto.shape.dim:
        check_fields(dim, place)
        kind = dim.WhichOneof("value")
        if kind is None:
            sizes.append("?")
            data.append(_u64(0))
        elif kind == "dim_value":
            sizes.append(dim.dim_value)
            data.append(_u64(1) + _i64(dim.dim_value))
        else:
            sizes.append(dim.dim_param)
            data.append(_u64(2) + _str(dim.dim_param))
    return Part(_u64(1) + _list(data), place, "shape", functools.partial(_shape_text, sizes))


def _tensor_type(tensor: Tensor, place: object) -> list[Part]:
    is_sparse = isinstance(tensor, onnx.SparseTensorProto)
    if is_sparse:
        check_fields(tensor, place)
    number = _dense(tensor).data_type
    dims = tuple(tensor.dims)
    if not _is_possible(number, dims):
        raise _bad_tensor_type(number, dims, f"{place}: {describe_tensor(_dense(tensor))}")
    type_data, type_name, shape_data, shape_name = _tensor_type_data(is_sparse, number, dims)
    return [
        Part(type_data, place, "type", type_name),
        Part(shape_data, place, "shape", shape_name),
    ]


# Of a million tensors most have the type and shape of another one.


@functools.lru_cache(maxsize=1024)
def _is_possible(number: int, dims: tuple[int, ...]) -> bool:
    return number in ELEMENT_TYPES and count_elements(dims) is not None


@functools.lru_cache(maxsize=1024)
def _tensor_type_data(
    is_sparse: bool, number: int, dims: tuple[int, ...]
) -> tuple[bytes, str, bytes, Callable[[], str]]:
    """Type and shape as they are written, each with how it is shown."""
    name = ("sparse " if is_sparse else "") + ELEMENT_TYPES[number].name
    shape = functools.partial(_shape_text, dims)
    return _two_u64(is_sparse, number), name, _list(map(_i64, dims)), shape


def _bad_tensor_type(number: int, dims: tuple[int, ...], what: str) -> InvalidModelError:
    if number not in ELEMENT_TYPES:
        return InvalidModelError(
            f"{what} has the element type {number}, expected one from 1 to {max(ELEMENT_TYPES)}"
        )
    if len(dims) > limits.TENSOR_DIMENSIONS:
        return InvalidModelError(
            f"{what} has {len(dims)} dimensions, expected up to {limits.TENSOR_DIMENSIONS}"
        )
    expected = "sizes from 0 on" if min(dims) < 0 else f"fewer than {MAX_ELEMENTS} elements"
    return InvalidModelError(f"{what} has the shape {_shape_text(dims)}, expected {expected}")


def _dense(tensor: Tensor) -> TensorProto:
    return tensor.values if isinstance(tensor, onnx.SparseTensorProto) else tensor


def _typed_name(what: str, index: int, info: onnx.ValueInfoProto) -> list[Part]:
    place = f"{what} {index}"
    check_fields(info, place)
    name = Part(_str(info.name), place, "name", repr(info.name))
    return [name, *_type(info.type, f"{what} {info.name!r}")]


def _default(place: object, value: Value | None) -> Part:
    has_default = value is not None and value.initializer is not None
    return Part(_u64(has_default), place, "default value", "given" if has_default else "none")


def _names(what: str, infos: Sequence[onnx.ValueInfoProto]) -> Part:
    return Part(_u64(len(infos)), "", f"{what} are", [info.name for info in infos])


def _count(items: Sequence[Any], place: object, what: str) -> Part:
    return Part(_u64(len(items)), place, f"number of {what}", len(items))


def _attribute_names(attributes: list[AttributeProto], place: object) -> Part:
    names = [attribute.name for attribute in attributes]
    return Part(_u64(len(names)), place, "attributes are", names)


def _type_number(number: int, place: object) -> bytes:
    if number < 0:
        raise InvalidModelError(f"{place}: the element type is {number}, expected one from 0 on")
    return _u64(number)


# Texts for messages and for explain.


def _reference_text(value: Value, level: int) -> str:
    around = ["", " of the graph around it", f" of the graph {level} levels around it"]
    suffix = around[min(level, 2)]
    if value.node is not None:
        return f"output {value.index} of node {value.scope.node(value).number}{suffix}"
    weight = str(value) if value.initializer is not None else ""
    if value.index is None:
        return weight
    return f"input {value.index}{suffix}" + (f" or by default {weight}" if weight else "")


def _operator_text(operator: _Operator) -> str:
    domain, name, overload = operator
    return (f"{domain}." if domain else "") + name + (f":{overload}" if overload else "")


def _type_name(number: int) -> str:
    return ELEMENT_TYPES[number].name if number in ELEMENT_TYPES else f"type {number}"


def _shape_text(sizes: Iterable[object]) -> str:
    return f"({', '.join(map(str, sizes))})"


# The notation of FORMAT.md.

_u64 = struct.Struct("<Q").pack
_two_u64 = struct.Struct("<2Q").pack
_three_u64 = struct.Struct("<3Q").pack
_four_u64 = struct.Struct("<4Q").pack
_i64 = struct.Struct("<q").pack


def _f32(number: float) -> bytes:
    data = struct.pack("<f", number)
    if math.isnan(number):  # whether Python keeps a signalling one depends on the machine
        data = data[:2] + bytes([data[2] | 0x40]) + data[3:]
    return data


def _bytes(data: bytes) -> bytes:
    return _u64(len(data)) + data


def _str(text: str) -> bytes:
    if not isinstance(text, str):
        check_utf8(text)
    data = text.encode()
    return _u64(len(data)) + data


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
