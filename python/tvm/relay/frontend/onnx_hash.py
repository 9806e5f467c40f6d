# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools

from tvm_model_hash.integration import document_get_hash, record_of_import

from ...ir.module_hash import set_record
from .onnx import from_onnx as _from_onnx

_DOC = """
    get_hash : bool, optional
        Hash the model as it was handed over, before it is converted, and store the SHA-256 of
        its serialized form as the module's attribute ``model_hash``, from where
        ``relay.vm.compile`` takes it into the executable. Keyword only.
"""


@functools.wraps(_from_onnx)
def from_onnx(model, *args, get_hash=False, **kwargs):
    if not get_hash:
        return _from_onnx(model, *args, **kwargs)
    # Before the conversion, which changes the model: it fills in names of nodes, for example.
    record = record_of_import(model)
    mod, params = _from_onnx(model, *args, **kwargs)
    return set_record(mod, record), params


document_get_hash(from_onnx, _from_onnx, _DOC)
