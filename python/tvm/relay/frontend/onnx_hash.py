# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools
from contextlib import contextmanager

from tvm_model_hash.integration import document_get_hash, record_of_import, wants_hash

from ...ir.module_hash import set_record
from ...runtime.params_hash import Params
from .onnx import from_onnx as _from_onnx

_DOC = """
    get_hash : bool, optional
        Hash the model as it was handed over, before it is converted, and store the SHA-256 of
        its serialized form as the attribute ``model_hash`` of the module and of its function
        ``main``, from where ``relay.vm.compile`` and ``relay.build`` take it into what they
        compile. The model is left as it was. The parameters know the model too, and are refused
        with another one's module. Keyword only; by default if the environment variable
        ``TVM_MODEL_HASH`` is ``import``.
"""


@functools.wraps(_from_onnx)
def from_onnx(model, *args, get_hash=None, **kwargs):
    if not wants_hash(get_hash):
        return _from_onnx(model, *args, **kwargs)
    record = record_of_import(model)
    with _unchanged(model.graph):
        mod, params = _from_onnx(model, *args, **kwargs)
    return set_record(mod, record), Params(params, record)


@contextmanager
def _unchanged(graph):
    """Undo what the importer does to a model, so that it has the same hash the next time.

    It names nodes that have no name, and takes the inputs off the bodies of loops. To give it a
    copy would take the memory of the weights again.
    """
    graphs = list(_graphs(graph))
    unnamed = [node for one in graphs for node in one.node if not node.name]
    absent = [node for node in unnamed if not node.HasField("name")]
    inputs = [(nested, [_copy(value) for value in nested.input]) for nested in graphs[1:]]
    try:
        yield
    finally:
        for node in unnamed:
            node.name = ""
        for node in absent:
            node.ClearField("name")
        for nested, before in inputs:
            del nested.input[:]
            nested.input.extend(before)


def _graphs(graph):
    """A graph and all that lie in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(nested)


def _copy(message):
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


document_get_hash(from_onnx, _from_onnx, _DOC)
