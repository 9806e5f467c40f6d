# SPDX-License-Identifier: Apache-2.0
"""The story on Relax: the hash goes in at import, travels inside the library, and comes out."""

import gc
import inspect
import shutil
import subprocess
import sys
import weakref

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import tvm
from conftest import layer, run_python, sha256
from tvm import relax
from tvm.ir.module_hash import copy_hash, get_record, set_record
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import library_hash, vm_hash

from tvm_model_hash import (
    ArtifactError,
    FixedRecordError,
    HashConflictError,
    InvalidHashError,
    ModelHashMismatch,
    ModelTypeError,
    NoHashError,
    Record,
    RecordError,
    Status,
    check,
    model_record,
    read_artifact,
    read_record,
    write_record,
)
from tvm_model_hash.artifact.carrier import Role
from tvm_model_hash.artifact.record_module import Engine, c_source, payload


def run(vm, x):
    return vm["main"](tvm.runtime.tensor(x)).numpy()


def of_compilation(record):
    """The record of a model in what a compilation makes, less what is the compilation's."""
    assert len(bytes.fromhex(record.build)) == 16
    return record.with_fields(None)


def weights(model):
    return onnx.numpy_helper.to_array(model.graph.initializer[0])


def command(*arguments):
    code = "from tvm_model_hash.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


# The importer


def test_the_importer_stores_the_record_twice(model):
    mod = from_onnx(model, get_hash=True)
    for node in (mod, mod["main"]):
        assert node.attrs["model_hash"] == sha256(model)
        assert node.attrs["model_hash_record"] == str(model_record(model))
    assert get_record(mod) == model_record(model)


def test_the_importer_shows_its_keyword():
    parameter = inspect.signature(from_onnx).parameters["get_hash"]
    assert parameter.kind is parameter.KEYWORD_ONLY
    assert parameter.default is None
    before, _, after = from_onnx.__doc__.partition("\n    get_hash : bool")
    assert "sanitize_input_names" in before
    assert "\n\n    Returns\n" in after


def test_without_the_keyword_the_importer_does_what_it_did(model):
    mod = from_onnx(model, opset=15, keep_params_in_input=True)
    assert get_record(mod) is None
    tvm.ir.assert_structural_equal(
        mod, from_onnx.__wrapped__(model, opset=15, keep_params_in_input=True)
    )


def test_the_importer_takes_models_only(tmp_path, model):
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelTypeError):
        from_onnx(str(tmp_path / "model.onnx"), get_hash=True)


def test_a_model_without_canonical_form_keeps_its_hash():
    model = layer()
    model.graph.node.add(op_type="Relu", input=["y"], output=["y"])  # defines y again
    with pytest.warns(RuntimeWarning, match="the model's hash alone"):
        mod = from_onnx(model, get_hash=True)
    assert get_record(mod) == Record(sha256(model))


# Compilation, export and loading


@pytest.mark.parametrize("build", [tvm.compile, relax.build])
def test_the_executable_answers_in_the_process_that_compiled_it(build, model, tmp_path, x):
    executable = build(from_onnx(model, get_hash=True), "llvm")
    vm = relax.VirtualMachine(executable, tvm.cpu())
    assert executable.get_hash() == vm.get_hash() == sha256(model)
    assert relax.VirtualMachine(executable.mod, tvm.cpu()).get_hash() == sha256(model)
    path = executable.save_hash(tmp_path)
    assert path == str(tmp_path / "hash.txt")
    assert (tmp_path / "hash.txt").read_bytes() == sha256(model).encode()
    assert executable.check_hash(model).status is Status.MATCH
    assert vm.check_hash(path, exact=True).status is Status.MATCH
    with pytest.raises(ModelHashMismatch, match="same graph, other weights"):
        vm.check_hash(layer(2))
    np.testing.assert_allclose(run(vm, x), x @ weights(model), rtol=1e-5)


@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
def test_a_loaded_library_answers(name, exported, model, x):
    library = tvm.runtime.load_module(exported / name)
    assert library.get_function("get_model_hash", True)() == sha256(model)
    record = Record.parse(library.get_function("get_model_hash_record", True)())
    assert of_compilation(record) == model_record(model)
    assert record == vm_hash.get_record(library) == read_record(exported / name)
    assert library_hash.get_hash(library) == sha256(model)
    vm = relax.VirtualMachine(library, tvm.cpu())
    assert vm.get_hash() == relax.VMExecutable(library).get_hash() == sha256(model)
    for artifact in (vm, library, relax.VMExecutable(library)):
        assert check(model, artifact).status is Status.MATCH
    np.testing.assert_allclose(run(vm, x), x @ weights(model), rtol=1e-5)


def test_the_executables_own_module_exports_it_too(model, tmp_path):
    executable = tvm.compile(from_onnx(model, get_hash=True), "llvm")
    executable.mod.export_library(tmp_path / "lib.so")
    assert check(model, tmp_path / "lib.so").status is Status.MATCH


def test_own_addons_and_a_workspace_work_beside_it(model, tmp_path):
    (tmp_path / "user.c").write_text("int user_function = 7;\n")
    (tmp_path / "workspace").mkdir()
    addons = [str(tmp_path / "user.c")]
    executable = tvm.compile(from_onnx(model, get_hash=True), "llvm")
    executable.export_library(
        tmp_path / "lib.so", addons=addons, workspace_dir=str(tmp_path / "workspace")
    )
    assert b"user_function" in (tmp_path / "lib.so").read_bytes()
    assert check(model, tmp_path / "lib.so").status is Status.MATCH


def test_an_executable_is_freed_with_its_record(model):
    executable = tvm.compile(from_onnx(model, get_hash=True), "llvm")
    gone = weakref.ref(executable)
    gc.disable()
    try:
        del executable
        assert gone() is None
    finally:
        gc.enable()


# Without a hash


def test_without_a_hash_there_is_none(stock, tmp_path, model):
    library = tvm.runtime.load_module(stock / "lib.so")
    vm = relax.VirtualMachine(library, tvm.cpu())
    executable = relax.VMExecutable(library)
    assert vm.get_hash() is None
    assert executable.get_hash() is None
    with pytest.raises(NoHashError, match="get_hash=True"):
        executable.save_hash(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelHashMismatch, match="no record"):
        vm.check_hash(model)
    for name in ("lib.so", "lib.tar"):
        assert check(model, stock / name).status is Status.NO_RECORD
        assert read_artifact(stock / name).kind == "Relax VM executable"


def test_without_a_hash_every_byte_is_stock(stock, stock_python, tmp_path):
    code = """
import onnx, tvm
from tvm.relax.frontend.onnx import from_onnx
assert not hasattr(from_onnx, "__wrapped__")
tvm.compile(from_onnx(onnx.load(sys.argv[1])), "llvm").export_library(sys.argv[2])
"""
    onnx.save(layer(), tmp_path / "model.onnx")
    process = stock_python(code, tmp_path / "model.onnx", tmp_path / "lib.so")
    assert process.wait() == 0
    assert (tmp_path / "lib.so").read_bytes() == (stock / "lib.so").read_bytes()


def test_what_is_compiled_is_the_same_with_a_hash(exported, stock, tmp_path):
    files = []
    for directory in (exported, stock):
        unpacked = tmp_path / directory.name
        shutil.unpack_archive(directory / "lib.tar", unpacked, "gztar")
        files.append({path.name: path.read_bytes() for path in unpacked.iterdir()})
    with_hash, without = files
    # One object more, and it is named in the tree of modules.
    assert set(with_hash) - set(without) == {"lib1.o"}
    assert with_hash["lib0.o"] == without["lib0.o"]
    assert set(without) == {"lib0.o", "devc.o"}


# The files, without TVM


@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
def test_the_file_is_read_without_tvm(name, exported, model):
    code = """
import sys
sys.modules.update(tvm=None, tvm_ffi=None, onnx=None, numpy=None)
import tvm_model_hash
print(tvm_model_hash.read_record(sys.argv[1]))
"""
    printed = run_python(code, exported / name).stdout.strip()
    assert of_compilation(Record.parse(printed)) == model_record(model)


@pytest.mark.parametrize(("name", "container"), [("lib.so", "shared library"), ("lib.tar", "tar")])
def test_what_a_file_says_of_itself(name, container, exported, model):
    artifact = read_artifact(exported / name)
    assert (artifact.kind, artifact.container) == ("Relax VM executable", container)
    assert artifact.role is Role.EXECUTABLE
    assert of_compilation(artifact.record) == model_record(model)
    with pytest.raises(FixedRecordError, match="export the library again"):
        write_record(exported / name, artifact.record)


def test_stripping_leaves_the_record(exported, model, tmp_path):
    subprocess.run(["strip", "-o", tmp_path / "lib.so", exported / "lib.so"], check=True)
    assert check(model, tmp_path / "lib.so").status is Status.MATCH


def test_the_record_is_found_by_its_symbol_and_not_by_its_bytes(model, tmp_path):
    # Weights that look like a record, of another model.
    fake = str(model_record(layer(2))).encode()
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.frombuffer(fake, "uint8"), "fake")
    )
    model.graph.node.add(op_type="Identity", input=["fake"], output=["fake_out"], name="identity")
    model.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info("fake_out", onnx.TensorProto.UINT8, [len(fake)])
    )
    executable = tvm.compile(from_onnx(model, get_hash=True), "llvm")
    for name in ("lib.so", "lib.tar"):
        executable.export_library(tmp_path / name)
        assert check(model, tmp_path / name).status is Status.MATCH
    assert fake in (tmp_path / "lib.so").read_bytes()
    # Without a record of its own it has none, whatever the weights say.
    tvm.compile(from_onnx(model), "llvm").export_library(tmp_path / "stock.so")
    assert fake in (tmp_path / "stock.so").read_bytes()
    assert read_record(tmp_path / "stock.so") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"model-hash/1 ", b"model-hash/9 ", "newer"),
        (b"graph=sha256:", b"graph=sha255:", "graph"),
        (b"graph=sha256:", b"graph=sha256\0", "malformed"),
    ],
)
def test_a_malformed_record_in_a_file_is_an_error(exported, tmp_path, old, new, message):
    data = (exported / "lib.so").read_bytes()
    assert old in data
    (tmp_path / "lib.so").write_bytes(data.replace(old, new))
    with pytest.raises(RecordError, match=message):
        read_artifact(tmp_path / "lib.so")


@pytest.mark.parametrize("target", ["llvm", "c"])
@pytest.mark.parametrize("kind", ["awkward", "longest"])
def test_every_record_comes_back(kind, target, tmp_path, model):
    if kind == "awkward":  # characters that C and LLVM have their own ideas about
        record = Record(sha256(model), extra=(("x", 'a"b\\n??=c??/%41'), ("y", "\\")))
    else:
        own = tvm.compile(set_record(from_onnx(model), Record(sha256(model))), target)
        room = 1024 - len(str(vm_hash.get_record(own))) - len(" z=")
        record = Record(sha256(model), extra=(("z", "?" * room),))
    executable = tvm.compile(set_record(from_onnx(model), record), target)
    found = vm_hash.get_record(executable)
    assert of_compilation(found) == record
    assert kind == "awkward" or len(str(found)) == 1024
    # TVM can't load a .tar with C of its own in it.
    for name in ("lib.so",) if target == "c" else ("lib.so", "lib.tar"):
        executable.export_library(tmp_path / name)
        assert read_record(tmp_path / name) == found
        library = tvm.runtime.load_module(tmp_path / name)
        assert library.get_function("get_model_hash_record", True)() == str(found)
        assert library.get_function("get_model_hash", True)() == sha256(model)


def test_a_record_that_gets_too_long_is_told(model):
    room = 1024 - len(str(Record(sha256(model)))) - len(" z=")
    record = Record(sha256(model), extra=(("z", "?" * room),))
    with pytest.raises(RecordError, match="1[0-9]{3} bytes long, more than the limit of 1024"):
        tvm.compile(set_record(from_onnx(model), record), "llvm")


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize(
    ("compiler", "standard"),
    [("gcc", "c99"), ("gcc", "c17"), ("g++", "c++11"), ("g++", "c++20")],
)
def test_the_source_compiles_without_a_warning(engine, compiler, standard, tmp_path, model):
    data = payload(model_record(model), ["a", '"\\?%\n\0'])
    (tmp_path / "record.c").write_text(c_source(data, engine))
    flags = (f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fvisibility=hidden")
    subprocess.run(
        [compiler, *flags, "-shared", "-fPIC", "-o", tmp_path / "lib.so", tmp_path / "record.c"],
        check=True,
    )
    notes = subprocess.run(
        ["readelf", "-nW", tmp_path / "lib.so"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    assert f"tvm-model-hash       0x{len(data):08x}" in notes
    assert data.hex(" ") in notes


# Deployments and the command


def test_a_deployment_is_one_library_and_its_hash(exported, model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    onnx.save(layer(2), tmp_path / "other.onnx")
    deployment = tmp_path / "deployment"
    deployment.mkdir()
    shutil.copy(exported / "lib.so", deployment)
    shutil.copy(exported / "hash.txt", deployment)
    for artifact in (deployment, deployment / "lib.so", exported / "lib.tar"):
        result = command("check", tmp_path / "model.onnx", artifact)
        assert (result.returncode, result.stdout.splitlines()[0]) == (0, "match: same model")
        result = command("check", tmp_path / "other.onnx", artifact)
        assert result.returncode == 1
        assert "same graph, other weights" in result.stdout
    assert command("seal", deployment).returncode == 0
    assert command("check", tmp_path / "model.onnx", deployment).returncode == 0
    (deployment / "hash.txt").write_text(sha256(layer(2)))
    assert command("check", tmp_path / "model.onnx", deployment).returncode == 4


def test_the_command_shows_a_library(exported, model):
    result = command("show", exported / "lib.so")
    assert "Relax VM executable in a shared library" in result.stdout
    assert f"model    {sha256(model)}" in result.stdout


def test_a_model_serialized_differently_is_equivalent(exported, model):
    model.producer_name = "somebody else"
    assert check(model, exported / "lib.so").status is Status.EQUIVALENT
    library = tvm.runtime.load_module(exported / "lib.so")
    assert check(model, library).status is Status.EQUIVALENT


# Attributes


def test_a_malformed_attribute_is_told(model):
    mod = from_onnx(model).with_attr("model_hash", "nonsense")
    with pytest.raises(InvalidHashError, match=r"IRModule's attribute 'model_hash' is 'nonsense'"):
        tvm.compile(mod, "llvm")


def test_attributes_of_two_models_are_a_conflict(model):
    mod = from_onnx(model, get_hash=True)
    mod["main"] = set_record(mod["main"], model_record(layer(2)))
    with pytest.raises(HashConflictError, match=f"{sha256(model)}.*{sha256(layer(2))}"):
        tvm.compile(mod, "llvm")


def test_copy_hash(model):
    with_hash = from_onnx(model, get_hash=True)
    assert get_record(copy_hash(with_hash, from_onnx(model))) == model_record(model)
    with pytest.raises(NoHashError, match="get_hash=True"):
        copy_hash(from_onnx(model), with_hash)


def test_what_is_no_artifact_is_told():
    with pytest.raises(ArtifactError, match="found int"):
        check("0" * 64, 7)
    with pytest.raises(ArtifactError, match="found int"):
        vm_hash.get_record(7)
