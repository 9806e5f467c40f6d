# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into code and kernels."""

import functools

from tvm_model_hash.integration import check_params, new_build

from ...ir.module_hash import get_record
from ...runtime.relay_vm_hash import set_record
from .vm import VMCompiler

_set_params = VMCompiler.set_params
_lower = VMCompiler.lower
_get_exec = VMCompiler.get_exec


@functools.wraps(_set_params)
def set_params(self, params):
    self._model_hash_params = params
    _set_params(self, params)


@functools.wraps(_lower)
def lower(self, mod, *args, **kwargs):
    # Here, because no later step sees the attribute; and read before the work is done, so that
    # a malformed hash is told at once.
    record = get_record(mod)
    check_params(record, getattr(self, "_model_hash_params", None))
    self._model_hash_record = record and record.with_fields(new_build())
    _lower(self, mod, *args, **kwargs)


@functools.wraps(_get_exec)
def get_exec(self):
    exe = _get_exec(self)
    record = getattr(self, "_model_hash_record", None)
    return exe if record is None else set_record(exe, record)
