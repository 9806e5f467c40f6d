# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools
import inspect

from tvm_model_hash.digest import model_hash
from tvm_model_hash.record import Record

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
    record = Record(model_hash(model))
    mod, params = _from_onnx(model, *args, **kwargs)
    return set_record(mod, record), params


def _document():
    signature = inspect.signature(_from_onnx)
    keyword = inspect.Parameter("get_hash", inspect.Parameter.KEYWORD_ONLY, default=False)
    from_onnx.__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), keyword]
    )
    parameters, returns, rest = (_from_onnx.__doc__ or "").partition("\n    Returns\n")
    from_onnx.__doc__ = parameters + _DOC + returns + rest


_document()
