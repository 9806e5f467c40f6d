# SPDX-License-Identifier: Apache-2.0
"""Compilation for the graph executor, or ahead of time, that takes the model's identity along."""

import functools
import inspect

from tvm_model_hash.integration import check_params, new_build

from ..ir.module_hash import get_record
from ..runtime.library_hash import import_record
from .backend.executor_factory import GraphExecutorFactoryModule
from .build_module import build as _build

_SIGNATURE = inspect.signature(_build)


@functools.wraps(_build)
def build(ir_mod, *args, **kwargs):
    record = get_record(ir_mod)
    check_params(record, _SIGNATURE.bind(ir_mod, *args, **kwargs).arguments.get("params"))
    factory = _build(ir_mod, *args, **kwargs)
    if record is not None:
        # A graph's weights lie beside its kernels, in the library or in a file of their own.
        names = sorted(factory.params) if isinstance(factory, GraphExecutorFactoryModule) else []
        import_record(factory.lib, record.with_fields(new_build(), len(names)), names)
    return factory
