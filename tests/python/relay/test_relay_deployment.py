# SPDX-License-Identifier: Apache-2.0
"""Whole deployments on Relay: saved at once, checked before they are loaded, loaded as checked."""

import os
import re
import shutil
import subprocess
import threading

import numpy as np
import onnx.parser
import pytest
import tvm
from conftest import layer, sha256
from tvm import relay
from tvm.runtime import vm_hash
from tvm.runtime.vm import VirtualMachine

from tvm_model_hash import (
    ArtifactError,
    BrokenSealError,
    HashConflictError,
    ModelHashError,
    ModelHashMismatch,
    OutputError,
    Status,
    check,
    integration,
    model_record,
    seal,
    verify_seal,
    write_record,
)

X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)


def compile_model(model):
    mod, params = relay.frontend.from_onnx(model, get_hash=True)
    return relay.vm.compile(mod, "llvm", params=params)


def leaky(alpha):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,16] x) => (float[1,16] y) '
        f"{{ y = LeakyRelu<alpha={alpha}>(x) }}"
    )
    model.graph.node[0].name = "node"
    return model


def run(vm):
    return vm.run(X).numpy()


@pytest.fixture(scope="module")
def executables():
    return {scale: compile_model(layer(scale)) for scale in (1, 2)}


@pytest.mark.parametrize("byte_limit", [None, 256])
@pytest.mark.parametrize("seal", [True, False])
def test_what_was_saved_is_loaded(byte_limit, seal, executables, tmp_path):
    directory = tmp_path / "not" / "yet" / "there"
    expected = run(VirtualMachine(executables[1], tvm.cpu()))
    assert vm_hash.save(executables[1], directory, byte_limit, seal=seal) == str(directory)
    assert ("SHA256SUMS" in os.listdir(directory)) is seal
    assert ("consts" in os.listdir(directory)) is (byte_limit is not None)
    assert check(layer(1), directory).status is Status.MATCH
    vm = vm_hash.load(directory, tvm.cpu(), expected=layer(1))
    np.testing.assert_array_equal(run(vm), expected)
    assert vm.check_hash(layer(1)).status is Status.MATCH
    with pytest.raises(ModelHashMismatch, match="same graph, other weights"):
        vm_hash.load(directory, tvm.cpu(), expected=layer(2))
    # The executable goes on working, and can be saved again.
    np.testing.assert_array_equal(run(VirtualMachine(executables[1], tvm.cpu())), expected)
    assert executables[1].check_hash(layer(1)).status is Status.MATCH


def test_the_librarys_name_and_how_it_is_linked_can_be_chosen(executables, tmp_path):
    vm_hash.save(executables[1], tmp_path / "d", library="net.so", options=["-Wl,-s"])
    symbols = subprocess.run(
        ["nm", tmp_path / "d/net.so"], check=False, text=True, capture_output=True
    )
    assert "no symbols" in symbols.stderr
    np.testing.assert_array_equal(
        run(vm_hash.load(tmp_path / "d", tvm.cpu(), layer(1))),
        run(VirtualMachine(executables[1], tvm.cpu())),
    )
    vm_hash.save(executables[1], tmp_path / "e", library="lib.tar")
    assert check(layer(1), tmp_path / "e").status is Status.MATCH
    np.testing.assert_array_equal(
        run(vm_hash.load(tmp_path / "e", tvm.cpu(), layer(1))),
        run(VirtualMachine(executables[1], tvm.cpu())),
    )


def test_a_deployment_is_replaced_only_if_that_is_asked_for(executables, tmp_path):
    vm_hash.save(executables[1], tmp_path / "d", 256)
    with pytest.raises(OutputError, match="not empty"):
        vm_hash.save(executables[2], tmp_path / "d")
    assert check(layer(1), tmp_path / "d").status is Status.MATCH
    (tmp_path / "d" / "consts").write_bytes((tmp_path / "d" / "consts").read_bytes()[:100])
    vm_hash.save(executables[2], tmp_path / "d", overwrite=True)
    assert check(layer(2), tmp_path / "d").status is Status.MATCH
    assert sorted(os.listdir(tmp_path / "d")) == ["SHA256SUMS", "code.ro", "hash.txt", "lib.so"]
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize(
    "name", ["thesis.txt", "photos/cat.jpg", "link", "trained.npz", "half.json"]
)
def test_what_is_not_of_a_deployment_is_never_replaced(name, executables, tmp_path):
    vm_hash.save(executables[1], tmp_path / "d", 256)
    (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
    if name == "link":
        (tmp_path / "d" / name).symlink_to(tmp_path)
    elif name == "trained.npz":
        np.savez(tmp_path / "d" / name, w=np.ones(3))
    elif name == "half.json":
        (tmp_path / "d" / name).write_text('{"nodes": [')  # as a damaged graph begins
    else:
        (tmp_path / "d" / name).write_text("all there is")
    before = sorted(os.listdir(tmp_path / "d"))
    with pytest.raises(OutputError, match=f"{name}' in it is not of a deployment"):
        vm_hash.save(executables[2], tmp_path / "d", overwrite=True)
    assert sorted(os.listdir(tmp_path / "d")) == before


def test_a_deployment_that_cannot_be_saved_leaves_the_old_one(executables, tmp_path):
    def fcompile(output, objects, **options):
        raise RuntimeError("no linker")

    vm_hash.save(executables[1], tmp_path / "d")
    with pytest.raises(OutputError, match="no linker"):
        vm_hash.save(executables[2], tmp_path / "d", 256, overwrite=True, fcompile=fcompile)
    verify_seal(tmp_path / "d")
    assert check(layer(1), tmp_path / "d").status is Status.MATCH
    assert os.listdir(tmp_path) == ["d"]
    assert executables[2].check_hash(layer(2)).status is Status.MATCH


# Parts of others


@pytest.fixture
def pair(tmp_path):
    """Deployments of two networks with the same names of kernels."""
    for alpha in (0.1, 0.2):
        vm_hash.save(compile_model(leaky(alpha)), tmp_path / str(alpha), seal=False)
    return tmp_path


@pytest.mark.parametrize("name", ["lib.so", "code.ro", "hash.txt"])
def test_a_part_of_another_model_is_refused_and_nothing_is_loaded(name, pair):
    shutil.copy(pair / "0.2" / name, pair / "0.1" / name)
    for model in (leaky(0.1), leaky(0.2)):
        with pytest.raises(ModelHashMismatch, match="different models"):
            vm_hash.load(pair / "0.1", tvm.cpu(), model)
    with pytest.raises(HashConflictError, match="different models"):
        vm_hash.load(pair / "0.1", tvm.cpu(), None)


def test_a_part_of_another_compilation_is_refused(tmp_path):
    for name in "ab":
        vm_hash.save(compile_model(layer()), tmp_path / name, 256, seal=False)
    for name in ("lib.so", "consts"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        shutil.copy(tmp_path / "b" / name, tmp_path / name / name)
        with pytest.raises(ModelHashMismatch, match="two compilations of this model"):
            vm_hash.load(tmp_path / name, tvm.cpu(), layer())
        with pytest.raises(HashConflictError, match="two compilations of this model"):
            vm_hash.load(tmp_path / name, tvm.cpu(), None)


def test_a_part_that_says_nothing_is_refused(pair):
    mod, _ = relay.frontend.from_onnx(leaky(0.1))
    relay.vm.compile(mod, "llvm").lib.export_library(str(pair / "0.1/lib.so"))
    with pytest.raises(ModelHashMismatch, match="'lib.so'"):
        vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))
    with pytest.raises(HashConflictError, match="'lib.so'"):
        vm_hash.load(pair / "0.1", tvm.cpu(), None)


def test_a_sealed_file_that_was_changed_is_refused(executables, tmp_path):
    vm_hash.save(executables[1], tmp_path / "d")
    with open(tmp_path / "d/lib.so", "ab") as file:
        file.write(b"\0")
    with pytest.raises((BrokenSealError, ModelHashMismatch), match="'lib.so' is changed"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer(1))


def test_a_directory_without_anything_to_run_is_refused(executables, tmp_path):
    executables[1].lib.export_library(str(tmp_path / "lib.so"))
    with pytest.raises(ArtifactError, match="expected an executable or a graph, found only"):
        vm_hash.load(tmp_path, tvm.cpu(), layer())


def test_a_single_file_is_loaded(executables, tmp_path):
    executables[1].mod.export_library(str(tmp_path / "net.so"))
    vm = vm_hash.load(tmp_path, tvm.cpu(), layer(1))
    np.testing.assert_array_equal(run(vm), run(VirtualMachine(executables[1], tvm.cpu())))


# What is loaded is what was checked.


def test_files_that_are_exchanged_meanwhile_are_never_loaded_unchecked(pair):
    """Each file is replaced all the time; what is loaded is always of the model, or an error."""
    directory = pair / "both"
    shutil.copytree(pair / "0.1", directory)
    done = threading.Event()

    def exchange():
        alpha = 0
        while not done.is_set():
            alpha = 0.2 if alpha == 0.1 else 0.1
            for name in ("code.ro", "lib.so", "hash.txt"):
                shutil.copy(pair / str(alpha) / name, directory / "new")
                os.replace(directory / "new", directory / name)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(200):
            try:
                vm = vm_hash.load(directory, tvm.cpu(), leaky(0.1))
            except ModelHashError:
                continue
            np.testing.assert_allclose(run(vm)[X < 0], X[X < 0] * 0.1, rtol=1e-6)
    finally:
        done.set()
        thread.join()


def test_a_file_that_is_exchanged_between_the_check_and_the_load_makes_no_difference(
    pair, monkeypatch
):
    load_copy = vm_hash.load.__globals__["load_copy"]

    def exchange_first(path):
        shutil.copy(pair / "0.2/lib.so", pair / "new")
        os.replace(pair / "new", pair / "0.1/lib.so")
        return load_copy(path)

    monkeypatch.setitem(vm_hash.load.__globals__, "load_copy", exchange_first)
    vm = vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))
    np.testing.assert_allclose(run(vm)[X < 0], X[X < 0] * 0.1, rtol=1e-6)
    assert check(leaky(0.1), pair / "0.1").status is Status.MISMATCH  # it was exchanged


def test_libraries_that_are_loaded_one_after_the_other_are_not_mixed_up(pair):
    machines = []
    for _ in range(3):
        for alpha in (0.1, 0.2):
            machines.append((alpha, vm_hash.load(pair / str(alpha), tvm.cpu(), leaky(alpha))))
    for alpha, vm in machines:
        np.testing.assert_allclose(run(vm)[X < 0], X[X < 0] * np.float32(alpha), rtol=1e-6)


def test_a_private_copy_in_a_directory_serves_as_well(pair, monkeypatch):
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path != "/proc/self/fd" and isdir(path))
    vm = vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))
    np.testing.assert_allclose(run(vm)[X < 0], X[X < 0] * 0.1, rtol=1e-6)


def test_errors_name_the_file_and_not_its_copy(pair, monkeypatch):
    path = pair / "0.1/code.ro"
    read_parts = integration.read_parts

    def read_and_cut(files):
        found = read_parts(files)
        path.write_bytes(path.read_bytes()[:100])
        return found

    monkeypatch.setattr(integration, "read_parts", read_and_cut)
    with pytest.raises(ArtifactError, match=re.escape(repr(str(path)))):
        vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))


def test_a_library_outside_of_the_directory_is_refused(pair):
    os.replace(pair / "0.1/lib.so", pair / "elsewhere.so")
    os.symlink("../elsewhere.so", pair / "0.1/lib.so")
    with pytest.raises(ArtifactError, match=r"'lib.so' .* symbolic link .*elsewhere.so"):
        vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))


@pytest.fixture
def other_library(tmp_path):
    (tmp_path / "extra.c").write_text("int extra(void) { return 1; }\n")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", tmp_path / "libextra.so", tmp_path / "extra.c"],
        check=True,
    )
    return tmp_path


@pytest.mark.parametrize("how", ["rpath", "path"])
def test_a_library_that_has_others_loaded_with_it_is_refused(how, other_library, executables):
    needed = other_library / "libextra.so"
    options = {
        "rpath": [f"-L{other_library}", "-Wl,--no-as-needed", "-lextra", "-Wl,-rpath,$ORIGIN"],
        "path": ["-Wl,--no-as-needed", str(needed)],
    }[how]
    vm_hash.save(executables[1], other_library / "d", options=options)
    shutil.copy(needed, other_library / "d/libextra.so")
    with pytest.raises(ArtifactError, match=r"'lib.so' has the library '.*libextra.so' loaded"):
        vm_hash.load(other_library / "d", tvm.cpu(), layer(1))


@pytest.mark.parametrize("how", ["path", "version", "filter"])
def test_a_library_that_is_called_like_one_of_the_system_is_refused(
    how, other_library, executables
):
    """The loader takes what a process has for the very name only, and never for a path."""
    name = {"path": "libm.so.6", "version": "libm.so.7", "filter": "libextra.so"}[how]
    needed = other_library / name
    if how != "filter":
        shutil.copy(other_library / "libextra.so", needed)
    options = {
        "path": ["-Wl,--no-as-needed", str(needed)],
        "version": [f"-L{other_library}", "-Wl,--no-as-needed", f"-l:{name}"],
        "filter": [f"-Wl,-f,{name}"],
    }[how]
    if how != "path":
        options.append("-Wl,-rpath,$ORIGIN")
    vm_hash.save(executables[1], other_library / "d", options=options)
    shutil.copy(needed, other_library / "d")
    with pytest.raises(ArtifactError, match=rf"'lib.so' has the library '.*{name}' loaded"):
        vm_hash.load(other_library / "d", tvm.cpu(), layer(1))


def test_a_path_that_leads_out_of_the_systems_directories_is_refused(other_library, executables):
    way_out = "/usr/lib" + "/.." * 2 + str(other_library / "libextra.so")
    vm_hash.save(executables[1], other_library / "d", options=["-Wl,--no-as-needed", way_out])
    with pytest.raises(ArtifactError, match=r"'lib.so' has the library '/usr/lib/../../.*libextra"):
        vm_hash.load(other_library / "d", tvm.cpu(), layer(1))


def test_a_library_of_the_system_is_not_refused(executables, tmp_path):
    options = ["-Wl,--no-as-needed", "-lm", "-ldl", "-Wl,-rpath,$ORIGIN"]
    vm_hash.save(executables[1], tmp_path / "d", options=options)
    assert run(vm_hash.load(tmp_path / "d", tvm.cpu(), layer(1))).shape == (1, 32)


def test_what_was_loaded_is_asked_for_its_record_at_the_end(pair, monkeypatch):
    other = compile_model(leaky(0.2))
    monkeypatch.setitem(vm_hash.load.__globals__, "_checked_load_exec", lambda code, library: other)
    with pytest.raises(ModelHashMismatch, match="what was loaded"):
        vm_hash.load(pair / "0.1", tvm.cpu(), leaky(0.1))


def test_sealed_parts_without_a_record_are_loaded(pair):
    mod, _ = relay.frontend.from_onnx(leaky(0.1))
    code, lib = relay.vm.compile(mod, "llvm").save()
    directory = pair / "stock"
    directory.mkdir()
    lib.export_library(str(directory / "lib.so"))
    (directory / "code.ro").write_bytes(code)
    write_record(directory / "code.ro", model_record(leaky(0.1)))
    with pytest.raises(ModelHashMismatch, match="'lib.so'"):
        vm_hash.load(directory, tvm.cpu(), leaky(0.1))
    seal(directory)
    vm = vm_hash.load(directory, tvm.cpu(), leaky(0.1))
    np.testing.assert_allclose(run(vm)[X < 0], X[X < 0] * 0.1, rtol=1e-6)
    assert vm.get_hash() == sha256(leaky(0.1))
