# SPDX-License-Identifier: Apache-2.0
"""Kernels carry the record, wherever TVM takes them; parts say which compilation they are of."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import onnx
import onnx.parser
import pytest
import tvm
from conftest import NETWORKS, layer, run_python, sha256
from tvm import relay, rpc
from tvm.contrib import cc
from tvm.runtime import library_hash, vm_hash
from tvm.runtime.vm import Executable, VirtualMachine

from tvm_model_hash import (
    ArtifactError,
    DuplicateRecordError,
    HashConflictError,
    ModelHashMismatch,
    OutputError,
    Record,
    Status,
    check,
    model_record,
    read_record,
)
from tvm_model_hash.artifact.record_module import Engine, c_source, payload

NET = '<ir_version: 8, opset_import: ["" : 13]> g (float[2,3] x) => (float[2,3] y) {{ y = {} }}'
X = -np.ones((2, 3), "float32")


def net(operator="LeakyRelu<alpha=0.1>(x)"):
    model = onnx.parser.parse_model(NET.format(operator))
    model.graph.node[0].name = "node"
    return model


def leaky(alpha):
    """Networks whose kernels have the same names and other constants in them."""
    return net(f"LeakyRelu<alpha={alpha}>(x)")


def compile_model(model, target="llvm", attrs=None, **keywords):
    mod, params = relay.frontend.from_onnx(model, get_hash=True, **keywords)
    for name, value in (attrs or {}).items():
        mod = mod.with_attr(name, value)
    return relay.vm.compile(mod, target, params=params)


def run(vm_exec, x=X):
    return VirtualMachine(vm_exec, tvm.cpu()).run(x).numpy()


def ask(library):
    """What the functions in a library say."""
    names = ("get_model_hash", "get_model_hash_record")
    return tuple(str(library.get_function(name, True)()) for name in names)


def said(record):
    return record.model, str(record)


# Where kernels go, the record goes.


def test_kernels_answer_in_the_process_that_compiled_them():
    vm_exec = compile_model(net())
    record = vm_hash.get_record(vm_exec)
    assert record.with_fields(None) == model_record(net())
    assert ask(vm_exec.lib) == ask(vm_exec.mod) == said(record)
    assert library_hash.get_library_record(vm_exec.mod) == record
    np.testing.assert_allclose(run(vm_exec), X * np.float32(0.1))


@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
@pytest.mark.parametrize("part", ["lib", "mod"])
def test_a_library_answers(name, part, tmp_path):
    vm_exec = compile_model(net())
    expected = run(vm_exec)
    getattr(vm_exec, part).export_library(str(tmp_path / name))
    library = tvm.runtime.load_module(str(tmp_path / name))
    record = vm_hash.get_record(vm_exec)
    assert ask(library) == said(record)
    assert library_hash.get_hash(library) == record.model
    loaded = (
        Executable(library) if part == "mod" else Executable.load_exec(vm_exec.save()[0], library)
    )
    assert loaded.check_hash(net()).status is Status.MATCH
    np.testing.assert_array_equal(run(loaded), expected)


def test_a_static_library_answers_once_it_is_linked(tmp_path):
    vm_exec = compile_model(net())
    vm_exec.lib.export_library(str(tmp_path / "lib.a"), fcompile=cc.create_staticlib)
    link(tmp_path / "lib.so", tmp_path / "lib.a")
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert ask(library) == said(vm_hash.get_record(vm_exec))
    np.testing.assert_array_equal(
        run(Executable.load_exec(vm_exec.save()[0], library)), run(vm_exec)
    )


def link(library, *archives, flags=()):
    whole = ("-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive")
    subprocess.run(["g++", "-shared", "-o", library, *whole, *flags], check=True)


SYSTEM_LIBRARIES = """
import ctypes, sys
import tvm
from tvm.runtime.vm import Executable, VirtualMachine
import numpy
ctypes.CDLL(sys.argv[1] + "/two.so", ctypes.RTLD_GLOBAL)
for prefix in ("first_", "second_"):
    library = tvm.runtime.module.system_lib(prefix)
    with open(sys.argv[1] + "/" + prefix + "code.ro", "rb") as file:
        exe = Executable.load_exec(file.read(), library)
    y = VirtualMachine(exe, tvm.cpu()).run(numpy.full((2, 3), -1, "float32")).numpy()
    print(library.get_function("get_model_hash", True)(), y[0, 0])
    print(library.get_function("get_model_hash_record", True)())
"""


def test_each_of_two_system_libraries_in_one_program_answers_for_itself(tmp_path):
    # Other operators, because the VM's compiler gives kernels no prefix.
    models = {"first_": net(), "second_": net("Neg(x)")}
    records = {}
    for prefix, model in models.items():
        vm_exec = compile_model(model, attrs={"system_lib_prefix": prefix})
        records[prefix] = vm_hash.get_record(vm_exec)
        code, library = vm_exec.save()
        (tmp_path / f"{prefix}code.ro").write_bytes(code)
        library.export_library(str(tmp_path / f"{prefix}.a"), fcompile=cc.create_staticlib)
    link(tmp_path / "two.so", *(tmp_path / f"{prefix}.a" for prefix in models))
    stock = run_python(SYSTEM_LIBRARIES, tmp_path, env={"TVM_MODEL_HASH": "0"}).stdout
    assert stock.split("\n")[:4] == [
        f"{records['first_'].model} -0.1",
        str(records["first_"]),
        f"{records['second_'].model} 1.0",
        str(records["second_"]),
    ]


ASK = """
import sys
sys.modules["tvm_model_hash"] = None
import tvm
library = tvm.runtime.load_module(sys.argv[1])
for name in ("get_model_hash", "get_model_hash_record"):
    print(library.get_function(name, True)())
print(tvm.get_global_func("relay.ir.Call", allow_missing=True) is None)
"""


def test_a_runtime_without_the_compiler_answers(tmp_path):
    vm_exec = compile_model(net())
    vm_exec.lib.export_library(str(tmp_path / "lib.so"))
    env = {"TVM_MODEL_HASH": "0", "TVM_USE_RUNTIME_LIB": "1"}
    printed = run_python(ASK, tmp_path / "lib.so", env=env).stdout
    assert printed.split("\n")[:3] == [*said(vm_hash.get_record(vm_exec)), "True"]


def test_an_uploaded_library_answers_on_the_other_machine(tmp_path):
    vm_exec = compile_model(net())
    vm_exec.lib.export_library(str(tmp_path / "lib.so"))
    # Its code has a record, its library has not.
    stock = relay.vm.compile(relay.frontend.from_onnx(net())[0], "llvm")
    sys.modules["tvm.runtime.relay_vm_hash"]._write_record(stock, model_record(net()))
    server = rpc.Server("127.0.0.1", key="test")
    try:
        session = rpc.connect("127.0.0.1", server.port, key="test")
        session.upload(str(tmp_path / "lib.so"))
        remote = session.load_module("lib.so")
        text = session.get_function("runtime.GetFFIString")
        assert text(remote.get_function("get_model_hash", True)()) == sha256(net())
        with pytest.raises(ArtifactError, match="runtime.GetFFIString"):
            vm_hash.get_hash(remote)
        for executable, status in ((vm_exec, Status.MATCH), (stock, Status.NO_RECORD)):
            executable.mod.export_library(str(tmp_path / f"{status}.so"))
            session.upload(str(tmp_path / f"{status}.so"))
            assert check(net(), session.load_module(f"{status}.so")).status is status
    finally:
        server.terminate()


PLATFORMS = {
    "aarch64-linux-gnu": (b"\x7fELF", b".note.tvm.model_hash"),
    "armv7-linux-gnueabihf -mattr=+neon -mfloat-abi=hard": (b"\x7fELF", b".note.tvm.model_hash"),
    "arm64-apple-macos11": (b"\xcf\xfa\xed\xfe", b"__model_hash\0\0\0\0__TEXT\0"),
    "x86_64-pc-windows-msvc": (b"\x64\x86", b".tvmhash"),
}


@pytest.mark.parametrize("triple", PLATFORMS)
def test_kernels_for_another_platform_carry_it(triple, tmp_path):
    head, place = PLATFORMS[triple]
    vm_exec = compile_model(net(), f"llvm -mtriple={triple}")
    record = vm_hash.get_record(vm_exec)
    assert library_hash.get_library_record(vm_exec.mod) == record
    vm_exec.lib.export_library(str(tmp_path / "lib.tar"))
    with tarfile.open(tmp_path / "lib.tar") as archive:
        files = [archive.extractfile(member).read() for member in archive]
    (made,) = [data for data in files if str(record).encode() in data]
    assert made.startswith(head)
    assert place in made
    assert str(tmp_path).encode() not in made


def test_a_linker_for_another_platform_gets_objects_only(tmp_path):
    seen = []

    def fcompile(output, objects, options=None):
        seen.extend(objects)

    vm_exec = compile_model(net(), "llvm -mtriple=aarch64-linux-gnu")
    vm_exec.lib.export_library(str(tmp_path / "lib.so"), fcompile=fcompile)
    assert {os.path.splitext(path)[1] for path in seen} == {".o"}


@pytest.mark.parametrize("flags", [["-s"], ["-Wl,--gc-sections"], ["-Wl,--version-script=map"]])
def test_the_note_survives_the_linker(flags, tmp_path):
    vm_exec = compile_model(net())
    vm_exec.lib.export_library(str(tmp_path / "lib.a"), fcompile=cc.create_staticlib)
    (tmp_path / "map").write_text("{ global: __tvm_ffi_*; local: *; };")
    flags = [flag.replace("=map", f"={tmp_path / 'map'}") for flag in flags]
    link(tmp_path / "lib.so", tmp_path / "lib.a", flags=flags)
    notes = subprocess.run(
        ["readelf", "-nW", tmp_path / "lib.so"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    record = str(vm_hash.get_record(vm_exec)).encode()
    assert f"tvm-model-hash       0x{len(record):08x}" in notes
    assert record.hex(" ") in notes


def test_kernels_in_c_carry_it_in_c(tmp_path):
    with tvm.transform.PassContext(config={"tir.disable_vectorize": True}):
        vm_exec = compile_model(net(), "c")
    record = vm_hash.get_record(vm_exec)
    assert library_hash.get_library_record(vm_exec.mod) == record
    assert vm_exec.check_hash(net()).status is Status.MATCH
    vm_exec.lib.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert ask(library) == said(record)
    loaded = Executable.load_exec(vm_exec.save()[0], library)
    np.testing.assert_allclose(run(loaded), X * np.float32(0.1))
    vm_exec.lib.export_library(str(tmp_path / "lib.tar"))
    with tarfile.open(tmp_path / "lib.tar") as archive:
        sources = [archive.extractfile(member).read().decode() for member in archive]
    assert c_source(payload(record), Engine.RELAY) in sources


def test_a_byoc_backends_kernels_lie_beside_it(tmp_path):
    text = NET.replace("float[2,3] x)", "float[2,3] x, float[2,3] z)").format("Add(x, z)")
    mod, _ = relay.frontend.from_onnx(onnx.parser.parse_model(text), get_hash=True)
    for one_pass in (
        relay.transform.AnnotateTarget(["ccompiler"]),
        relay.transform.MergeCompilerRegions(),
        relay.transform.PartitionGraph(),
    ):
        mod = one_pass(mod)
    vm_exec = relay.vm.compile(mod, "llvm")
    vm_exec.lib.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert ask(library) == said(vm_hash.get_record(vm_exec))
    loaded = Executable.load_exec(vm_exec.save()[0], library)
    result = VirtualMachine(loaded, tvm.cpu()).run(X, X).numpy()
    np.testing.assert_array_equal(result, X + X)


def test_a_model_that_computes_nothing_carries_it(tmp_path):
    vm_exec = compile_model(net("Identity(x)"))
    vm_exec.lib.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert ask(library) == said(vm_hash.get_record(vm_exec))


def test_code_that_has_no_place_for_a_record_is_warned_of(tmp_path):
    mod, _ = relay.frontend.from_onnx(net())
    code, lib = relay.vm.compile(mod, "llvm").save()
    lib.export_library(str(tmp_path / "lib.so"))
    exe = Executable.load_exec(code, tvm.runtime.load_module(str(tmp_path / "lib.so")))
    with pytest.warns(RuntimeWarning, match="gets no record .* of the kinds library"):
        vm_hash.set_record(exe, model_record(net()))
    verdict = check(net(), exe)
    assert verdict.status is Status.NO_RECORD
    assert "executable's library" in verdict.reason


@pytest.mark.parametrize("executor", ["graph", "aot"])
def test_libraries_of_the_other_executors_carry_it(executor, tmp_path):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    factory = relay.build(mod, "llvm", params=params, executor=relay.backend.Executor(executor))
    record = library_hash.get_library_record(factory.module)
    assert record.with_fields(None) == model_record(layer())
    factory.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    assert ask(library) == said(record)
    assert library_hash.check_hash(library, layer()).status is Status.MATCH
    module = library["default"](tvm.cpu())
    module["set_input"]("x", tvm.nd.array(np.ones((1, 16), "float32")))
    module["run"]()
    expected = run(compile_model(layer()), np.ones((1, 16), "float32"))
    np.testing.assert_allclose(module["get_output"](0).numpy(), expected, rtol=1e-6)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_record_is_replaced_in_code_and_kernels(tmp_path):
    vm_exec = compile_model(net())
    record = Record(sha256(net("Neg(x)")), extra=(("x", 'a"b\\n??=c??/%00'),))
    vm_hash.set_record(vm_exec, record)
    assert vm_hash.get_record(vm_exec) == library_hash.get_library_record(vm_exec.mod) == record
    for name in ("lib.so", "lib.tar"):
        vm_exec.lib.export_library(str(tmp_path / name))
        assert ask(tvm.runtime.load_module(str(tmp_path / name))) == said(record)


def test_libraries_of_two_models_in_one_are_an_error():
    first, second = compile_model(leaky(0.1)), compile_model(leaky(0.2))
    first.lib.import_module(second.lib)
    with pytest.raises(DuplicateRecordError, match="of two models"):
        check(leaky(0.1), first)


@pytest.mark.parametrize("name", ["magika", "squeezenet"])
def test_a_real_networks_kernels_compute_the_same_with_the_record(name, tmp_path):
    network = NETWORKS[name]
    mod, params = relay.frontend.from_onnx(onnx.load(network.path), network.shape)
    stock = relay.vm.compile(mod, "llvm", params=params)
    inputs = network.inputs()
    before = VirtualMachine(stock, tvm.cpu()).run(**inputs)
    vm_hash.set_record(stock, Record(hashlib.sha256(network.path.read_bytes()).hexdigest()))
    code, lib = stock.save()
    lib.export_library(str(tmp_path / "lib.so"))
    loaded = Executable.load_exec(code, tvm.runtime.load_module(str(tmp_path / "lib.so")))
    assert loaded.check_hash(network.path).status is Status.MATCH
    after = VirtualMachine(loaded, tvm.cpu()).run(**inputs)
    for ours, theirs in zip(
        *([r] if hasattr(r, "numpy") else list(r) for r in (after, before)), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


# The compilation


def test_all_parts_of_a_compilation_have_one_build(tmp_path):
    vm_exec = compile_model(layer())
    record = vm_hash.get_record(vm_exec)
    assert len(bytes.fromhex(record.build)) == 16
    vm_exec.move_late_bound_consts(str(tmp_path / "consts"), 256)
    code, lib = vm_exec.save()
    (tmp_path / "code.ro").write_bytes(code)
    lib.export_library(str(tmp_path / "lib.so"))
    library = tvm.runtime.load_module(str(tmp_path / "lib.so"))
    builds = [
        read_record(tmp_path / "code.ro").build,
        read_record(tmp_path / "consts").build,
        library_hash.get_library_record(library).build,
    ]
    assert builds == [record.build] * 3


def test_two_compilations_have_two_builds_also_of_one_module():
    mod, _ = relay.frontend.from_onnx(net(), get_hash=True)
    assert "build" not in mod.attrs["model_hash_record"]
    records = [vm_hash.get_record(relay.vm.compile(mod, "llvm")) for _ in range(2)]
    assert records[0].build != records[1].build
    assert {record.with_fields(None) for record in records} == {model_record(net())}


BUILDS = """
import sys
import onnx, tvm
from tvm import relay
from tvm.runtime import vm_hash
mod, _ = relay.frontend.from_onnx(onnx.load(sys.argv[1]), get_hash=True)
for path in sys.argv[2:]:
    vm_exec = relay.vm.compile(mod, "llvm")
    vm_exec.lib.export_library(path)
    print(vm_hash.get_record(vm_exec).build)
"""


def test_the_environment_fixes_the_builds_of_a_process(tmp_path):
    onnx.save(net(), tmp_path / "model.onnx")
    paths = [tmp_path / f"{i}.so" for i in range(4)]
    env = {"TVM_MODEL_HASH_BUILD": "release 7"}
    first = run_python(BUILDS, tmp_path / "model.onnx", *paths[:2], env=env).stdout.split()
    second = run_python(BUILDS, tmp_path / "model.onnx", *paths[2:], env=env).stdout.split()
    assert (
        first
        == second
        == [hashlib.sha256(f"release 7\0{number}".encode()).hexdigest()[:32] for number in (1, 2)]
    )
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[2] != contents[1] == contents[3]
    env = {"TVM_MODEL_HASH_BUILD": "release 8"}
    other = run_python(BUILDS, tmp_path / "model.onnx", paths[0], env=env).stdout.split()
    assert other[0] not in first


# What does not belong together


@pytest.fixture(scope="module")
def two_models():
    return [compile_model(leaky(alpha)) for alpha in (0.1, 0.2)]


@pytest.fixture(scope="module")
def two_builds():
    """One network, quantized with two scales: equal shapes, other constants in the kernels."""
    model = layer()
    mod, params = relay.frontend.from_onnx(model, freeze_params=False, get_hash=True)
    built = []
    for scale in (8.0, 2.0):
        with relay.quantize.qconfig(
            calibrate_mode="global_scale", global_scale=scale, skip_dense_layer=False
        ):
            built.append(relay.vm.compile(relay.quantize.quantize(mod, params), "llvm"))
    return built


def exchanged(one, other, directory):
    """The code of one executable and the kernels of another."""
    path = str(directory / f"{os.urandom(4).hex()}.so")
    other.lib.export_library(path)
    return one.save()[0], tvm.runtime.load_module(path)


def test_kernels_of_another_model_are_refused(two_models, tmp_path):
    for one, other in (two_models, two_models[::-1]):
        with pytest.raises(ModelHashMismatch, match="code and its library are of two models"):
            Executable.load_exec(*exchanged(one, other, tmp_path))
        assert Executable.load_exec(*exchanged(one, one, tmp_path)).get_hash() == one.get_hash()


def test_kernels_of_another_compilation_are_refused(two_builds, tmp_path):
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    first, second = two_builds
    assert first.get_hash() == second.get_hash() == sha256(layer())
    # It is not for nothing: without the check they load, and compute something else.
    stock = Executable.load_exec.__wrapped__(*exchanged(first, second, tmp_path))
    assert not np.array_equal(run(stock, x), run(first, x))
    for one, other in (two_builds, two_builds[::-1]):
        with pytest.raises(ModelHashMismatch, match="two compilations of this model"):
            Executable.load_exec(*exchanged(one, other, tmp_path))
    # Not compared when it was loaded, it is when it is asked.
    with pytest.raises(ModelHashMismatch, match="two compilations of this model"):
        VirtualMachine(stock, tvm.cpu()).check_hash(layer())


def test_kernels_without_a_record_load_and_pass_no_check(two_models, tmp_path):
    mod, _ = relay.frontend.from_onnx(leaky(0.1))
    exe = Executable.load_exec(*exchanged(two_models[0], relay.vm.compile(mod, "llvm"), tmp_path))
    assert exe.get_hash() == sha256(leaky(0.1))
    for artifact in (exe, VirtualMachine(exe, tvm.cpu()), exe.mod):
        verdict = check(leaky(0.1), artifact)
        assert verdict.status is Status.NO_RECORD
        assert "nothing says which model the executable's library is of" in verdict.reason
    with pytest.raises(ModelHashMismatch, match="executable's library"):
        exe.check_hash(leaky(0.1))
    assert check(leaky(0.2), exe).status is Status.MISMATCH


# Constants


@pytest.fixture
def late(tmp_path):
    """Executables of two fine-tunes as they are loaded, and what binds their constants."""
    loaded, constants = [], []
    for scale in (1, 2):
        vm_exec = compile_model(layer(scale))
        path = str(tmp_path / f"consts{scale}")
        vm_exec.move_late_bound_consts(path, 256)
        with open(path, "rb") as file:
            arrays = relay.load_param_dict(file.read())
        loaded.append(Executable.load_exec(*exchanged(vm_exec, vm_exec, tmp_path)))
        constants.append((path, arrays))
    return loaded, constants


def test_constants_with_the_record_are_compared(late):
    (exe, _), ((path, _), (other, _)) = late
    assert check(layer(), exe).status is Status.NO_RECORD  # they could be anybody's
    with pytest.raises(ModelHashMismatch, match="constants in .*consts2' are of two models"):
        exe.load_late_bound_consts(other)
    exe.load_late_bound_consts(path)
    for artifact in (exe, VirtualMachine(exe, tvm.cpu()), exe.mod):
        assert check(layer(), artifact).status is Status.MATCH
    assert vm_hash.get_record(exe).params == 0


@pytest.mark.parametrize("way", ["map", "function of the module", "file without a record"])
def test_constants_that_were_not_compared_pass_no_check(way, late, tmp_path):
    (exe, _), (_, (path, arrays)) = late
    assert vm_hash.get_record(exe).params == 1
    if way == "map":
        exe.load_late_bound_consts_from_map(dict(arrays))
    elif way == "function of the module":
        exe.mod["load_late_bound_consts"](path)
    else:
        (tmp_path / "stock").write_bytes(relay.save_param_dict(dict(arrays)))
        exe.load_late_bound_consts(str(tmp_path / "stock"))
    assert exe.get_hash() == sha256(layer())
    for artifact in (exe, VirtualMachine(exe, tvm.cpu()), exe.mod):
        verdict = check(layer(), artifact)
        assert verdict.status is Status.NO_RECORD
        assert "nothing says which model 1 constants" in verdict.reason


@pytest.mark.parametrize("way", ["map", "file without a record", "file"])
def test_whoever_writes_out_that_nothing_is_to_be_compared_passes(way, late, tmp_path):
    (exe, _), ((path, arrays), _) = late
    if way == "map":
        exe.load_late_bound_consts_from_map(dict(arrays), check_hash=False)
    else:
        if way != "file":
            path = str(tmp_path / "stock")
            (tmp_path / "stock").write_bytes(relay.save_param_dict(dict(arrays)))
        exe.load_late_bound_consts(path, check_hash=False)
    assert check(layer(), exe).status is Status.MATCH


def test_constants_that_do_not_fit_leave_everything_as_it_was(late):
    (exe, _), ((path, _), _) = late
    with pytest.raises(tvm.TVMError):
        exe.load_late_bound_consts_from_map({}, check_hash=False)
    assert vm_hash.get_record(exe).params == 1
    exe.load_late_bound_consts(path)
    assert check(layer(), exe).status is Status.MATCH


def test_without_the_library_in_cpp_the_same_holds(late, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["tvm.runtime.relay_vm_hash"], "_writer", lambda: None)
    (exe, _), ((path, _), _) = late
    x = np.ones((1, 16), "float32")
    exe.load_late_bound_consts(path)
    assert check(layer(), exe).status is Status.MATCH
    expected = run(exe, x)
    vm_exec = compile_model(layer())
    vm_exec.move_late_bound_consts(str(tmp_path / "again"), 256)
    assert vm_hash.get_record(vm_exec).params == 1
    vm_exec.load_late_bound_consts(str(tmp_path / "again"))
    assert vm_hash.get_record(vm_exec).params == 0
    np.testing.assert_array_equal(run(vm_exec, x), expected)


def test_constants_that_could_not_be_written_stay_where_they_were(tmp_path, monkeypatch):
    def no_space(record):
        raise OSError("no space left")

    vm_exec = compile_model(layer())
    x = np.ones((1, 16), "float32")
    expected = run(vm_exec, x)
    (tmp_path / "consts").write_bytes(b"old")
    monkeypatch.setattr(sys.modules["tvm.runtime.relay_vm_hash"], "trailer", no_space)
    with pytest.raises(OutputError, match="no space left"):
        vm_exec.move_late_bound_consts(str(tmp_path / "consts"), 256)
    assert (tmp_path / "consts").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["consts"]
    assert check(layer(), vm_exec).status is Status.MATCH
    np.testing.assert_array_equal(run(vm_exec, x), expected)


# A process whose files may have 4 KiB, as if the disk were full.
LIMITED = """
import os, resource, signal, sys
import numpy as np, onnx, tvm
from tvm import relay
from tvm.runtime import vm_hash
from tvm.runtime.vm import VirtualMachine
from tvm_model_hash import OutputError
model = onnx.load(sys.argv[1])
mod, _ = relay.frontend.from_onnx(model, get_hash=True)
exe = relay.vm.compile(mod, "llvm")
def run():
    return VirtualMachine(exe, tvm.cpu()).run(np.ones((1, 16), "float32")).numpy()
before = run()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
os.chdir(sys.argv[2])
for write in (lambda: exe.move_late_bound_consts("consts", 256),
              lambda: vm_hash.save(exe, "deployment", 256),
              lambda: vm_hash.save(exe, "deployment")):
    try:
        write()
    except OutputError as error:
        print("refused")
    exe.check_hash(model)
    np.testing.assert_array_equal(run(), before)
print(sorted(os.listdir(".")))
"""


def test_a_full_disk_loses_no_constants(tmp_path):
    onnx.save(layer(), tmp_path / "model.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/consts").write_bytes(b"old")
    result = run_python(LIMITED, tmp_path / "model.onnx", tmp_path / "full")
    assert result.stdout.split("\n")[:4] == ["refused"] * 3 + ["['consts']"]
    assert (tmp_path / "full/consts").read_bytes() == b"old"


def test_constants_that_were_taken_off_have_to_be_compared_when_they_come_back():
    vm_exec = compile_model(layer())
    constants = vm_exec.get_late_bound_consts(256)
    assert vm_hash.get_record(vm_exec).params == 1
    vm_exec.mod["load_late_bound_consts_from_map"](constants)
    assert check(layer(), vm_exec).status is Status.NO_RECORD


# Parameters


def test_the_parameters_know_their_model():
    _, params = relay.frontend.from_onnx(layer(), freeze_params=False, get_hash=True)
    for same in (params, params.copy(), copy.copy(params)):
        assert same.record == model_record(layer())
        assert same["w"].same_as(params["w"])
    # TVM's arrays can't be pickled.
    arrays = type(params)({"w": params["w"].numpy()}, params.record)
    same = pickle.loads(pickle.dumps(arrays))
    assert same.record == model_record(layer())
    np.testing.assert_array_equal(same["w"], params["w"].numpy())
    assert isinstance(params, dict)
    assert not hasattr(relay.frontend.from_onnx(layer(), freeze_params=False)[1], "record")


def compile_by_hand(mod, params):
    compiler = relay.vm.VMCompiler()
    compiler.set_params(params)
    compiler.lower(mod, "llvm")


WAYS = {
    "relay.vm.compile": lambda mod, params: relay.vm.compile(mod, "llvm", params=params),
    "VMCompiler": compile_by_hand,
    "quantize": relay.quantize.quantize,
    "relay.build": lambda mod, params: relay.build(mod, "llvm", params=params),
}


@pytest.mark.parametrize("way", WAYS)
def test_another_models_parameters_are_refused(way):
    imported = [
        relay.frontend.from_onnx(layer(scale), freeze_params=False, get_hash=True)
        for scale in (1, 2)
    ]
    (mod, params), (_, others) = imported
    with pytest.raises(HashConflictError, match="module and the parameters are of two models"):
        WAYS[way](mod, others)
    WAYS[way](mod, params)
    WAYS[way](mod, dict(others))  # of which nothing is known
