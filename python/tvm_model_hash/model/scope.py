# SPDX-License-Identifier: Apache-2.0
"""What the names in a graph mean, and which of its nodes count.

onnx-ir finds what computes each value: an input, an initializer or a node, of this graph or of one
around it. FORMAT.md states the order of the nodes that follows from that.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
from onnx import AttributeProto

from ..errors import InvalidModelError

Tensor: TypeAlias = onnx.TensorProto | onnx.SparseTensorProto
#: The versions in which the operator set of each domain is imported: one, if all is well.
Imports: TypeAlias = dict[str, set[int]]

GRAPH_TYPES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


class Scope:
    """A graph, its counted nodes in their order, and the graphs around it.

    Parameters
    ----------
    proto : onnx.GraphProto or onnx.FunctionProto
        The graph's message.
    graph : onnx_ir.Graph or onnx_ir.Function
        The same graph, with its names resolved.
    imports : dict of str to set of int
        The versions of the operator sets that its nodes are of.
    place : str
        Where it stands, for messages; empty for the graph of the model.
    outer : Scope, optional
        The graph around it.

    Raises
    ------
    InvalidModelError
        If a counted node uses a name that nothing defines, or depends on itself.
    """

    def __init__(
        self,
        proto: onnx.GraphProto | onnx.FunctionProto,
        graph: ir.Graph | ir.Function,
        imports: Imports,
        place: str,
        outer: Scope | None = None,
    ):
        self.proto = proto
        self.imports = imports
        self.place = place
        self.outer = outer
        #: The message of each node.
        self.protos = dict(zip(graph, proto.node, strict=True))
        #: The indices of the inputs.
        self.inputs = {value: index for index, value in enumerate(graph.inputs)}
        self.initializers = initializers(proto)
        #: All values that belong to this graph.
        self.values = dict.fromkeys(graph.inputs)
        if isinstance(graph, ir.Graph):
            self.values.update(dict.fromkeys(graph.initializers.values()))
        for node in graph:
            self.values.update(dict.fromkeys(node.outputs))
        #: What is put out, of this graph or of one around it.
        self.outputs = [self._output(value) for value in graph.outputs]
        #: The counted nodes and their numbers, in this order.
        self.order: dict[ir.Node, int] = {}
        #: The values of the graphs around it that it uses, in the order of their first use.
        self.captured: dict[ir.Value, None] = {}
        #: The graphs in the attributes of its counted nodes, by name of the attribute.
        self.subgraphs: dict[ir.Node, dict[str, list[Scope]]] = {}
        self._number_nodes()

    def owner(self, value: ir.Value, user: ir.Node | None = None) -> tuple[Scope, int]:
        """Find the graph that a value belongs to.

        Parameters
        ----------
        value : onnx_ir.Value
            A value that is used in this graph.
        user : onnx_ir.Node, optional
            The node that uses it, for the message.

        Returns
        -------
        owner : Scope
            The graph.
        level : int
            0 for this graph, 1 for the one around it, and so on.

        Raises
        ------
        InvalidModelError
            If there is none.
        """
        scope: Scope | None = self
        level = 0
        while scope is not None:
            if value in scope.values:
                return scope, level
            scope, level = scope.outer, level + 1
        where = node_text(self.protos[user]) if user is not None else "the graph's output"
        raise InvalidModelError(
            f"{join(self.place, where)}: {value.name!r} is used, but no input, initializer or "
            "node defines it"
        )

    @functools.cached_property
    def _by_name(self) -> dict[str | None, ir.Value]:
        return {value.name: value for value in self.values}

    def _output(self, value: ir.Value) -> ir.Value:
        # onnx-ir looks for a graph's outputs in this graph only, and makes a new value if there
        # is none; but the output of a subgraph may be a value of a graph around it.
        scope: Scope | None = self
        while scope is not None and value not in self.values:
            if value.name and value.name in scope._by_name:
                return scope._by_name[value.name]
            scope = scope.outer
        return value

    def _number_nodes(self) -> None:
        # Depth-first and post-order, with a stack of its own: recursion would end at a depth of
        # some hundred nodes.
        stack: list[tuple[ir.Node | None, Iterator[ir.Value]]] = [(None, iter(self.outputs))]
        entered: set[ir.Node] = set()
        while stack:
            node, values = stack[-1]
            for value in values:
                owner, _ = self.owner(value, node)
                producer = value.producer()
                if owner is not self:
                    self.captured[value] = None
                elif producer is not None and producer not in self.order:
                    if producer in entered:
                        raise InvalidModelError(
                            f"{join(self.place, node_text(self.protos[producer]))} depends on "
                            "itself: expected a graph without cycles"
                        )
                    entered.add(producer)
                    stack.append((producer, self._dependencies(producer)))
                    break
            else:
                stack.pop()
                if node is not None:
                    self.order[node] = len(self.order)

    def _dependencies(self, node: ir.Node) -> Iterator[ir.Value]:
        values = [value for value in node.inputs if value is not None]
        proto = self.protos[node]
        place = join(self.place, node_text(proto))
        for attribute in sorted_attributes(proto.attribute, place):
            protos = subgraphs_of(attribute)
            if not protos:
                continue
            found = node.attributes[attribute.name].value
            graphs = [found] if isinstance(found, ir.Graph) else found
            where = join(place, f"attribute {attribute.name!r}")
            scopes = [
                Scope(inner, graph, self.imports, where, self)
                for inner, graph in zip(protos, graphs, strict=True)
            ]
            self.subgraphs.setdefault(node, {})[attribute.name] = scopes
            for scope in scopes:
                values += scope.captured
        return iter(values)


def open_scope(
    proto: onnx.GraphProto | onnx.FunctionProto, imports: Imports, place: str = ""
) -> Scope:
    """Resolve the names of a graph that has no graph around it, and number its nodes.

    Parameters
    ----------
    proto : onnx.GraphProto or onnx.FunctionProto
        The graph, which is not changed.
    imports : dict of str to set of int
        The versions of the operator sets that its nodes are of.
    place : str
        Where it stands, for messages; empty for the graph of the model.

    Returns
    -------
    scope : Scope
        The graph; those in its counted nodes are among its ``subgraphs``.

    Raises
    ------
    InvalidModelError
        If names are defined twice or not at all, or a node depends on itself.
    """
    skeleton = type(proto)()
    try:
        _copy_structure(proto, skeleton)
        with _quiet():
            graph: Any = ir.from_proto(skeleton)
    except (ir.serde.SerdeError, RecursionError, UnicodeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # onnx-ir wraps an error once for each level
            cause = cause.__cause__
        raise InvalidModelError(
            f"{place or 'the graph'} cannot be read ({type(cause).__name__}: {cause})"
        ) from error
    return Scope(proto, graph, imports, place)


def _copy_structure(source: Any, target: Any) -> None:
    """Copy a graph's or function's names, nodes and subgraphs: all that onnx-ir has to know,
    nothing that it can't read, and no tensors.

    Names that are defined twice are refused here, because onnx-ir takes one of the two.
    """
    defined: set[str] = set()

    def define(name: str, by: str) -> None:
        if not name:
            return
        if name in defined:
            raise InvalidModelError(
                f"{by} of graph or function {source.name!r} defines {name!r}, which is defined "
                "already: expected each name once"
            )
        defined.add(name)

    if isinstance(source, onnx.FunctionProto):
        target.input.extend(source.input)
        target.output.extend(source.output)
        for name in source.input:
            define(name, "an input")
    else:
        for info in source.input:
            target.input.add(name=info.name)
            define(info.name, "an input")
        for info in source.output:
            target.output.add(name=info.name)
        names = initializers(source).keys()
        for name in names:
            target.initializer.add(name=name)
        defined |= names  # only now, because an input may have one
    for node in source.node:
        for name in node.output:
            define(name, node_text(node))
        copy = target.node.add(op_type=node.op_type, input=node.input, output=node.output)
        for attribute in node.attribute:
            graphs = subgraphs_of(attribute)
            if graphs:
                inner = copy.attribute.add(name=attribute.name, type=attribute.type)
                is_list = attribute.type == AttributeProto.GRAPHS
                for graph in graphs:
                    _copy_structure(graph, inner.graphs.add() if is_list else inner.g)
    if isinstance(source, onnx.FunctionProto) and not defined.issuperset(source.output):
        missing = next(name for name in source.output if name not in defined)
        raise InvalidModelError(
            f"function {source.name!r}: the output {missing!r} is defined by no input or node"
        )


def subgraphs_of(attribute: AttributeProto) -> list[onnx.GraphProto]:
    """List the graphs that an attribute holds: none, one or more."""
    if attribute.ref_attr_name or attribute.type not in GRAPH_TYPES:
        return []
    return [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)


def initializers(proto: onnx.GraphProto | onnx.FunctionProto) -> dict[str, Tensor]:
    """Collect a graph's initializers, dense and sparse, by name.

    Raises
    ------
    InvalidModelError
        If two have the same name.
    """
    if isinstance(proto, onnx.FunctionProto):
        return {}
    found: dict[str, Tensor] = {}
    for tensor in [*proto.initializer, *proto.sparse_initializer]:
        name = tensor_name(tensor)
        if name in found:
            raise InvalidModelError(
                f"graph {proto.name!r} has two initializers {name!r}: expected each name once"
            )
        if name:  # without a name nothing can use it
            found[name] = tensor
    return found


def opset_imports(opset_import: Iterable[onnx.OperatorSetIdProto]) -> Imports:
    """Collect the versions in which each domain is imported."""
    imports: Imports = {}
    for entry in opset_import:
        imports.setdefault(domain(entry.domain), set()).add(entry.version)
    return imports


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # onnx-ir warns of names that nothing defines. Where one counts an error is raised for it.
    # Only this thread's: others may use onnx-ir for something else.
    thread = threading.get_ident()
    logger = logging.getLogger("onnx_ir.serde")

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def sorted_attributes(attributes: Iterable[AttributeProto], place: str) -> list[AttributeProto]:
    """Order attributes by name.

    Raises
    ------
    InvalidModelError
        If two have the same name; the message begins with ``place``.
    """
    # By code points, which is the order of their bytes in UTF-8 too.
    ordered = sorted(attributes, key=lambda attribute: str(attribute.name))
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise InvalidModelError(
                f"{place}: the attribute {one.name!r} stands twice, expected it once"
            )
    return ordered


def domain(name: str) -> str:
    """Give a domain its canonical name."""
    return "" if name == "ai.onnx" else name


def join(place: str, inner: str) -> str:
    """Put a place into the one around it, for messages."""
    return f"{place}, {inner}" if place else inner


def tensor_name(tensor: Tensor) -> str:
    """Name a tensor; a sparse one has the name of its values."""
    return tensor.values.name if isinstance(tensor, onnx.SparseTensorProto) else tensor.name


def node_text(proto: onnx.NodeProto) -> str:
    """Name a node, for messages."""
    if proto.name:
        return f"node {proto.name!r} ({proto.op_type})"
    return f"the {proto.op_type} that computes {', '.join(map(repr, proto.output))}"
