# SPDX-License-Identifier: Apache-2.0
"""Quantization that keeps the model's identity, which its passes drop."""

import functools
import importlib

from tvm_model_hash.integration import check_params

from ...ir.module_hash import copy_hash, get_record

# By its full name: the package has a function of the same name in the module's place.
_quantize = importlib.import_module("tvm.relay.quantize.quantize").quantize


@functools.wraps(_quantize)
def quantize(mod, params=None, *args, **kwargs):
    record = get_record(mod)
    check_params(record, params)
    quantized = _quantize(mod, params, *args, **kwargs)
    return quantized if record is None else copy_hash(mod, quantized)
