# SPDX-License-Identifier: Apache-2.0
"""What a program may do with the module between import and export keeps the hash."""

import numpy as np
import onnx.numpy_helper
import pytest
import tvm
from conftest import layer, sha256
from tvm import relax
from tvm.ir.module_hash import get_record, set_record
from tvm.relax.dpl import is_op, wildcard
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash

from tvm_model_hash import HashConflictError, Status, check, model_record, read_record

PATTERNS = [("tests.relu", is_op("relax.nn.relu")(wildcard()))]


@pytest.fixture
def model():
    """One layer, and an activation for the backend below."""
    model = layer()
    model.graph.node[0].output[0] = "matmul_out"
    model.graph.node.add(op_type="Relu", input=["matmul_out"], output=["y"], name="relu")
    return model


@pytest.fixture
def mod(model):
    return from_onnx(model, get_hash=True)


@pytest.fixture
def assert_kept(model, x, tmp_path):
    """Build a module, export, load and run it: the hash and the output are the model's."""

    def assert_kept(mod, *params, target="llvm", tolerance=1e-5, **keywords):
        executable = relax.build(mod, target, **keywords)
        executable.export_library(tmp_path / "lib.so")
        expected_status = Status.NO_RECORD if params else Status.MATCH
        assert check(model, tmp_path / "lib.so").status is expected_status
        assert read_record(tmp_path / "lib.so").params == len(params)
        library = tvm.runtime.load_module(tmp_path / "lib.so")
        for source in (executable, library):
            vm = relax.VirtualMachine(source, tvm.cpu())
            assert vm.get_hash() == sha256(model)
            output = vm["main"](tvm.runtime.tensor(x), *params).numpy()
            expected = np.maximum(x @ onnx.numpy_helper.to_array(model.graph.initializer[0]), 0)
            np.testing.assert_allclose(output, expected, tolerance, tolerance)
        return executable

    return assert_kept


def test_detach_params(model, assert_kept):
    detached, params = detach_params(from_onnx(model, keep_params_in_input=True, get_hash=True))
    assert not detached.attrs  # it is the function's attribute that counts here
    assert_kept(detached, *params["main"])


def test_detach_params_after_set_record(model, assert_kept):
    mod = set_record(from_onnx(model, keep_params_in_input=True), model_record(model))
    detached, params = detach_params(mod)
    assert_kept(detached, *params["main"])


def test_a_function_that_was_renamed_before_detach_params(model):
    mod = from_onnx(model, keep_params_in_input=True, get_hash=True)
    renamed = tvm.IRModule({"prefill": mod["main"].with_attr("global_symbol", "prefill")})
    detached, params = detach_params(renamed)
    executable = relax.build(detached, "llvm")
    record = vm_hash.get_record(executable)
    assert (record.model, record.params) == (sha256(model), len(params["prefill"]))


def test_functions_of_one_model_in_one_module(model):
    mod = from_onnx(model, get_hash=True)
    functions = {
        name: mod["main"].with_attr("global_symbol", name) for name in ("prefill", "decode")
    }
    assert get_record(tvm.IRModule(functions)) == model_record(model)


def test_functions_of_two_models_in_one_module_are_an_error(model):
    functions = {
        name: from_onnx(m, get_hash=True)["main"].with_attr("global_symbol", name)
        for name, m in (("prefill", model), ("decode", layer(2)))
    }
    with pytest.raises(HashConflictError, match="'prefill'.*'decode'"):
        relax.build(tvm.IRModule(functions), "llvm")


def test_a_lost_attribute_of_the_function_leaves_the_modules(mod, assert_kept):
    for name in ("model_hash", "model_hash_record"):
        mod["main"] = mod["main"].without_attr(name)
    assert_kept(mod)


@pytest.mark.parametrize("name", ["default", "default_build"])
def test_pipelines(name, mod, model, assert_kept):
    assert_kept(mod, relax_pipeline=name)
    after = relax.get_pipeline(name)(mod)
    assert get_record(after) == model_record(model)
    assert_kept(after, relax_pipeline=None)


def test_a_pipeline_before_the_build(mod, assert_kept):
    assert_kept(relax.get_pipeline("zero")(mod))


def test_the_pipeline_of_the_target(mod, assert_kept):
    assert_kept(mod, relax_pipeline=relax.get_default_pipeline(tvm.target.Target("llvm")))


def test_mixed_precision(mod, assert_kept):
    mixed = relax.transform.ToMixedPrecision(out_dtype="float32")(mod)
    assert "float16" in mixed.script()
    assert_kept(mixed, tolerance=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "AnnotateTIROpPattern",
        "AttachGlobalSymbol",
        "CanonicalizeBindings",
        "ConvertToDataflow",
        "DeadCodeElimination",
        "DecomposeOpsForInference",
        "EliminateCommonSubexpr",
        "ExpandTupleArguments",
        "FoldConstant",
        "FuseOps",
        "LambdaLift",
        "LegalizeOps",
        "LiftTransformParams",
        "RemoveUnusedOutputs",
        "ToNonDataflow",
        "TopologicalSort",
    ],
)
def test_passes(name, mod):
    after = getattr(relax.transform, name)()(mod)
    assert get_record(after) == get_record(mod)


@pytest.mark.parametrize(
    "rebuild",
    [
        lambda mod: tvm.IRModule(dict(mod.functions.items())),
        lambda mod: tvm.IRModule.from_expr(mod["main"]),
        relax.transform.BindParams("main", {}),
        lambda mod: mod.clone(),
    ],
)
def test_other_ways_to_a_new_module(rebuild, mod):
    assert get_record(rebuild(mod)) == get_record(mod)


def test_a_byoc_backend(mod, model, assert_kept):
    """A backend that compiles what it takes out of the graph by itself, here into C."""
    taken = []

    @tvm.register_global_func("relax.ext.tests", override=True)
    def compile_functions(functions, options, constants):
        taken.extend(str(function.attrs["global_symbol"]) for function in functions)
        return [c_module(name) for name in taken]

    partitioned = relax.transform.FuseOpsByPattern(PATTERNS, annotate_codegen=True)(mod)
    assert get_record(partitioned) == model_record(model)
    generated = relax.transform.RunCodegen()(partitioned)
    assert len(taken) == 1
    assert_kept(generated)


def c_module(name):
    """A ReLU in C, with the parts of DLTensor and TVMFFIAny that it needs."""
    source = f"""
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {{
#endif
typedef struct {{ float* data; }} Tensor;
typedef struct {{ int32_t type; int32_t zero; char* value; }} Any;
static Tensor* tensor(const Any* any) {{
  return (Tensor*)(any->type == 7 ? any->value : any->value + 24);
}}
int __tvm_ffi_{name}(void* self, const Any* args, int32_t num_args, Any* result) {{
  Tensor* x = tensor(args);
  Tensor* y = tensor(args + num_args - 1);
  for (int i = 0; i < 32; ++i) y->data[i] = x->data[i] > 0 ? x->data[i] : 0;
  return 0;
}}
#ifdef __cplusplus
}}
#endif
"""
    return tvm.get_global_func("runtime.CSourceModuleCreate")(source, "c", [name], [])


def test_compiled_mode(mod, assert_kept):
    assert_kept(mod, exec_mode="compiled")


def test_the_c_target(mod, model, assert_kept, tmp_path):
    executable = assert_kept(mod, target="c")
    # TVM cannot load such a .tar, for want of its own headers; its record is read all the same.
    executable.export_library(tmp_path / "lib.tar")
    assert read_record(tmp_path / "lib.tar") == vm_hash.get_record(executable)
