# SPDX-License-Identifier: Apache-2.0
"""Whole deployments on Relax, with the weights in the library or in a file of their own."""

import os
import shutil
import subprocess

import numpy as np
import onnx.numpy_helper
import pytest
import safetensors.numpy
import tvm
from conftest import layer, sha256
from tvm import relax
from tvm.contrib import tvmjs
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash

from tvm_model_hash import (
    ArtifactError,
    HashConflictError,
    ModelHashMismatch,
    NoHashError,
    OutputError,
    Status,
    check,
    model_record,
    read_record,
    seal,
    write_record,
)
from tvm_model_hash.artifact.record_io import read_artifact


def build(model, get_hash=True):
    """An executable whose weights lie outside, and the weights."""
    mod = from_onnx(model, keep_params_in_input=True, get_hash=get_hash)
    mod, params = detach_params(mod)
    return relax.build(mod, "llvm"), params


def expected(model, x):
    return x @ onnx.numpy_helper.to_array(model.graph.initializer[0])


def run(vm, x):
    return vm["main"](tvm.runtime.tensor(x)).numpy()


@pytest.fixture(scope="module")
def fine_tunes():
    return {scale: build(layer(scale)) for scale in (1, 2)}


@pytest.fixture
def saved(fine_tunes, tmp_path):
    for scale, (executable, params) in fine_tunes.items():
        vm_hash.save(executable, tmp_path / str(scale), params, seal=False)
    return tmp_path


def test_a_library_says_that_its_weights_lie_outside_and_which(fine_tunes, tmp_path):
    executable, _ = fine_tunes[1]
    assert vm_hash.get_record(executable).params == 1
    executable.export_library(tmp_path / "lib.so")
    assert read_artifact(tmp_path / "lib.so").needs == ("w",)
    library = tvm.runtime.load_module(tmp_path / "lib.so")
    vm = relax.VirtualMachine(library, tvm.cpu())
    for artifact in (executable, library, vm, tmp_path / "lib.so"):
        verdict = check(layer(), artifact)
        assert verdict.status is Status.NO_RECORD
        assert "from outside" in verdict.reason or "needs a tensor" in verdict.reason
        assert check(layer(2), artifact).status is Status.MISMATCH
    assert vm.get_hash() == sha256(layer())
    with pytest.raises(ModelHashMismatch, match="takes from outside"):
        vm.check_hash(layer())


def test_weights_that_are_in_the_library_are_not_missed():
    executable = relax.build(from_onnx(layer(), get_hash=True), "llvm")
    assert vm_hash.get_record(executable).params == 0
    assert executable.check_hash(layer()).status is Status.MATCH
    mod = from_onnx(layer(), keep_params_in_input=True, get_hash=True)
    detached, params = detach_params(mod)
    bound = relax.transform.BindParams("main", dict(zip(["w"], params["main"], strict=True)))
    executable = relax.build(bound(detached), "llvm")
    assert vm_hash.get_record(executable).params == 0


@pytest.mark.parametrize("kind", ["detached", "list", "names"])
def test_what_was_saved_is_loaded_with_its_weights(kind, fine_tunes, tmp_path, x):
    executable, params = fine_tunes[1]
    given = {
        "detached": params,
        "list": params["main"],
        "names": {"w": params["main"][0]},
    }[kind]
    directory = tmp_path / "not/yet/there"
    assert vm_hash.save(executable, directory, params=given) == str(directory)
    assert sorted(os.listdir(directory)) == ["SHA256SUMS", "hash.txt", "lib.so", "params.bin"]
    assert check(layer(), directory).status is Status.MATCH
    vm = vm_hash.load(directory, tvm.cpu(), expected=layer())
    np.testing.assert_allclose(run(vm, x), expected(layer(), x), rtol=1e-5)
    assert vm.get_hash() == sha256(layer())
    assert vm.check_hash(layer()).status is Status.MATCH
    # The other ways to call it.
    vm.set_input("main", tvm.runtime.tensor(x))
    vm.invoke_stateful("main")
    np.testing.assert_array_equal(vm.get_outputs("main").numpy(), run(vm, x))
    vm.set_input("main", x=tvm.runtime.tensor(x))
    vm.invoke_stateful("main")
    np.testing.assert_array_equal(vm.get_outputs("main").numpy(), run(vm, x))
    vm.save_function("main", "saved", tvm.runtime.tensor(x))
    np.testing.assert_array_equal(vm["saved"]().numpy(), run(vm, x))
    # The parameters belong to no compilation.
    assert read_record(directory / "params.bin") == model_record(layer())


def test_weights_in_the_library_need_no_file(tmp_path, x):
    executable = relax.build(from_onnx(layer(), get_hash=True), "llvm")
    vm_hash.save(executable, tmp_path / "d", library="net.so", options=["-Wl,-s"])
    assert sorted(os.listdir(tmp_path / "d")) == ["SHA256SUMS", "hash.txt", "net.so"]
    vm = vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    assert type(vm) is relax.VirtualMachine
    np.testing.assert_allclose(run(vm, x), expected(layer(), x), rtol=1e-5)
    with pytest.raises(ModelHashMismatch, match="same graph, other weights"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer(2))


def test_stock_tvm_loads_the_parameters(saved, stock_python, x):
    code = """
import numpy, tvm
from tvm import relax
vm = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1] + "/lib.so"), tvm.cpu())
params = tvm.runtime.load_param_dict_from_file(sys.argv[1] + "/params.bin")
x = numpy.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
numpy.save(sys.argv[2], vm["main"](tvm.runtime.tensor(x), params["w"]).numpy())
"""
    process = stock_python(code, saved / "1", saved / "y.npy")
    assert process.wait() == 0
    np.testing.assert_allclose(np.load(saved / "y.npy"), expected(layer(), x), rtol=1e-5)


# Other parameters


@pytest.mark.parametrize("name", ["params.bin", "lib.so"])
def test_the_parameters_of_another_fine_tune_are_refused(name, saved):
    shutil.copy(saved / "2" / name, saved / "1" / name)
    for model in (layer(1), layer(2)):
        assert check(model, saved / "1").status is Status.MISMATCH
        with pytest.raises(ModelHashMismatch, match="different models"):
            vm_hash.load(saved / "1", tvm.cpu(), model)
    with pytest.raises(HashConflictError, match="different models"):
        vm_hash.load(saved / "1", tvm.cpu(), None)


@pytest.mark.parametrize("form", ["params.bin", "params.npz"])
def test_parameters_without_a_record_are_refused(form, saved, fine_tunes):
    _, params = fine_tunes[2]
    os.unlink(saved / "1/params.bin")
    if form == "params.bin":
        tensors = {"w": params["main"][0]}
        tvm.runtime.save_param_dict_to_file(tensors, str(saved / "1/params.bin"))
    else:
        np.savez(saved / "1/params.npz", w=params["main"][0].numpy())
    with pytest.raises((ModelHashMismatch, ArtifactError), match=r"'params\.(bin|npz)'"):
        vm_hash.load(saved / "1", tvm.cpu(), layer())


def test_parameters_that_were_tagged_are_loaded(saved, fine_tunes, x):
    _, params = fine_tunes[1]
    path = str(saved / "1/params.bin")
    tvm.runtime.save_param_dict_to_file({"p_0": params["main"][0]}, path)
    write_record(path, model_record(layer()))
    vm = vm_hash.load(saved / "1", tvm.cpu(), layer())
    np.testing.assert_allclose(run(vm, x), expected(layer(), x), rtol=1e-5)


@pytest.mark.parametrize("names", [[], ["v"], ["w", "v"]])
def test_parameters_with_other_names_are_refused(names, saved, fine_tunes):
    executable, params = fine_tunes[1]
    tensors = dict.fromkeys(names, params["main"][0])
    with pytest.raises(HashConflictError, match="needs 1 parameters, 'w'"):
        vm_hash.save(executable, saved / "new", tensors)
    assert not (saved / "new").exists()
    path = str(saved / "1/params.bin")
    tvm.runtime.save_param_dict_to_file(tensors, path)
    write_record(path, model_record(layer()))
    with pytest.raises((ArtifactError, HashConflictError), match="'[wv]'"):
        vm_hash.load(saved / "1", tvm.cpu(), layer())


@pytest.mark.parametrize("kind", ["safetensors", "tensor cache"])
def test_parameters_in_a_format_that_is_not_loaded_are_refused(kind, saved, fine_tunes):
    directory = saved / "1"
    (directory / "params.bin").unlink()
    (weights,) = fine_tunes[1][1]["main"]
    tensors = {"w": weights.numpy()}
    if kind == "safetensors":
        safetensors.numpy.save_file(tensors, directory / "w.safetensors")
    else:
        tvmjs.dump_tensor_cache(tensors, str(directory), show_progress=False)
    seal(directory)
    assert check(layer(1), directory).status is Status.MATCH
    with pytest.raises(ArtifactError, match=f"{kind}, (expected|which is not loaded)"):
        vm_hash.load(directory, tvm.cpu(), layer(1))


def test_a_library_without_its_parameters_is_refused(saved):
    os.unlink(saved / "1/params.bin")
    with pytest.raises(ArtifactError, match="'w' from a file of parameters"):
        vm_hash.load(saved / "1", tvm.cpu(), layer())


def test_parameters_of_several_functions_are_saved_once(tmp_path, x):
    mod = from_onnx(layer(), keep_params_in_input=True, get_hash=True)
    functions = {
        name: mod["main"].with_attr("global_symbol", name) for name in ("prefill", "decode")
    }
    detached, params = detach_params(tvm.IRModule(functions))
    executable = relax.build(detached, "llvm")
    vm_hash.save(executable, tmp_path / "d", params)
    vm = vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    for name in functions:
        y = vm[name](tvm.runtime.tensor(x)).numpy()
        np.testing.assert_allclose(y, expected(layer(), x), rtol=1e-5)


# Saving


def test_an_executable_without_a_hash_is_not_saved(tmp_path):
    executable, params = build(layer(), get_hash=False)
    with pytest.raises(NoHashError, match="get_hash=True"):
        vm_hash.save(executable, tmp_path / "d", params)
    assert not list(tmp_path.iterdir())


def test_a_deployment_is_replaced_only_if_that_is_asked_for(fine_tunes, saved):
    executable, params = fine_tunes[2]
    with pytest.raises(OutputError, match="not empty"):
        vm_hash.save(executable, saved / "1", params)
    assert check(layer(1), saved / "1").status is Status.MATCH
    vm_hash.save(executable, saved / "1", params, overwrite=True)
    assert check(layer(2), saved / "1").status is Status.MATCH
    assert sorted(os.listdir(saved)) == ["1", "2"]


# What is loaded is what was checked.


def test_files_that_are_exchanged_after_the_check_make_no_difference(saved, monkeypatch, x):
    load_copy = vm_hash.load.__globals__["load_copy"]

    def exchange_first(path):
        for name in ("lib.so", "params.bin"):
            shutil.copy(saved / "2" / name, saved / "new")
            os.replace(saved / "new", saved / "1" / name)
        return load_copy(path)

    monkeypatch.setitem(vm_hash.load.__globals__, "load_copy", exchange_first)
    vm = vm_hash.load(saved / "1", tvm.cpu(), layer())
    np.testing.assert_allclose(run(vm, x), expected(layer(), x), rtol=1e-5)
    assert check(layer(), saved / "1").status is Status.MISMATCH  # they were exchanged


def test_libraries_that_are_loaded_one_after_the_other_are_not_mixed_up(saved, x):
    machines = [(s, vm_hash.load(saved / str(s), tvm.cpu(), layer(s))) for s in (1, 2, 1, 2)]
    for scale, vm in machines:
        np.testing.assert_allclose(run(vm, x), expected(layer(scale), x), rtol=1e-5)


@pytest.mark.parametrize("library", ["lib.so", "lib.tar"])
def test_a_private_copy_in_a_directory_serves_as_well(
    library, fine_tunes, tmp_path, monkeypatch, x
):
    executable, params = fine_tunes[1]
    vm_hash.save(executable, tmp_path / "d", params, library=library)
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/proc/self/fd" and isdir(path))
    vm = vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    np.testing.assert_allclose(run(vm, x), expected(layer(), x), rtol=1e-5)


def test_a_library_that_has_others_loaded_with_it_is_refused(fine_tunes, tmp_path):
    (tmp_path / "extra.c").write_text("int extra(void) { return 1; }\n")
    needed = tmp_path / "libextra.so"
    command = ["gcc", "-shared", "-fPIC", "-o", needed, tmp_path / "extra.c"]
    subprocess.run(command, check=True)
    executable, params = fine_tunes[1]
    options = [f"-L{tmp_path}", "-Wl,--no-as-needed", "-lextra", "-Wl,-rpath,$ORIGIN"]
    vm_hash.save(executable, tmp_path / "d", params, options=options)
    shutil.copy(needed, tmp_path / "d")
    with pytest.raises(ArtifactError, match="'lib.so' has the library 'libextra.so' loaded"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer())


def test_what_was_loaded_is_asked_for_its_record_at_the_end(fine_tunes, saved, monkeypatch):
    other = fine_tunes[2][0].mod
    monkeypatch.setitem(vm_hash.load.__globals__, "load_copy", lambda path: other)
    with pytest.raises(ModelHashMismatch, match="what was loaded"):
        vm_hash.load(saved / "1", tvm.cpu(), layer())
