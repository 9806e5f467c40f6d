# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into code and kernels."""

import functools
import inspect

from tvm_model_hash.integration import check_params, new_build

from ...ir.module_hash import get_record
from ...ir.recipe_hash import main_function, record_of_compilation, relay_targets
from ...runtime.relay_vm_hash import set_record
from ..function import Function
from .vm import VMCompiler

_set_params = VMCompiler.set_params
_lower = VMCompiler.lower
_get_exec = VMCompiler.get_exec
_SIGNATURE = inspect.signature(_lower)


@functools.wraps(_set_params)
def set_params(self, params):
    self._model_hash_params = params
    _set_params(self, params)


@functools.wraps(_lower)
def lower(self, mod, *args, **kwargs):
    # Here, because no later step sees the attribute; and read before the work is done, so that
    # a malformed hash is told at once.
    record = get_record(mod)
    params = getattr(self, "_model_hash_params", None)
    check_params(record, params)
    if record is not None:
        arguments = _SIGNATURE.bind(self, mod, *args, **kwargs).arguments
        targets = relay_targets(arguments.get("target"), arguments.get("target_host"))
        record = record_of_compilation(
            record, targets, main_function(mod, Function), params=params or ()
        )
        record = record.with_fields(new_build())
    self._model_hash_record = record
    _lower(self, mod, *args, **kwargs)


@functools.wraps(_get_exec)
def get_exec(self):
    exe = _get_exec(self)
    record = getattr(self, "_model_hash_record", None)
    return exe if record is None else set_record(exe, record)
