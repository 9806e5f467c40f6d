# SPDX-License-Identifier: Apache-2.0
"""How a model was compiled, with Relax: the library says it, and load refuses what fails."""

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relax
from tvm.ir.recipe_hash import main_function
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash
from tvm.support import cc
from tvm.target import Target

from tvm_model_hash import Status, UnloadableArtifactError, check, read_record

# A batch of any size, a scalar, and a weight.
TEXT = """
<ir_version: 8, opset_import: ["" : 15]>
g (float[N, 4] x, float s) => (float[N, 4] y) <float[4] w = {1, 2, 3, 4}> {
    h = Mul(x, s)
    y = Add(h, w)
}
"""
TRIPLE = tvm.target.codegen.llvm_get_system_triple()
LLVM = f"llvm:{TRIPLE}"


def model():
    return onnx.parser.parse_model(TEXT)


def imported(shape=None, **keywords):
    return from_onnx(model(), shape, get_hash=True, **keywords)


def recipe(record):
    return [record.field(key) for key in ("tvm", "target", "shapes")]


def said(target=LLVM, shapes="x:1x4,s:scalar"):
    return [tvm.__version__, target, shapes]


@pytest.mark.parametrize("exec_mode", ["bytecode", "compiled"])
@pytest.mark.parametrize("rows", [1, None])
def test_a_library_says_how_it_was_compiled(exec_mode, rows, tmp_path):
    executable = relax.build(imported(rows and {"x": (rows, 4)}), "llvm", exec_mode=exec_mode)
    expected = said(shapes=f"x:{rows or '?'}x4,s:scalar")
    assert recipe(vm_hash.get_record(executable)) == expected
    executable.export_library(tmp_path / "lib.so")
    assert recipe(read_record(tmp_path / "lib.so")) == expected
    library = tvm.runtime.load_module(tmp_path / "lib.so")
    assert recipe(vm_hash.get_record(library)) == expected


def test_weights_apart_are_no_inputs_and_belong_to_no_compilation(tmp_path):
    mod, params = detach_params(imported({"x": (1, 4)}, keep_params_in_input=True))
    vm_hash.save(tvm.compile(mod, "llvm"), tmp_path / "d", params)
    assert recipe(read_record(tmp_path / "d/lib.so")) == said()
    assert recipe(read_record(tmp_path / "d/params.bin")) == [None, None, None]
    shapes = {"shapes": "x:1x4,s:scalar"}
    assert check(model(), tmp_path / "d", require=shapes).status is Status.MATCH
    verdict = check(model(), tmp_path / "d", require={"shapes": "x:8x4,s:scalar"})
    assert verdict.status is Status.MISMATCH
    assert verdict.reason.startswith("'lib.so' has shapes=x:1x4,s:scalar, and")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (None, LLVM),
        (Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"}), "llvm:aarch64-linux-gnu"),
        ("c", "c"),
        ("opencl", f"opencl:{TRIPLE}"),
        (
            Target("opencl", host={"kind": "llvm", "mtriple": "aarch64-linux-gnu"}),
            "opencl:aarch64-linux-gnu",
        ),
    ],
)
def test_targets_are_named_by_kind_and_triple(target, text):
    mod = imported({"x": (1, 4)})
    assert recipe(vm_hash.get_record(tvm.compile(mod, target))) == said(text)
    if target is not None and "opencl" not in text:  # which needs a pipeline of its own there
        with Target(target):
            assert recipe(vm_hash.get_record(tvm.compile(mod))) == said(text)


def test_devices_that_a_module_names_itself_are_targets():
    mod = imported({"x": (1, 4)})
    place = tvm.ir if hasattr(tvm.ir, "VDevice") else relax
    mod.update_global_info("vdevice", [place.VDevice("llvm"), place.VDevice("opencl")])
    record = vm_hash.get_record(tvm.compile(mod, "llvm"))
    assert recipe(record) == said(f"{LLVM},opencl:{TRIPLE}")


def test_the_only_function_stands_for_main():
    mod = imported({"x": (1, 4)})
    main = mod["main"]
    renamed = tvm.IRModule({"run": main.with_attr("global_symbol", "run")}, mod.attrs)
    assert main_function(renamed, relax.Function).same_as(renamed["run"])
    assert recipe(vm_hash.get_record(tvm.compile(renamed, "llvm"))) == said()
    lowered = relax.transform.LegalizeOps()(renamed)
    assert len(lowered.functions) == 3  # with its kernels
    assert main_function(lowered, relax.Function).same_as(lowered["run"])
    several = tvm.IRModule(
        {name: main.with_attr("global_symbol", name) for name in ("a", "b")}, mod.attrs
    )
    assert recipe(vm_hash.get_record(tvm.compile(several, "llvm"))) == said(shapes=None)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (
            Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"}),
            {"library": "lib.tar"},
            "'lib.tar' in .* it is for ELF aarch64, and this process is ELF",
        ),
        ("llvm", {"fcompile": cc.create_staticlib}, "it is a static library, which is linked"),
        ("opencl", {}, "compiled for opencl, whose runtime the running TVM was built without"),
    ],
)
def test_what_would_fail_is_refused_with_the_reason(target, options, message, tmp_path):
    vm_hash.save(tvm.compile(imported({"x": (1, 4)}), target), tmp_path / "d", **options)
    assert check(model(), tmp_path / "d").status is Status.MATCH
    with pytest.raises(UnloadableArtifactError, match=message):
        vm_hash.load(tmp_path / "d", tvm.cpu(), model())


def test_what_is_for_this_machine_is_loaded(tmp_path):
    vm_hash.save(tvm.compile(imported({"x": (8, 4)}), "llvm"), tmp_path / "d")
    vm = vm_hash.load(tmp_path / "d", tvm.cpu(), model())
    x = np.ones((8, 4), "float32")
    inputs = [tvm.runtime.tensor(value) for value in (x, np.array(2, "float32"))]
    np.testing.assert_allclose(vm["main"](*inputs).numpy(), 2 * x + [1, 2, 3, 4])
