# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools

from tvm_model_hash.integration import document_get_hash, record_of_import, wants_hash

from ....ir.module_hash import set_record
from .onnx_frontend import from_onnx as _from_onnx

_DOC = """    get_hash : bool, optional
        Hash the model as it was handed over, before it is converted, and store the SHA-256 of
        its serialized form as the attribute ``model_hash`` of the module and of its function
        ``main``, from where ``relax.build`` takes it into the executable. Keyword only; by
        default if the environment variable ``TVM_MODEL_HASH`` is ``import``.
"""


@functools.wraps(_from_onnx)
def from_onnx(model, *args, get_hash=None, **kwargs):
    if not wants_hash(get_hash):
        return _from_onnx(model, *args, **kwargs)
    record = record_of_import(model)
    return set_record(_from_onnx(model, *args, **kwargs), record)


document_get_hash(from_onnx, _from_onnx, _DOC)
