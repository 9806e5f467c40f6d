# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into the VM executable."""

import functools

from tvm_model_hash.integration import (  # noqa: F401 (methods of VMExecutable)
    check_hash,
    get_hash,
    save_hash,
)

from ..ir.module_hash import get_record
from ..runtime.library_hash import set_record
from .vm_build import build as _build


@functools.wraps(_build)
def build(mod, *args, **kwargs):
    # Before any pass, and before the work is done, so that a malformed hash is told at once.
    record = get_record(mod)
    executable = _build(mod, *args, **kwargs)
    if record is not None:
        set_record(executable, record)
    return executable
