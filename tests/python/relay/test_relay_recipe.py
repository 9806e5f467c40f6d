# SPDX-License-Identifier: Apache-2.0
"""How a model was compiled: each part says it, a check compares it, and load refuses what fails."""

import shutil
from collections import ChainMap

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relay
from tvm.contrib import cc
from tvm.ir.recipe_hash import main_function, record_of_compilation, relay_targets
from tvm.runtime import vm_hash

from tvm_model_hash import (
    BrokenSealError,
    ModelHashMismatch,
    Status,
    UnloadableArtifactError,
    check,
    integration,
    read_record,
    seal,
)

# A batch of any size, a scalar, and a weight.
TEXT = """
<ir_version: 8, opset_import: ["" : 15]>
g (float[N, 4] x, float s) => (float[N, 4] y) <float[4] w = {1, 2, 3, 4}> {
    h = Mul(x, s)
    y = Add(h, w)
}
"""
TRIPLE = tvm.target.codegen.llvm_get_system_triple()


def model():
    made = onnx.parser.parse_model(TEXT)
    for node in made.graph.node:
        node.name = node.op_type
    return made


def imported(shape=None, freeze_params=False):
    return relay.frontend.from_onnx(model(), shape, freeze_params=freeze_params, get_hash=True)


def compile_vm(shape=None, target="llvm", freeze_params=False):
    mod, params = imported(shape, freeze_params)
    return relay.vm.compile(mod, target, params=params)


def recipe(record):
    return {key: record.field(key) for key in ("tvm", "target", "shapes")}


def expected(**fields):
    found = {"tvm": tvm.__version__, "target": f"llvm:{TRIPLE}", "shapes": "x:1x4,s:scalar"}
    return dict(ChainMap(fields, found))


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """One model, compiled for inputs of two sizes, with a constant that is bound late."""
    root = tmp_path_factory.mktemp("batches")
    for rows in (1, 8):
        exe = compile_vm({"x": (rows, 4)}, freeze_params=True)
        vm_hash.save(exe, root / str(rows), byte_limit=8, seal=False)
    return root


def test_each_part_of_a_virtual_machine_says_how_it_was_compiled(batches):
    for rows in (1, 8):
        records = {
            path.name: recipe(read_record(path))
            for path in (batches / str(rows)).iterdir()
            if path.name != "hash.txt"
        }
        said = expected(shapes=f"x:{rows}x4,s:scalar")
        assert records == {"code.ro": said, "lib.so": said, "consts": said}


def test_each_part_of_a_graph_says_how_it_was_compiled(tmp_path):
    mod, params = imported({"x": (1, 4)})
    # Given separately, the weights are no inputs.
    factory = relay.build(mod, "llvm", params=params)
    vm_hash.save(factory, tmp_path / "d")
    for name in ("graph.json", "lib.so", "params"):
        assert recipe(read_record(tmp_path / "d" / name)) == expected(), name
    # Without them they are.
    with tvm.target.Target("c"):
        factory = relay.build(mod)
    found = recipe(vm_hash.get_record(factory.module))
    assert found == expected(target="c", shapes="x:1x4,s:scalar,w:4")


def test_aot_says_how_it_was_compiled(tmp_path):
    mod, params = imported({"x": (1, 4)})
    factory = relay.build(mod, "llvm", params=params, executor=relay.backend.Executor("aot"))
    factory.export_library(str(tmp_path / "lib.so"))
    assert recipe(read_record(tmp_path / "lib.so")) == expected()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a53", "llvm:aarch64-linux-gnu"),
        ("opencl", f"opencl:{TRIPLE}"),
        (tvm.target.Target("opencl", host="llvm -mtriple=armv7-linux"), "opencl:armv7-linux"),
        ({"opencl": "opencl", "cpu": "llvm -mtriple=a-b"}, "llvm:a-b,opencl:a-b"),
        ("c", "c"),
    ],
)
def test_targets_are_named_by_kind_and_triple(target, text):
    record = tvm.ir.module_hash.get_record(imported()[0])
    made = record_of_compilation(record, relay_targets(target, None), None)
    assert recipe(made) == expected(target=text, shapes=None)


def test_a_host_that_is_given_apart_counts():
    (target,) = relay_targets("opencl", "llvm -mtriple=a-b")
    assert target.host.attrs["mtriple"] == "a-b"
    assert relay_targets(None, "llvm") == []


def test_dynamic_sizes_stand_as_such():
    assert recipe(vm_hash.get_record(compile_vm())) == expected(shapes="x:?x4,s:scalar")


def test_what_is_no_tensor_and_a_model_without_inputs():
    record = tvm.ir.module_hash.get_record(imported()[0])
    pair = relay.Var("p", relay.TupleType([relay.TensorType([1]), relay.TensorType([2])]))
    unknown = relay.Var("q")
    for variables, shapes in (([pair, unknown], "p:any,q:any"), ([], "none")):
        mod = tvm.IRModule.from_expr(relay.Function(variables, relay.const(1)))
        made = record_of_compilation(
            record, [tvm.target.Target("c")], main_function(mod, relay.Function)
        )
        assert recipe(made) == expected(target="c", shapes=shapes)


def test_shapes_too_long_for_a_record_have_a_digest():
    rows = ", ".join(f"float[1] {'x' * 50}{i}" for i in range(5))
    text = f'<ir_version: 8, opset_import: ["" : 15]> g ({rows}) => (float[1] y) '
    made = onnx.parser.parse_model(text + "{ y = Relu(" + "x" * 50 + "0) }")
    made.graph.node[0].name = "relu"
    mod, params = relay.frontend.from_onnx(made, get_hash=True)
    record = vm_hash.get_record(relay.vm.compile(mod, "llvm", params=params))
    assert record.field("shapes").startswith("sha256:")
    full = ",".join(f"{'x' * 50}{i}:1" for i in range(5))
    exe_check = check(made, relay.vm.compile(mod, "llvm"), require={"shapes": full})
    assert exe_check.status is Status.MATCH


def test_what_is_required_is_compared_with_each_part(batches, tmp_path):
    one = {"shapes": "x:1x4,s:scalar", "target": "llvm", "tvm": tvm.__version__}
    for rows, status in ((1, Status.MATCH), (8, Status.MISMATCH)):
        directory = batches / str(rows)
        assert check(model(), directory).status is Status.MATCH
        verdict = check(model(), directory, require=one)
        assert verdict.status is status
    assert verdict.reason == (
        "'code.ro' has shapes=x:8x4,s:scalar, and shapes=x:1x4,s:scalar is required"
    )
    with pytest.raises(ModelHashMismatch, match="is required"):
        verdict.require()
    # A part that computes and says nothing.
    shutil.copytree(batches / "1", tmp_path / "d")
    mod, params = relay.frontend.from_onnx(model(), {"x": (1, 4)}, freeze_params=True)
    relay.vm.compile(mod, "llvm", params=params).lib.export_library(str(tmp_path / "d/lib.so"))
    seal(tmp_path / "d")
    assert check(model(), tmp_path / "d").status is Status.MATCH
    verdict = check(model(), tmp_path / "d", require=one)
    assert verdict.status is Status.NO_RECORD
    assert verdict.reason.startswith("'lib.so' does not say its 'shapes'")


def test_parts_of_one_build_that_were_compiled_differently_are_told(tmp_path, monkeypatch):
    # As two processes of a pipeline that forgot to give another text.
    monkeypatch.setenv("TVM_MODEL_HASH_BUILD", "release")
    for rows in (1, 8):
        monkeypatch.setattr(integration, "_compilations", iter([1]))
        vm_hash.save(compile_vm({"x": (rows, 4)}, freeze_params=True), tmp_path / str(rows))
    ones = [tmp_path / str(rows) / "code.ro" for rows in (1, 8)]
    assert len({read_record(path).build for path in ones}) == 1
    (tmp_path / "1/SHA256SUMS").unlink()
    shutil.copy(tmp_path / "8/lib.so", tmp_path / "1")
    verdict = check(model(), tmp_path / "1")
    assert verdict.status is Status.MISMATCH
    assert "two compilations of this model" in verdict.reason


def with_version(directory, version):
    path = directory / "code.ro"
    data = path.read_bytes()
    own = tvm.__version__.encode()
    assert data[16 : 16 + len(own)] == own
    path.write_bytes(data[:16] + version.encode() + data[16 + len(own) :])


def test_code_of_another_tvm_is_refused_with_the_reason(batches, tmp_path):
    directory = shutil.copytree(batches / "1", tmp_path / "d")
    with_version(directory, "0.18.0")
    assert check(model(), directory).status is Status.MATCH
    with pytest.raises(UnloadableArtifactError, match="'code.ro' in .* TVM 0.18.0 wrote it, and"):
        vm_hash.load(directory, tvm.cpu(), model())
    # As it would without us, and then with the kernels loaded.
    library = tvm.runtime.load_module(str(directory / "lib.so"))
    with pytest.raises(tvm.TVMError):
        tvm.runtime.vm.Executable.load_exec((directory / "code.ro").read_bytes(), library)


def test_kernels_for_another_machine_are_refused_with_the_reason(tmp_path):
    exe = compile_vm({"x": (1, 4)}, "llvm -mtriple=aarch64-linux-gnu")
    vm_hash.save(exe, tmp_path / "d", library="lib.tar")
    assert check(model(), tmp_path / "d").status is Status.MATCH
    with pytest.raises(UnloadableArtifactError, match="'lib.tar' in .* it is for ELF aarch64, and"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), model())
    # What is wrong with the files goes before.
    (tmp_path / "d/lib.tar").write_bytes((tmp_path / "d/lib.tar").read_bytes() + bytes(512))
    with pytest.raises((ModelHashMismatch, BrokenSealError)):
        vm_hash.load(tmp_path / "d", tvm.cpu(), model())


def test_a_static_library_is_refused_with_the_reason(tmp_path):
    vm_hash.save(
        compile_vm({"x": (1, 4)}),
        tmp_path / "d",
        library="lib.a",
        fcompile=cc.create_staticlib,
    )
    with pytest.raises(UnloadableArtifactError, match="it is a static library, which is linked"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), model())


def test_code_for_a_device_that_tvm_does_not_know_is_refused_with_the_reason(tmp_path):
    assert not tvm.runtime.enabled("opencl")
    vm_hash.save(compile_vm({"x": (1, 4)}, "opencl"), tmp_path / "vm")
    mod, params = imported({"x": (1, 4)})
    vm_hash.save(relay.build(mod, "opencl", params=params), tmp_path / "graph")
    for name in ("vm", "graph"):
        assert check(model(), tmp_path / name, require={"target": "opencl"}).ok
        with pytest.raises(UnloadableArtifactError, match="compiled for opencl, whose runtime the"):
            vm_hash.load(tmp_path / name, tvm.cpu(), model())


def test_what_is_unknown_is_tried(tmp_path):
    # With several kinds of targets nothing need be on the device, as here.
    targets = {"cpu": tvm.target.Target("llvm"), "cuda": tvm.target.Target("cuda")}
    vm_hash.save(compile_vm({"x": (8, 4)}, targets), tmp_path / "both")
    assert recipe(read_record(tmp_path / "both/code.ro"))["target"].startswith("cuda:")
    vm = vm_hash.load(tmp_path / "both", tvm.cpu(), model())
    x = np.ones((8, 4), "float32")
    np.testing.assert_allclose(vm.run(x, np.array(2, "float32")).numpy(), 2 * x + [1, 2, 3, 4])
