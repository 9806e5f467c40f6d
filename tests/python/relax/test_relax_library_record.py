# SPDX-License-Identifier: Apache-2.0
"""The record as one of the compiled modules: it goes where TVM takes them, on every platform."""

import subprocess
import tarfile

import numpy as np
import onnx
import onnx.parser
import pytest
import tvm
from conftest import ROOT, layer, sha256
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import library_hash, vm_hash
from tvm.support import cc

from tvm_model_hash import (
    DuplicateRecordError,
    Record,
    RecordError,
    Status,
    check,
    model_record,
    read_record,
)
from tvm_model_hash.artifact.record_io import read_artifact

NET = '<ir_version: 8, opset_import: ["" : 13]> g (float[2,3] x) => (float[2,3] y) {{ y = {} }}'


def net(operator="LeakyRelu<alpha=0.1>(x)"):
    return onnx.parser.parse_model(NET.format(operator))


def compile_model(model, target="llvm", attrs=None, **keywords):
    mod = from_onnx(model, get_hash=True)
    for name, value in (attrs or {}).items():
        mod = mod.with_attr(name, value)
    return relax.build(mod, target, **keywords)


def llvm(triple, **options):
    return tvm.target.Target({"kind": "llvm", "mtriple": triple, **options})


def run(source):
    vm = relax.VirtualMachine(source, tvm.cpu())
    return vm["main"](tvm.runtime.tensor(np.full((2, 3), -1, "float32"))).numpy()


def said(library):
    names = ("get_model_hash", "get_model_hash_record")
    return tuple(str(library.get_function(name, True)()) for name in names)


def link(library, *archives, flags=()):
    whole = ("-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive")
    subprocess.run(["g++", "-shared", "-o", library, *whole, *flags], check=True)


@pytest.mark.parametrize("mode", ["bytecode", "compiled"])
def test_compiled_code_answers_before_it_is_exported(mode):
    executable = compile_model(net(), exec_mode=mode)
    record = vm_hash.get_record(executable)
    assert said(executable.mod) == (record.model, str(record))
    assert library_hash.get_hash(executable.mod) == sha256(net())
    np.testing.assert_allclose(run(executable), np.full((2, 3), -0.1), rtol=1e-6)


def test_a_static_library_answers_once_it_is_linked(tmp_path):
    executable = compile_model(net())
    executable.export_library(str(tmp_path / "lib.a"), fcompile=cc.create_staticlib)
    assert read_record(tmp_path / "lib.a") == vm_hash.get_record(executable)
    link(tmp_path / "lib.so", tmp_path / "lib.a")
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert said(library)[0] == sha256(net())
    assert check(net(), library).status is Status.MATCH
    np.testing.assert_array_equal(run(library), run(executable))


SYSTEM_LIBRARIES = """
import ctypes
import numpy, tvm
from tvm import relax
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
for prefix in ("first_", "second_"):
    library = tvm.runtime.system_lib(prefix)
    vm = relax.VirtualMachine(library, tvm.cpu())
    y = vm["main"](tvm.runtime.tensor(numpy.full((2, 3), -1, "float32"))).numpy()
    print(library.get_function("get_model_hash", True)(), y[0, 0])
    print(library.get_function("get_model_hash_record", True)())
"""


def test_each_of_two_system_libraries_in_one_program_answers_for_itself(tmp_path, stock_python):
    expected = []
    for prefix, alpha in (("first_", 0.1), ("second_", 0.2)):
        executable = compile_model(
            net(f"LeakyRelu<alpha={alpha}>(x)"),
            llvm("x86_64-linux-gnu"),
            {"system_lib_prefix": prefix},
        )
        record = vm_hash.get_record(executable)
        expected += [f"{record.model} -{alpha}", str(record)]
        executable.export_library(str(tmp_path / f"{prefix}.a"), fcompile=cc.create_staticlib)
        assert read_record(tmp_path / f"{prefix}.a") == record
    link(tmp_path / "two.so", tmp_path / "first_.a", tmp_path / "second_.a")
    process = stock_python(SYSTEM_LIBRARIES, tmp_path / "two.so")
    assert process.stdout.read().splitlines() == expected
    # To the reader of the file they are two models in one library.
    with pytest.raises(DuplicateRecordError):
        read_record(tmp_path / "two.so")


@pytest.mark.parametrize("flags", [["-s"], ["-Wl,--gc-sections"], ["-Wl,--version-script=map"]])
def test_the_record_survives_the_linker(flags, tmp_path):
    executable = compile_model(net())
    executable.export_library(str(tmp_path / "lib.a"), fcompile=cc.create_staticlib)
    (tmp_path / "map").write_text("{ global: __tvm_ffi_*; local: *; };")
    flags = [flag.replace("=map", f"={tmp_path / 'map'}") for flag in flags]
    link(tmp_path / "lib.so", tmp_path / "lib.a", flags=flags)
    assert read_record(tmp_path / "lib.so") == vm_hash.get_record(executable)
    assert said(tvm.runtime.load_module(str(tmp_path / "lib.so")))[0] == sha256(net())


PLATFORMS = {
    "aarch64-linux-gnu": {},
    "armv7-linux-gnueabihf": {"mfloat-abi": "hard", "mattr": ["+neon"]},
    "riscv64-linux-gnu": {"mattr": ["+m", "+a", "+f", "+d", "+c"]},
    "s390x-linux-gnu": {},
    "arm64-apple-macos11": {},
    "arm64-apple-ios14": {},
    "x86_64-pc-windows-msvc": {},
    "x86_64-w64-windows-gnu": {},
    "wasm32-unknown-unknown-wasm": {},
}


@pytest.mark.parametrize("get_hash", [True, False])
def test_a_record_of_one_model_says_nothing_of_another_in_the_same_library(get_hash, tmp_path):
    archives = []
    for prefix, hashed in (("first_", True), ("second_", get_hash)):
        mod = from_onnx(net(), get_hash=hashed).with_attr("system_lib_prefix", prefix)
        archives.append(str(tmp_path / f"{prefix}.a"))
        tvm.compile(mod, "llvm").export_library(archives[-1], fcompile=cc.create_staticlib)
    library = tmp_path / "both.so"
    link(library, *archives)
    if get_hash:
        assert check(net(), library).status is Status.MATCH
    else:
        with pytest.raises(RecordError, match="modules of 2 compilations, and 1 of them with a"):
            check(net(), library)


@pytest.mark.parametrize("triple", PLATFORMS)
def test_a_library_for_another_platform_carries_it(triple, tmp_path):
    executable = compile_model(net(), llvm(triple, **PLATFORMS[triple]))
    record = vm_hash.get_record(executable)
    assert record.with_fields(None) == model_record(net())
    executable.export_library(str(tmp_path / "lib.tar"))
    assert read_record(tmp_path / "lib.tar") == record
    with tarfile.open(tmp_path / "lib.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    (made,) = [name for name, data in files.items() if str(record).encode() in data]
    (tmp_path / "record.o").write_bytes(files[made])
    # It is in its place by itself, and says nothing of the machine that made it.
    assert read_record_of_object(tmp_path / "record.o") == record
    assert str(tmp_path).encode() not in files[made]
    assert b"/tmp" not in files[made]


def read_record_of_object(path):
    """The record of one object, which alone is no library of TVM's."""
    from tvm_model_hash.artifact.library_record import read_carried
    from tvm_model_hash.containers.library import open_library

    with open(path, "rb") as file:
        return read_carried(open_library(file, path.stat().st_size, "object")).record


def test_a_linker_for_another_platform_gets_objects_only(tmp_path):
    seen = []

    def fcompile(output, objects, options=None):
        seen.extend(objects)

    executable = compile_model(net(), llvm("aarch64-linux-gnu"))
    executable.export_library(str(tmp_path / "lib.so"), fcompile=fcompile)
    assert {path.rpartition(".")[2] for path in seen} == {"o"}


@pytest.mark.parametrize("target", ["llvm", "c", None])
def test_a_model_that_computes_nothing_carries_it(target, tmp_path):
    executable = compile_model(net("Identity(x)"), target)
    assert check(net("Identity(x)"), executable).status is Status.MATCH
    executable.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert said(library)[0] == sha256(net("Identity(x)"))
    np.testing.assert_array_equal(run(library), np.full((2, 3), -1))


def test_code_without_a_place_for_a_record_is_warned_of(stock):
    executable = relax.VMExecutable(tvm.runtime.load_module(stock / "lib.so"))
    with pytest.warns(RuntimeWarning, match="gets no record .* VMExecutable, library|library, rel"):
        vm_hash.set_record(executable, model_record(layer()))
    assert executable.get_hash() is None
    assert check(layer(), executable).status is Status.NO_RECORD


def test_a_record_is_replaced(tmp_path):
    executable = compile_model(net())
    record = Record("ab" * 32)
    assert vm_hash.set_record(executable, record, ["w", "ü %"]) is executable
    assert vm_hash.get_record(executable) == record.with_fields(None, 2)
    executable.export_library(str(tmp_path / "lib.so"))
    assert read_artifact(tmp_path / "lib.so").needs == ("w", "ü %")
    assert said(tvm.runtime.load_module(str(tmp_path / "lib.so")))[1] == f"{record} params=2"


def test_libraries_of_two_models_in_one_are_an_error():
    first, second = compile_model(net()), compile_model(layer())
    first.mod.import_module(second.mod)
    with pytest.raises(DuplicateRecordError, match="of two models"):
        check(net(), first)


def test_two_compilations_have_two_builds_also_of_one_module():
    mod = from_onnx(net(), get_hash=True)
    assert "build" not in mod.attrs["model_hash_record"]
    records = [vm_hash.get_record(tvm.compile(mod, "llvm")) for _ in range(2)]
    assert records[0].build != records[1].build
    assert {record.with_fields(None) for record in records} == {model_record(net())}


def test_the_environment_fixes_the_builds_of_a_process(tmp_path, monkeypatch):
    code = """
import sys, onnx, tvm
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash
mod = from_onnx(onnx.load(sys.argv[1]), get_hash=True)
for path in sys.argv[2:]:
    executable = tvm.compile(mod, "llvm")
    executable.export_library(path)
    print(vm_hash.get_record(executable).build)
"""
    from conftest import run_python

    onnx.save(net(), tmp_path / "model.onnx")
    paths = [tmp_path / f"{i}.so" for i in range(4)]
    env = {"TVM_MODEL_HASH_BUILD": "release 7"}
    first = run_python(code, tmp_path / "model.onnx", *paths[:2], env=env).stdout.split()
    second = run_python(code, tmp_path / "model.onnx", *paths[2:], env=env).stdout.split()
    assert first == second
    assert first[0] != first[1]
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[2] != contents[1] == contents[3]


def test_an_exported_library_needs_no_path_of_ours(tmp_path):
    compile_model(net()).export_library(str(tmp_path / "lib.so"))
    data = (tmp_path / "lib.so").read_bytes()
    assert str(ROOT).encode() not in data
    assert b"record.ll" not in data
