# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into what it compiles."""

import functools

from tvm_model_hash.integration import (  # noqa: F401 (methods of VMExecutable)
    check_hash,
    get_hash,
    new_build,
    save_hash,
)

from ..ir.module_hash import get_record
from ..runtime.library_hash import import_record
from .expr import Function
from .vm_build import build as _build


@functools.wraps(_build)
def build(mod, *args, **kwargs):
    # Before any pass, and before the work is done, so that a malformed hash is told at once.
    record = get_record(mod)
    names = [] if record is None else _parameters(mod)
    executable = _build(mod, *args, **kwargs)
    if record is not None:
        import_record(executable.mod, record.with_fields(new_build(), len(names)), names)
    return executable


def _parameters(mod):
    """Names of the parameters that are no inputs: weights that lie outside of the library."""
    names = {}
    for function in mod.functions.values():
        if isinstance(function, Function) and function.attrs and "num_input" in function.attrs:
            parameters = function.params[int(function.attrs["num_input"]) :]
            names.update((_name(parameter), None) for parameter in parameters)
    return list(names)


def _name(variable):
    # It is name in TVM 0.26 and later.
    return str(variable.name if hasattr(variable, "name") else variable.name_hint)
