# SPDX-License-Identifier: Apache-2.0
"""What the names in a graph mean, and which of its nodes count.

A name means the input, initializer or node's output that has it, in this graph or in one around it.
FORMAT.md states the order of the nodes that follows from that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import onnx
from onnx import AttributeProto

from .. import limits
from ..errors import InvalidModelError
from .known_fields import check_fields

Tensor: TypeAlias = onnx.TensorProto | onnx.SparseTensorProto
#: The versions in which the operator set of each domain is imported: one, if all is well.
Imports: TypeAlias = dict[str, set[int]]

GRAPH_TYPES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)

# TVM's importer gives the bodies of these a value of its own, under this name.
_IMPORTERS_NAMES = {"Loop": "max_count", "Scan": "iter"}


class Place(NamedTuple):
    """Where something stands, to be shown in messages. Its text is made when it is asked for.

    Parameters
    ----------
    outer, inner : object
        The place around it, and what it is called there.
    """

    outer: object
    inner: object

    def __str__(self) -> str:
        outer = str(self.outer)
        return f"{outer}, {self.inner}" if outer else str(self.inner)


class Value:
    """What a name stands for; one object for each, compared by identity.

    Parameters
    ----------
    scope : Scope
        The graph that it belongs to.
    index : int, optional
        Which output of its node it is, or which input of the graph.
    node : int, optional
        Which node of the message computes it.
    initializer : int, optional
        Which initializer it is, or has as a default; sparse ones come behind the dense ones.
    """

    # No message is kept here, because of small ones the object in Python takes the most memory.
    __slots__ = ("index", "initializer", "node", "number", "scope")

    def __init__(
        self,
        scope: Scope,
        index: int | None = None,
        node: int | None = None,
        initializer: int | None = None,
    ):
        self.scope = scope
        self.index = index
        self.node = node
        self.initializer = initializer
        #: The number of the weight, from when the stream has referred to it on.
        self.number: int | None = None

    @property
    def tensor(self) -> Tensor:
        """The initializer."""
        assert self.initializer is not None
        proto = self.scope.proto
        assert isinstance(proto, onnx.GraphProto)
        sparse = self.initializer - len(proto.initializer)
        return (
            proto.initializer[self.initializer] if sparse < 0 else proto.sparse_initializer[sparse]
        )

    def __str__(self) -> str:
        return f"weight {self.number}, {tensor_name(self.tensor)!r}"


class Node:
    """A node that counts. Its text names it.

    Parameters
    ----------
    scope : Scope
        The graph that it belongs to.
    index : int
        Which one of the message it is.
    """

    __slots__ = ("index", "inputs", "number", "pending", "scope", "subgraphs")

    def __init__(self, scope: Scope, index: int):
        self.scope = scope
        self.index = index
        #: Its number in the order of the nodes, which it gets after all that it depends on.
        self.number = -1
        #: What its inputs stand for; None for one that is empty.
        self.inputs: Sequence[Value | None] = ()
        #: The graphs in its attributes, by the attribute's name.
        self.subgraphs: dict[str, list[Scope]] | None = None
        #: What it depends on and was not visited yet.
        self.pending: Iterator[Value | None] = _NOTHING

    @property
    def proto(self) -> onnx.NodeProto:
        """The message."""
        return self.scope.proto.node[self.index]

    def __str__(self) -> str:
        proto = self.proto
        if self.number < 0:
            return node_text(proto)
        name = f", {proto.name!r}" if proto.name else ""
        return f"node {self.number}{name} ({proto.op_type})"


_NOTHING: Iterator[Value | None] = iter(())


class _Names:
    """The names that a graph and those in it define, whether they count or not.

    TVM's importer keeps what a subgraph defines when it goes on, also of a node without use, and
    has one table of the names of all weights.
    """

    def __init__(self) -> None:
        #: What is defined where the walk is: by this graph or one around it.
        self.visible: dict[str, Value] = {}
        #: What the subgraphs define that the walk has left, with the initializers among it.
        self.left: dict[str, Tensor | None] = {}
        #: Initializers of different subgraphs that share a name, and so have to be equal.
        self.repeated: list[tuple[Tensor, Tensor]] = []
        #: The types of the operators that have subgraphs.
        self.operators: set[str] = set()

    def leave(self, own: dict[str, Tensor | None]) -> None:
        """Take away the names that a subgraph defines, and keep its initializers in mind."""
        for name, tensor in own.items():
            del self.visible[name]
            before = self.left.setdefault(name, tensor)
            if before is None:
                self.left[name] = tensor
            elif tensor is not None and tensor is not before:
                self.repeated.append((before, tensor))

    def check_importers_own(self, place: object) -> None:
        """Check that nothing has a name that an importer gives to a value of its own."""
        for operator, name in _IMPORTERS_NAMES.items():
            if operator in self.operators and (name in self.visible or name in self.left):
                raise InvalidModelError(
                    f"{Place(place, repr(name))} is defined in a model with a {operator}, expected "
                    f"another name: TVM's importer has a value of this name in each {operator}"
                )


class Scope:
    """A graph that counts, and its counted nodes in their order.

    Parameters
    ----------
    proto : onnx.GraphProto or onnx.FunctionProto
        The graph's message, which is not changed.
    imports : dict of str to set of int
        The versions of the operator sets that its nodes are of.
    place : object
        Where it stands, for messages; its text is empty for the graph of the model.
    outer : Scope, optional
        The graph around it.

    Raises
    ------
    InvalidModelError
        If a name is defined twice, in a node that counts or not; if a counted node uses a name
        that nothing defines, or depends on itself; or if graphs are nested too deep. The same of
        the graphs in its counted nodes.
    """

    def __init__(
        self,
        proto: onnx.GraphProto | onnx.FunctionProto,
        imports: Imports,
        place: object = "",
        outer: Scope | None = None,
    ):
        #: How deep it is nested; 1 if there is no graph around it.
        self.depth: int = 1 if outer is None else outer.depth + 1
        if self.depth > limits.GRAPH_DEPTH:
            raise _too_deep(place)
        check_fields(proto, place)
        self.proto = proto
        self.imports = imports
        self.place = place
        #: Whether it is the body of a function or in one, where attributes may be references.
        self.in_function: bool = (
            outer.in_function if outer else isinstance(proto, onnx.FunctionProto)
        )
        #: What its inputs are; None for one without a name.
        self.inputs: list[Value | None] = []
        #: The counted nodes, in their order.
        self.order: list[Node] = []
        #: The values of the graphs around it that it uses, in the order of their first use.
        self.captured: dict[Value, None] = {}
        self._nodes: dict[int, Node] = {}  # the same and those being visited, by their index
        # One table for this graph and those around it, because no two of them may define a name.
        self._names: _Names = _Names() if outer is None else outer._names
        self._visible = self._names.visible
        own = self._define()
        #: What is put out, of this graph or of one around it.
        self.outputs = self._find_outputs()
        self._number_nodes()
        if len(self._nodes) < len(proto.node):
            for number, node in enumerate(proto.node):
                if number not in self._nodes:
                    self._look_at_unused(node, place, self.depth)
        #: In the outermost graph, pairs of initializers in different subgraphs that share a name.
        self.repeated: list[tuple[Tensor, Tensor]] = []
        if outer is None:
            self._names.check_importers_own(place)
            self.repeated = self._names.repeated
            self._visible.clear()  # the names are not needed any longer
            self._names.left.clear()
        else:
            values = {name: self._visible[name] for name in own}
            self._names.leave(
                {
                    name: None if value.initializer is None else value.tensor
                    for name, value in values.items()
                }
            )

    def node(self, value: Value) -> Node:
        """Give the counted node that computes a value of this graph."""
        assert value.node is not None
        return self._nodes[value.node]

    def _define(self) -> list[str]:
        """Find what each name stands for that this graph defines, and list the names."""
        proto, visible = self.proto, self._visible
        own: list[str] = []

        def define(name: str, value: Value, by: object) -> None:
            if name in visible or not isinstance(name, str):
                raise self._bad_definition(name, by)
            visible[name] = value
            own.append(name)

        for index, name in enumerate(_names(proto.input)):
            value = Value(self, index) if name else None
            self.inputs.append(value)
            if value is not None:
                define(name, value, "an input")
        if isinstance(proto, onnx.GraphProto):
            tensors = itertools.chain(proto.initializer, proto.sparse_initializer)
            for index, tensor in enumerate(tensors):
                name = tensor_name(tensor)
                found = visible.get(name)
                if found is not None and found.scope is self and found.initializer is None:
                    found.initializer = index  # the default of an input
                elif name:
                    define(name, Value(self, initializer=index), "an initializer")
        for number, node in enumerate(proto.node):
            for index, name in enumerate(node.output):
                if name:
                    define(name, Value(self, index, number), node)
        return own

    def _bad_definition(self, name: object, by: object) -> InvalidModelError:
        by = node_text(by) if isinstance(by, onnx.NodeProto) else by
        graph = f"{self.place}: " if str(self.place) else ""
        if not isinstance(name, str):
            return InvalidModelError(f"{graph}{by} defines the name {name!r}, expected UTF-8")
        if self._visible[name].scope is self:
            return InvalidModelError(
                f"{graph}{by} of graph or function {self.proto.name!r} defines {name!r}, which is "
                "defined already: expected each name once"
            )
        return _shadowing(f"{graph}{by} of graph {self.proto.name!r}", name)

    def _look_at_unused(self, node: onnx.NodeProto, place: object, depth: int) -> None:
        """Look at the names that the subgraphs of a node define that does not count."""
        graphs = []
        for attribute in node.attribute:
            # Importers take what is set, whatever the type says.
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs
        if not graphs:
            return
        names = self._names
        names.operators.add(node.op_type)
        where = Place(place, node_text(node))
        if depth >= limits.GRAPH_DEPTH:
            raise _too_deep(where)
        for graph in graphs:
            own: dict[str, Tensor | None] = dict.fromkeys(_names(graph.input))
            own.update((name, None) for inner in graph.node for name in inner.output)
            for tensor in (*graph.initializer, *graph.sparse_initializer):
                own[tensor_name(tensor)] = tensor
            own.pop("", None)
            for name in own:
                check_utf8(name)
                if name in names.visible:
                    raise _shadowing(f"{where}: graph {graph.name!r}", name)
            names.visible.update(dict.fromkeys(own, Value(self)))
            for inner in graph.node:
                self._look_at_unused(inner, where, depth + 1)
            names.leave(own)

    def _find_outputs(self) -> list[Value]:
        outputs = []
        for index, name in enumerate(_names(self.proto.output)):
            if not name:
                raise InvalidModelError(
                    f"{Place(self.place, f'output {index}')} has no name, expected one"
                )
            if name not in self._visible:
                raise self._undefined(name, f"output {index}")
            outputs.append(self._visible[name])
        return outputs

    def _undefined(self, name: object, user: object) -> InvalidModelError:
        if not isinstance(name, str):
            return InvalidModelError(
                f"{Place(self.place, user)} uses the name {name!r}, expected UTF-8"
            )
        return InvalidModelError(
            f"{Place(self.place, user)}: {name!r} is used, but no input, initializer or node "
            "defines it"
        )

    def _number_nodes(self) -> None:
        # Depth-first and post-order, with a stack of its own: recursion would end at a depth of
        # some hundred nodes.
        proto, nodes, captured = self.proto, self._nodes, self.captured
        root = Node(self, -1)
        root.pending = iter(self.outputs)
        stack = [root]
        while stack:
            node = stack[-1]
            for value in node.pending:
                if value is None:
                    continue
                if value.scope is not self:
                    captured[value] = None
                elif value.node is not None:
                    if value.node > node.index >= 0 and self.depth > 1:
                        raise self._out_of_order(node, proto.node[value.node])
                    found = nodes.get(value.node)
                    if found is None:
                        stack.append(self._visit(value.node))
                        break
                    if found.number < 0:
                        raise InvalidModelError(
                            f"{Place(self.place, found)} depends on itself: expected a graph "
                            "without cycles"
                        )
            else:
                stack.pop()
                node.pending = _NOTHING
                if stack:
                    node.number = len(self.order)
                    self.order.append(node)

    def _out_of_order(self, node: Node, behind: onnx.NodeProto) -> InvalidModelError:
        # TVM's importer would take a value of this name that another subgraph has left.
        return InvalidModelError(
            f"{Place(self.place, node)} uses a value of {node_text(behind)}, which stands behind "
            "it: expected the nodes of a subgraph in the order in which they compute"
        )

    def _visit(self, index: int) -> Node:
        """Begin to visit a node: resolve its names, and those of the graphs in it."""
        proto = self.proto.node[index]
        node = self._nodes[index] = Node(self, index)
        place = Place(self.place, node)
        check_fields(proto, place)
        visible = self._visible
        try:
            node.inputs = [visible[name] if name else None for name in proto.input]
        except KeyError:
            missing = next(name for name in proto.input if name and name not in visible)
            raise self._undefined(missing, node) from None
        dependencies = node.inputs
        with_graphs = [
            attribute
            for attribute in proto.attribute
            if attribute.type in GRAPH_TYPES and not attribute.ref_attr_name
        ]
        if with_graphs:
            self._names.operators.add(proto.op_type)
            node.subgraphs = {}
            for attribute in sorted_attributes(with_graphs, place):
                scopes = [
                    Scope(graph, self.imports, where, self)
                    for graph, where in placed_graphs(attribute, place)
                ]
                node.subgraphs[attribute.name] = scopes
                for scope in scopes:
                    dependencies = [*dependencies, *scope.captured]
        node.pending = iter(dependencies)
        return node


def _shadowing(by: str, name: str) -> InvalidModelError:
    return InvalidModelError(
        f"{by} defines {name!r}, which a graph around it defines too: readers differ in which of "
        "the two is meant, expected another name"
    )


def _too_deep(place: object) -> InvalidModelError:
    return InvalidModelError(
        f"{place}: the graph is nested more than {limits.GRAPH_DEPTH} deep, expected no more"
    )


def placed_graphs(
    attribute: AttributeProto, place: object
) -> Iterator[tuple[onnx.GraphProto, Place]]:
    """Give the graphs that an attribute of a type in ``GRAPH_TYPES`` holds, and their places."""
    name = f"attribute {attribute.name!r}"
    if attribute.type == AttributeProto.GRAPH:
        yield attribute.g, Place(place, name)
    else:
        for index, graph in enumerate(attribute.graphs):
            yield graph, Place(place, f"{name}[{index}]")


def opset_imports(opset_import: Iterable[onnx.OperatorSetIdProto], place: object = "") -> Imports:
    """Collect the versions in which each domain is imported.

    Raises
    ------
    InvalidModelError
        If a domain is not UTF-8, or an entry has unknown fields.
    """
    imports: Imports = {}
    for entry in opset_import:
        check_fields(entry, place)
        imports.setdefault(domain(entry.domain), set()).add(entry.version)
    for name in imports:
        check_utf8(name)
    return imports


def sorted_attributes(attributes: Iterable[AttributeProto], place: object) -> list[AttributeProto]:
    """Order attributes by name.

    Raises
    ------
    InvalidModelError
        If two have the same name, or one's is not UTF-8; the message begins with ``place``.
    """
    named = [(attribute.name, attribute) for attribute in attributes]
    if len({name for name, _ in named}) < len(named):
        names = sorted(str(name) for name, _ in named)
        twice = next(one for one, other in itertools.pairwise(names) if one == other)
        raise InvalidModelError(f"{place}: the attribute {twice!r} stands twice, expected it once")
    for name, _ in named:
        check_utf8(name)
    # By code points, which is the order of their bytes in UTF-8 too.
    named.sort(key=lambda pair: pair[0])
    return [attribute for _, attribute in named]


def check_utf8(name: object) -> None:
    """Check that protobuf could read a name.

    Raises
    ------
    InvalidModelError
        If it could not; then it gives bytes.
    """
    if not isinstance(name, str):
        raise InvalidModelError(f"the name {name!r} is not UTF-8, expected it to be")


def domain(name: str) -> str:
    """Give a domain its canonical name."""
    return "" if name == "ai.onnx" else name


def tensor_name(tensor: Tensor) -> str:
    """Name a tensor; a sparse one has the name of its values."""
    return tensor.values.name if isinstance(tensor, onnx.SparseTensorProto) else tensor.name


def node_text(proto: onnx.NodeProto) -> str:
    """Name a node, for messages."""
    if proto.name:
        return f"node {proto.name!r} ({proto.op_type})"
    return f"the {proto.op_type} that computes {', '.join(map(repr, proto.output))}"


def _names(values: Iterable[onnx.ValueInfoProto | str]) -> Iterator[str]:
    """Name inputs or outputs: of a function they are names, of a graph they have them."""
    for value in values:
        yield value.name if isinstance(value, onnx.ValueInfoProto) else value
