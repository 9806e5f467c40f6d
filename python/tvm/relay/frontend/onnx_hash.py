# SPDX-License-Identifier: Apache-2.0
"""ONNX import that keeps the model's identity."""

import functools
import inspect
import warnings

from tvm_model_hash.digest import check_model_type, model_hash, model_record
from tvm_model_hash.errors import InvalidModelError
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
    record = _record(model)
    mod, params = _from_onnx(model, *args, **kwargs)
    return set_record(mod, record), params


def _record(model):
    check_model_type(model)  # the digests would take a path as well
    try:
        return model_record(model)
    except InvalidModelError as error:
        # Whether such a model can be imported is for the importer to say. Its hash is defined.
        warnings.warn(
            f"the record has the model's hash alone, and no digests of graph and weights: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return Record(model_hash(model))


def _document():
    signature = inspect.signature(_from_onnx)
    keyword = inspect.Parameter("get_hash", inspect.Parameter.KEYWORD_ONLY, default=False)
    from_onnx.__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), keyword]
    )
    parameters, returns, rest = (_from_onnx.__doc__ or "").partition("\n    Returns\n")
    from_onnx.__doc__ = parameters + _DOC + returns + rest


_document()
