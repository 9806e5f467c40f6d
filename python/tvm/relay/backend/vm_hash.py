# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into the VM executable."""

import functools

from ...ir.module_hash import get_record
from ...runtime.vm_hash import set_record
from .vm import VMCompiler

_lower = VMCompiler.lower
_get_exec = VMCompiler.get_exec


@functools.wraps(_lower)
def lower(self, mod, *args, **kwargs):
    # Here, because no later step sees the attribute; and read before the work is done, so that
    # a malformed hash is told at once.
    self._model_hash_record = get_record(mod)
    _lower(self, mod, *args, **kwargs)


@functools.wraps(_get_exec)
def get_exec(self):
    exe = _get_exec(self)
    record = getattr(self, "_model_hash_record", None)
    return exe if record is None else set_record(exe, record)
