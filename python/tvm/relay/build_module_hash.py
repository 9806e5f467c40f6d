# SPDX-License-Identifier: Apache-2.0
"""Compilation for the graph executor, or ahead of time, that takes the model's identity along."""

import functools
import inspect

from tvm_model_hash.artifact.graph_json import graph_with_record
from tvm_model_hash.integration import check_params, new_build
from tvm_model_hash.warning import warn

from ..ir.module_hash import get_record
from ..ir.recipe_hash import main_function, record_of_compilation, relay_targets
from ..runtime.library_hash import import_record
from ..runtime.params_hash import Params
from .build_module import BuildModule
from .function import Function

# All ways lead through it: relay.build, tvmc, quantize, and who calls it by hand.
_build = BuildModule.build
_SIGNATURE = inspect.signature(_build)


@functools.wraps(_build)
def build(self, mod, *args, **kwargs):
    record = get_record(mod)
    arguments = _SIGNATURE.bind(self, mod, *args, **kwargs).arguments
    params = arguments.get("params")
    check_params(record, params)
    if record is None and getattr(params, "record", None) is not None:
        # A function that was made anew has no such attribute.
        warn(
            "the parameters know their model, and what they are compiled with does not: nothing "
            "that is compiled gets a hash. Compile the module that from_onnx(..., get_hash=True) "
            "returned, or carry its hash over with tvm.ir.module_hash.copy_hash"
        )
    if record is not None:
        targets = relay_targets(arguments.get("target"), arguments.get("target_host"))
        record = record_of_compilation(
            record, targets, main_function(mod, Function), params=params or ()
        )
    graph, library, weights = _build(self, mod, *args, **kwargs)
    if record is not None:
        record = record.with_fields(new_build())
        # A graph's weights lie beside its kernels, in the library or in a file of their own.
        names = () if graph is None else sorted(weights)
        import_record(library, record.with_fields(record.build, len(names)), names)
        graph = None if graph is None else graph_with_record(graph, record)
        weights = Params(weights, record)
    return graph, library, weights
