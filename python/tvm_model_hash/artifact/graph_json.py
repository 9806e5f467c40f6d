# SPDX-License-Identifier: Apache-2.0
"""The graph of Relay's graph executor, and the record under its last key.

TVM's loader (``GraphExecutor::Load`` in src/runtime/graph_executor/graph_executor.h) takes the keys
in their order, and stops at ``metadata``.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ArtifactError, FixedRecordError
from ..record import Record
from .carrier import Artifact, Carrier, Patch, Role, Source
from .json_text import (
    RECORD_KEY,
    JsonObject,
    first_key,
    is_size,
    read_json,
    record_in,
    replaced,
    short,
)

_METADATA = "metadata"
_KEYS = {"nodes", "arg_nodes", "heads", "attrs", "node_row_ptr"}


class GraphJson(Carrier):
    """The graph of a graph executor, in a file.

    Parameters
    ----------
    source : Source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._json = read_json(source)
        self._inputs = _check(self._json)

    @classmethod
    def find(cls, source: Source) -> GraphJson | None:
        """Recognize JSON that begins with a key of a graph, any of which may be the first."""
        return cls(source) if first_key(source) in _KEYS else None

    def artifact(self) -> Artifact:
        """Read the record and what the graph takes.

        Inputs and parameters are nodes of one kind, so ``inputs`` has the names of both.
        """
        return Artifact(
            self._source.path,
            "graph executor graph",
            "file",
            self._source.size,
            Role.GRAPH,
            record_in(_metadata(self._json)),
            needs_kernels=True,
            inputs=self._inputs,
        )

    def patch(self, record: Record | None) -> Patch:
        """Replace, add or remove the last key."""
        return replaced(self._source, _with_record(self._json, record))


def graph_with_record(graph: str, record: Record | None) -> str:
    """Put a record into a graph, replace the one there, or remove it.

    Parameters
    ----------
    graph : str
        The graph executor's JSON.
    record : Record, optional
        The record to have; None gives back what stock TVM writes.

    Returns
    -------
    graph : str

    Raises
    ------
    ArtifactError
        If this is no graph that TVM's loader takes.
    FixedRecordError
        If it has metadata of another tool's.
    RecordError
        If the record that is there is malformed.
    """
    return _with_record(_parse(graph), record)


def record_in_graph(graph: str) -> Record | None:
    """Read the record in a graph.

    Parameters
    ----------
    graph : str
        The graph executor's JSON.

    Returns
    -------
    record : Record or None
        None where there is none.

    Raises
    ------
    ArtifactError, RecordError
        As :func:`graph_with_record`.
    """
    return record_in(_metadata(_parse(graph)))


def _parse(text: str) -> JsonObject:
    graph = JsonObject.whole(text.encode("utf-8", "surrogatepass"), "the graph")
    _check(graph)
    return graph


def _with_record(graph: JsonObject, record: Record | None) -> str:
    metadata = _metadata(graph)
    record_in(metadata)  # one that is malformed is not replaced unseen
    if _METADATA in graph.members and list(metadata) != [RECORD_KEY]:
        raise FixedRecordError(
            f"the record in {graph.source} cannot be changed: its {_METADATA!r} is of another "
            f"tool, expected none, or {RECORD_KEY!r} alone"
        )
    if record is not None:
        return graph.edited(graph.put(_METADATA, json.dumps({RECORD_KEY: str(record)})))
    return graph.edited(graph.remove(_METADATA)) if _METADATA in graph.members else graph.text


def _metadata(graph: JsonObject) -> dict[str, Any]:
    metadata = graph.value.get(_METADATA, {})
    return metadata if isinstance(metadata, dict) else {}


def _check(graph: JsonObject) -> tuple[str, ...]:
    """Check what TVM's loader needs, and give the names of the nodes that are arguments."""
    keys = list(graph.members)
    if keys[-1:] == [_METADATA]:
        keys.pop()
    if set(keys) != _KEYS:
        raise ArtifactError(
            f"{graph.source} is no graph that TVM loads: it has the keys {short(keys)}, expected "
            f"{', '.join(sorted(_KEYS))}, and behind them {_METADATA!r} or nothing"
        )
    nodes, arguments = graph.value["nodes"], graph.value["arg_nodes"]
    rows, heads = graph.value["node_row_ptr"], graph.value["heads"]
    if not all(isinstance(part, list) for part in (nodes, arguments, rows, heads)):
        raise _damaged(graph, "its nodes, arguments, heads and rows are not all lists")
    if len(rows) != len(nodes) + 1:
        raise _damaged(graph, f"it has {len(nodes)} nodes, and {len(rows)} rows, not one more")
    names = []
    for index in arguments:
        if not is_size(index) or index >= len(nodes):
            raise _damaged(graph, f"argument {short(index)} is none of its {len(nodes)} nodes")
        node = nodes[index]
        name = node.get("name") if isinstance(node, dict) else None
        if not isinstance(name, str):
            raise _damaged(graph, f"node {index} is {short(node)}, which has no name")
        names.append(name)
    return tuple(names)


def _damaged(graph: JsonObject, what: str) -> ArtifactError:
    return ArtifactError(f"{graph.source} is damaged: {what}")
