# SPDX-License-Identifier: Apache-2.0
"""Compilation that takes the model's identity from the IRModule into what it compiles."""

import functools
import inspect

from tvm_model_hash.integration import (  # noqa: F401 (methods of VMExecutable)
    check_hash,
    get_hash,
    new_build,
    save_hash,
)

from ..ir.module_hash import get_record
from ..ir.recipe_hash import main_function, record_of_compilation, variable_name
from ..runtime.library_hash import import_record
from ..target import Target
from .expr import Function
from .vm_build import build as _build

_SIGNATURE = inspect.signature(_build)


@functools.wraps(_build)
def build(mod, *args, **kwargs):
    # Before any pass, and before the work is done, so that a malformed hash is told at once.
    record = get_record(mod)
    names = []
    if record is not None:
        names = _parameters(mod)
        main = main_function(mod, Function)
        record = record_of_compilation(
            record,
            _targets(mod, _SIGNATURE.bind(mod, *args, **kwargs).arguments.get("target")),
            main,
            None if main is None else _num_inputs(main),
        )
    executable = _build(mod, *args, **kwargs)
    if record is not None:
        import_record(executable.mod, record.with_fields(new_build(), len(names)), names)
    return executable


def _targets(mod, target):
    """What a module is compiled for: as is said, and on the devices that it names itself."""
    own = [device.target for device in mod.global_infos.get("vdevice", ())]
    target = target or Target.current()
    return list(map(Target, [target, *own] if target else own or ["llvm"]))


def _parameters(mod):
    """Names of the parameters that are no inputs: weights that lie outside of the library."""
    names = {}
    for function in mod.functions.values():
        if isinstance(function, Function):
            parameters = function.params[_num_inputs(function) :]
            names.update((variable_name(parameter), None) for parameter in parameters)
    return list(names)


def _num_inputs(function):
    number = (function.attrs or {}).get("num_input")
    return len(function.params) if number is None else int(number)
