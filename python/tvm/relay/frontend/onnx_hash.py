# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools
from contextlib import contextmanager

from tvm_model_hash.integration import document_get_hash, record_of_import

from ...ir.module_hash import set_record
from .onnx import from_onnx as _from_onnx

_DOC = """
    get_hash : bool, optional
        Hash the model as it was handed over, before it is converted, and store the SHA-256 of
        its serialized form as the module's attribute ``model_hash``, from where
        ``relay.vm.compile`` takes it into what it compiles. The model is left as it was. The
        parameters know the model too, and are refused with another one's module. Keyword only.
"""


class Params(dict):
    """Parameters by their names that know which model they are of.

    Parameters
    ----------
    params : dict of str to tvm.nd.NDArray
        The parameters.
    record : tvm_model_hash.Record
        The record of the model.
    """

    def __init__(self, params, record):
        super().__init__(params)
        self.record = record

    def __reduce__(self):
        return Params, (dict(self), self.record)

    def copy(self):
        """Copy the dictionary, as ``dict.copy``, with the record."""
        return Params(self, self.record)


@functools.wraps(_from_onnx)
def from_onnx(model, *args, get_hash=False, **kwargs):
    if not get_hash:
        return _from_onnx(model, *args, **kwargs)
    record = record_of_import(model)
    with _unchanged(model.graph):
        mod, params = _from_onnx(model, *args, **kwargs)
    return set_record(mod, record), Params(params, record)


@contextmanager
def _unchanged(graph):
    """Undo what the importer does to a model, so that it has the same hash the next time.

    It names nodes that have no name, and takes the inputs off the bodies of loops. To give it a
    copy would take the memory of the weights again; nodes with subgraphs are few and small.
    """
    nameless = [node for node in graph.node if not node.HasField("name")]
    empty = [node for node in graph.node if node.HasField("name") and not node.name]
    nested = [(node, _copy(node)) for node in graph.node if _has_subgraph(node)]
    try:
        yield
    finally:
        for node in nameless:
            node.ClearField("name")
        for node in empty:
            node.name = ""
        for node, before in nested:
            node.CopyFrom(before)


def _has_subgraph(node):
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _copy(message):
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


document_get_hash(from_onnx, _from_onnx, _DOC)
