# SPDX-License-Identifier: Apache-2.0
"""The story: a model's hash goes in at import, travels inside what TVM compiles, and comes out
after loading."""

import hashlib
import inspect
import os
import pathlib
import pydoc
import tarfile

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import tvm
import tvm.contrib.utils
from conftest import NETWORKS, layer, run_python, sha256
from tvm import relay, rpc
from tvm.driver import tvmc
from tvm.ir.module_hash import copy_hash, get_record
from tvm.runtime import library_hash, vm_hash
from tvm.runtime.profiler_vm import VirtualMachineProfiler
from tvm.runtime.vm import Executable, VirtualMachine

import tvm_model_hash
from tvm_model_hash import HashConflictError, InvalidHashError, NoHashError, model_hash
from tvm_model_hash.artifact.vm_header import rewrite_record

TARGET = "llvm"
X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)


def compile_model(model, **kwargs):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True, **kwargs)
    return relay.vm.compile(mod, TARGET)


def outputs(vm, inputs):
    result = vm.run(**inputs)
    results = [result] if hasattr(result, "numpy") else list(result)
    return [array.numpy() for array in results]


@pytest.fixture
def vm_exec(model):
    return compile_model(model)


def test_the_seed_script(model):
    onnx_model, target, dev = model, TARGET, tvm.cpu()
    tmp = tvm.contrib.utils.tempdir()
    path_lib, consts_path = tmp.relpath("lib.so"), tmp.relpath("consts")

    mod, params = relay.frontend.from_onnx(onnx_model, freeze_params=True, get_hash=True)
    vm_exec = relay.vm.compile(mod, target)
    code, lib = vm_exec.save()
    lib.export_library(path_lib)
    with open(tmp.relpath("code.ro"), "wb") as fo:
        fo.write(code)
    vm_exec.move_late_bound_consts(consts_path, byte_limit=256)
    vm_exec.save_hash(tmp)

    loaded_lib = tvm.runtime.load_module(path_lib)
    with open(tmp.relpath("code.ro"), "rb") as fi:
        loaded_code = bytearray(fi.read())
    des_exec = tvm.runtime.vm.Executable.load_exec(loaded_code, loaded_lib)
    with open(tmp.relpath("hash.txt")) as fi:
        written = fi.read()
    expected = hashlib.sha256(onnx_model.SerializeToString()).hexdigest()
    assert des_exec.get_hash() == written == expected
    des_vm = tvm.runtime.vm.VirtualMachine(des_exec, dev)
    assert des_vm.get_hash() == expected
    assert not params
    assert des_vm.run(X).numpy().shape == (1, 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip_of_a_real_network(name, tmp_path):
    import onnxruntime

    network = NETWORKS[name]
    vm_exec = compile_model(onnx.load(network.path), shape=network.shape)
    inputs = network.inputs()
    computed = outputs(VirtualMachine(vm_exec, tvm.cpu()), inputs)
    vm_exec.move_late_bound_consts(str(tmp_path / "consts"), byte_limit=256)
    code, lib = vm_exec.save()
    lib.export_library(str(tmp_path / "lib.so"))
    vm_exec.save_hash(tmp_path)

    des_exec = Executable.load_exec(code, tvm.runtime.load_module(str(tmp_path / "lib.so")))
    des_exec.load_late_bound_consts(str(tmp_path / "consts"))
    file_hash = hashlib.sha256(network.path.read_bytes()).hexdigest()
    assert des_exec.get_hash() == (tmp_path / "hash.txt").read_text() == file_hash
    deployed = outputs(VirtualMachine(des_exec, tvm.cpu()), inputs)
    reference = onnxruntime.InferenceSession(network.path).run(None, inputs)
    for ours, before, theirs in zip(deployed, computed, reference, strict=True):
        np.testing.assert_array_equal(ours, before)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# --- from_onnx ---


def test_from_onnx_stores_the_hash_as_a_string_attribute(model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    assert isinstance(mod.attrs["model_hash"], str)
    assert mod.attrs["model_hash"] == sha256(model) == model_hash(model)


def test_from_onnx_shows_its_keyword(model):
    signature = inspect.signature(relay.frontend.from_onnx)
    parameter = signature.parameters["get_hash"]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert parameter.default is None
    assert next(iter(signature.parameters)) == "model"
    text = pydoc.plain(pydoc.render_doc(relay.frontend.from_onnx))
    assert "get_hash=None" in text.splitlines()[2]
    assert text.index("export_node_renamed_model_path : str") < text.index("get_hash : bool")
    assert text.index("get_hash : bool") < text.index("Returns")
    assert relay.frontend.from_onnx is relay.frontend.onnx.from_onnx


def test_from_onnx_without_the_keyword_gives_what_it_gave(model):
    mod, params = relay.frontend.from_onnx(model, {"x": (1, 16)}, "float32", freeze_params=False)
    assert not mod.attrs
    assert list(params) == ["w"]
    assert "get_hash" in inspect.signature(relay.frontend.from_onnx).parameters


@pytest.mark.parametrize("get_hash", [False, True])
def test_from_onnx_gives_the_errors_it_gave(get_hash):
    unknown = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 15, "x": 1]> g (float[1] x) => (float[1] y) '
        "{ y = x.Unknown(x) }"
    )
    with pytest.raises(tvm.error.OpNotImplemented, match="Unknown"):
        relay.frontend.from_onnx(unknown, get_hash=get_hash)
    with pytest.raises(TypeError, match="model"):
        relay.frontend.from_onnx(get_hash=get_hash)
    with pytest.raises(TypeError, match="nonsense"):
        relay.frontend.from_onnx(unknown, nonsense=1, get_hash=get_hash)


LOOP = """
<ir_version: 8, opset_import: ["" : 15]>
g (float[2] x) => (float[2] y) <int64 n = {3}, bool go = {1}> {
    y = Loop (n, go, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] s) {
        d = Identity(c)
        s = Add(a, a)
    }>
}
"""


def unnamed():
    """Models that the importer changes: it names nodes, and empties the inputs of a loop's body."""
    model = layer()
    model.graph.node[0].ClearField("name")
    empty = layer()
    empty.graph.node[0].name = ""
    return {"no name": model, "empty name": empty, "loop": onnx.parser.parse_model(LOOP)}


@pytest.mark.parametrize("name", ["no name", "empty name", "loop"])
def test_the_model_is_left_as_it_was_so_that_the_hash_is_the_same_the_next_time(name):
    model = unnamed()[name]
    before = model.SerializeToString()
    relay.frontend.onnx.from_onnx.__wrapped__(changed := unnamed()[name])
    assert changed.SerializeToString() != before  # what TVM does
    for _ in range(2):
        mod, _ = relay.frontend.from_onnx(model, get_hash=True)
        assert mod.attrs["model_hash"] == hashlib.sha256(before).hexdigest()
        assert model.SerializeToString() == before


def test_the_model_is_left_as_it_was_by_an_import_that_fails():
    model = unnamed()["no name"]
    node = model.graph.node.add(op_type="Unknown", domain="unknown", input=["y"], output=["z"])
    model.graph.output[0].name = "z"
    before = model.SerializeToString()
    with pytest.raises(tvm.error.OpNotImplemented):
        relay.frontend.from_onnx(model, get_hash=True)
    assert not node.name
    assert model.SerializeToString() == before


def test_a_loop_with_a_hash_computes_what_it_computes():
    vm_exec = compile_model(unnamed()["loop"])
    result = VirtualMachine(vm_exec, tvm.cpu()).run(np.array([1, 2], "float32"))
    np.testing.assert_array_equal(result.numpy(), [8, 16])


def test_a_model_that_only_the_importer_understands_has_its_hash_alone(model):
    del model.opset_import[:]
    model.opset_import.add(domain="unused", version=1)
    before = sha256(model)
    with pytest.warns(RuntimeWarning, match="no digests of graph and weights: .*import"):
        mod, _ = relay.frontend.from_onnx(model, opset=15, get_hash=True)
    found = vm_hash.get_record(relay.vm.compile(mod, TARGET))
    assert (found.model, found.graph, found.weights) == (before, None, None)


def test_a_model_whose_external_data_was_not_loaded_is_refused(model, tmp_path):
    weight = model.graph.initializer[0]
    # In raw_data, because onnx puts nothing else into files.
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    unloaded = onnx.load(path, load_external_data=False)
    with pytest.raises(tvm_model_hash.ExternalDataError, match="tensor 'w' .* was not loaded"):
        relay.frontend.from_onnx(unloaded, get_hash=True)


def test_two_models_have_two_hashes():
    first, second = layer(1), layer(2)
    assert compile_model(first).get_hash() == sha256(first)
    assert compile_model(second).get_hash() == sha256(second)
    assert sha256(first) != sha256(second)


# --- relay.vm.compile ---


def test_the_compiler_used_by_hand_copies_the_hash(model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    compiler = relay.vm.VMCompiler()
    compiler.lower(mod, TARGET)
    compiler.codegen()
    assert compiler.get_exec().get_hash() == sha256(model)
    assert compiler.get_exec().get_hash() == sha256(model)  # and not a second record


def test_a_compiler_without_hash_gives_an_executable_without_hash(model):
    mod, _ = relay.frontend.from_onnx(model)
    vm_exec = relay.vm.compile(mod, TARGET)
    assert vm_exec.get_hash() is None
    assert VirtualMachine(vm_exec, tvm.cpu()).get_hash() is None


def test_tvmc_forwards_the_keyword(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    tvmc_model = tvmc.load(str(tmp_path / "model.onnx"), get_hash=True)
    package = tvmc.compile(
        tvmc_model, TARGET, package_path=str(tmp_path / "package.tar"), use_vm=True
    )
    with tarfile.open(package.package_path) as tar:
        tar.extractall(tmp_path / "package", filter="data")
    loaded = tvm.runtime.load_module(str(next((tmp_path / "package").glob("*.so"))))
    assert vm_hash.get_hash(loaded) == sha256(model)


@pytest.mark.parametrize("value", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "\n", 7])
def test_a_malformed_attribute_is_refused_before_anything_is_compiled(model, value):
    mod, _ = relay.frontend.from_onnx(model)
    value = tvm.tir.IntImm("int32", value) if isinstance(value, int) else value
    with pytest.raises(InvalidHashError, match=r"attribute 'model_hash' is .*64 lowercase"):
        relay.vm.compile(mod.with_attr("model_hash", value), "a target that does not exist")


PASSES = {
    "InferType": relay.transform.InferType(),
    "FoldConstant": relay.transform.FoldConstant(),
    "SimplifyInference": relay.transform.SimplifyInference(),
    "FuseOps": relay.transform.FuseOps(),
    "DynamicToStatic": relay.transform.DynamicToStatic(),
    "ToMixedPrecision": tvm.transform.Sequential(
        [relay.transform.InferType(), relay.transform.ToMixedPrecision("float16")]
    ),
    "ConvertLayout": relay.transform.ConvertLayout({"nn.conv2d": ["NHWC", "default"]}),
    "PartitionGraph": relay.transform.PartitionGraph(),
    "relay.optimize": lambda mod: relay.optimize(mod, TARGET)[0],
    "json": lambda mod: tvm.ir.load_json(tvm.ir.save_json(mod)),
    "quantize": lambda mod: relay.quantize.quantize(mod, {}),
}


@pytest.mark.parametrize("name", PASSES)
def test_the_hash_survives(name, model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    mod = PASSES[name](mod)
    assert mod.attrs["model_hash"] == sha256(model)


# Those that make a new module.
KEEPING_THE_FUNCTION = {
    "AnnotateSpans": relay.transform.AnnotateSpans(),
    "from_expr": lambda mod: tvm.IRModule.from_expr(mod["main"]),
    "text": lambda mod: relay.fromtext(mod.astext()),
    "bind": lambda mod: tvm.IRModule.from_expr(
        relay.build_module.bind_params_by_name(mod["main"], {"x": tvm.nd.array(X)})
    ),
}


@pytest.mark.parametrize("name", KEEPING_THE_FUNCTION)
def test_the_hash_survives_in_the_function(name, model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    made = KEEPING_THE_FUNCTION[name](mod)
    assert not made.attrs or "model_hash" not in made.attrs
    assert get_record(made) == get_record(mod)
    assert relay.vm.compile(made, TARGET).get_hash() == sha256(model)


def test_the_hash_of_a_function_changes_nothing_that_is_compiled(model):
    stock, _ = relay.frontend.from_onnx(model)
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    assert not stock["main"].attrs
    main = mod["main"].without_attr("model_hash").without_attr("model_hash_record")
    tvm.ir.assert_structural_equal(main, stock["main"], map_free_vars=True)
    tvm.ir.assert_structural_equal(
        relay.optimize(tvm.IRModule.from_expr(mod["main"]), TARGET)[0]["main"].body,
        relay.optimize(stock, TARGET)[0]["main"].body,
        map_free_vars=True,
    )


def test_copy_hash_carries_the_hash_over_to_a_new_function(model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    main = mod["main"]
    dropped = tvm.IRModule.from_expr(relay.Function(main.params, main.body))
    assert get_record(dropped) is None
    carried = copy_hash(mod, dropped)
    assert get_record(dropped) is None
    assert get_record(tvm.IRModule.from_expr(carried["main"])) == get_record(mod)
    assert carried.attrs["model_hash"] == sha256(model)
    assert copy_hash(mod, carried).attrs["model_hash"] == sha256(model)
    assert relay.vm.compile(carried, TARGET).get_hash() == sha256(model)


def test_a_record_of_another_model_than_the_hash_is_refused(model):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True)
    with pytest.raises(HashConflictError, match="expected the same"):
        relay.vm.compile(mod.with_attr("model_hash", "0" * 64), TARGET)
    main = mod["main"]
    mod.update_func(mod.get_global_var("main"), main.with_attr("model_hash", "0" * 64))
    with pytest.raises(HashConflictError, match="function 'main'.*expected the same"):
        relay.vm.compile(mod, TARGET)
    mod.update_func(mod.get_global_var("main"), main)
    alone = mod.without_attr("model_hash_record")
    found = vm_hash.get_record(relay.vm.compile(alone, TARGET))
    assert (found.model, found.graph) == (sha256(model), None)


def test_copy_hash_refuses_what_makes_no_sense():
    first, _ = relay.frontend.from_onnx(layer(1), get_hash=True)
    second, _ = relay.frontend.from_onnx(layer(2), get_hash=True)
    without, _ = relay.frontend.from_onnx(layer(1))
    with pytest.raises(HashConflictError, match=sha256(layer(1))):
        copy_hash(first, second)
    with pytest.raises(NoHashError, match="get_hash=True"):
        copy_hash(without, second)


def test_quantize_without_hash_gives_what_it_gave(model):
    mod, params = relay.frontend.from_onnx(model, freeze_params=False)
    assert not relay.quantize.quantize(mod, params).attrs


# --- all forms ---


@pytest.fixture(params=["whole", "late-bound constants"])
def deployment(request, model, tmp_path):
    """Every file of a deployment, with a hash and, from the same executable, without one."""
    late_bound = request.param != "whole"
    mod, _ = relay.frontend.from_onnx(model)
    stock = relay.vm.compile(mod, TARGET)
    for name in ("stock", "hashed"):
        (tmp_path / name).mkdir()
    if late_bound:
        stock.move_late_bound_consts(str(tmp_path / "consts"), byte_limit=256)
    save_all(stock, tmp_path / "stock")
    # The same executable: two compiles differ in heap pointers that TVM serializes.
    save_all(vm_hash.set_record(stock, tvm_model_hash.Record(sha256(model))), tmp_path / "hashed")
    return tmp_path, late_bound


def save_all(vm_exec, directory):
    code, lib = vm_exec.save()
    (directory / "code.ro").write_bytes(code)
    lib.export_library(str(directory / "lib.so"))
    vm_exec.mod.export_library(str(directory / "single.so"))


# What a stock runtime does with each form: no hook, and no trace of this package.
STOCK_RUNTIME = """
import sys
sys.modules["tvm_model_hash"] = None
import numpy, tvm
from tvm.runtime.vm import Executable, VirtualMachine
from tvm.runtime.profiler_vm import VirtualMachineProfiler

directory, late_bound, x, result = sys.argv[1], sys.argv[2] == "True", sys.argv[3], sys.argv[4]
lib = tvm.runtime.load_module(directory + "/lib.so")
with open(directory + "/code.ro", "rb") as file:
    two_files = Executable.load_exec(file.read(), lib)
single_file = Executable(tvm.runtime.load_module(directory + "/single.so"))
assert not hasattr(two_files, "get_hash")
outputs = []
for exe in (two_files, single_file):
    if late_bound:
        exe.load_late_bound_consts(directory + "/../consts")
    outputs.append(VirtualMachine(exe, tvm.cpu()).run(numpy.load(x)).numpy())
    profiler = VirtualMachineProfiler(exe, tvm.cpu())
    outputs.append(profiler.run(numpy.load(x)).numpy())
    profiler.profile(numpy.load(x))
    print(exe.globals, exe.primitive_ops, exe.stats, exe.bytecode.split("#")[0], exe.primitives)
    print(exe.constants, exe.get_function_params("main"))
numpy.save(result, numpy.stack(outputs))
"""


def test_a_stock_runtime_loads_and_runs_every_form(deployment, tmp_path):
    directory, late_bound = deployment
    np.save(tmp_path / "x.npy", X)
    printed = {}
    for name in ("stock", "hashed"):
        printed[name] = run_python(
            STOCK_RUNTIME,
            *(directory / name, late_bound, tmp_path / "x.npy", tmp_path / f"{name}.npy"),
            env={"TVM_MODEL_HASH": "0"},
        ).stdout
    stock, hashed = np.load(tmp_path / "stock.npy"), np.load(tmp_path / "hashed.npy")
    assert stock.shape == (4, 1, 32)
    np.testing.assert_array_equal(stock, hashed)
    assert "main" in printed["stock"]
    assert printed["stock"] == printed["hashed"]


def test_every_form_gives_its_hash(deployment, model):
    directory, late_bound = deployment
    lib = tvm.runtime.load_module(str(directory / "hashed/lib.so"))
    two_files = Executable.load_exec((directory / "hashed/code.ro").read_bytes(), lib)
    single_file = Executable(tvm.runtime.load_module(str(directory / "hashed/single.so")))
    for exe in (two_files, single_file):
        if late_bound:
            exe.load_late_bound_consts(str(directory / "consts"))
        assert exe.get_hash() == sha256(model)
        assert VirtualMachine(exe, tvm.cpu()).get_hash() == sha256(model)
        assert VirtualMachineProfiler(exe, tvm.cpu()).get_hash() == sha256(model)
        assert vm_hash.get_hash(exe.mod) == sha256(model)


def test_what_is_compiled_is_the_same_with_a_hash(deployment, model):
    directory, _ = deployment
    code = (directory / "hashed/code.ro").read_bytes()
    assert rewrite_record(code, None) == (directory / "stock/code.ro").read_bytes()
    kernels = [tvm.runtime.load_module(str(directory / n / "lib.so")) for n in ("stock", "hashed")]
    assert [library_hash.get_hash(lib) for lib in kernels] == [None, sha256(model)]


def test_the_record_of_files_is_read_without_tvm(deployment, model):
    directory, _ = deployment
    printed = run_python(
        "import sys; sys.modules['tvm'] = sys.modules['onnx'] = None\n"
        "from tvm_model_hash.artifact.vm_header import parse_header\n"
        "print(parse_header(open(sys.argv[1], 'rb').read()).record.model)",
        directory / "hashed/code.ro",
    ).stdout
    assert printed.strip() == sha256(model)


def test_a_module_behind_rpc_gives_its_hash(vm_exec, model, tmp_path):
    vm_exec.mod.export_library(str(tmp_path / "single.so"))
    server = rpc.Server("127.0.0.1", key="test")  # a process of its own
    try:
        session = rpc.connect("127.0.0.1", server.port, key="test")
        session.upload(str(tmp_path / "single.so"))
        remote = session.load_module("single.so")
        vm = VirtualMachine(remote, session.cpu())
        assert remote.type_key == "rpc"
        assert vm.get_hash() == vm_hash.get_hash(remote) == sha256(model)
        with pytest.raises(tvm_model_hash.ArtifactError, match="'rpc'"):
            vm_hash.set_record(Executable(remote), tvm_model_hash.Record(sha256(model)))
        expected = VirtualMachine(vm_exec, tvm.cpu()).run(X).numpy()
        x = tvm.nd.array(X, session.cpu())  # the remote machine keeps no reference of its own
        vm.set_input("main", x)
        vm.invoke_stateful("main")
        np.testing.assert_array_equal(vm.get_outputs()[0].numpy(), expected)
    finally:
        server.terminate()


# --- off costs nothing ---


def test_what_is_saved_without_hash_is_what_stock_tvm_saves(model, tmp_path):
    mod, _ = relay.frontend.from_onnx(model)
    vm_exec = relay.vm.compile(mod, TARGET)
    installed = bytes(vm_exec.save()[0])
    vm_exec.mod.export_library(str(tmp_path / "installed.so"))
    tvm_model_hash.uninstall()
    try:
        assert not hasattr(Executable, "get_hash")
        assert bytes(vm_exec.save()[0]) == installed
        vm_exec.mod.export_library(str(tmp_path / "stock.so"))
    finally:
        tvm_model_hash.install()
    assert (tmp_path / "stock.so").read_bytes() == (tmp_path / "installed.so").read_bytes()


# --- hash.txt ---


class Path:
    def __init__(self, path):
        self.path = str(path)

    def __fspath__(self):
        return self.path


@pytest.mark.parametrize("kind", [str, pathlib.Path, Path, "TempDirectory"])
def test_save_hash_takes_any_kind_of_directory(kind, vm_exec, model, tmp_path):
    directory = tvm.contrib.utils.tempdir() if kind == "TempDirectory" else kind(tmp_path)
    path = vm_exec.save_hash(directory)
    where = directory.temp_dir if kind == "TempDirectory" else str(tmp_path)
    assert path == os.path.join(where, "hash.txt")
    with open(path, "rb") as file:
        assert file.read() == sha256(model).encode()
    assert os.listdir(where) == ["hash.txt"]


def test_save_hash_without_hash_writes_nothing(model, tmp_path):
    mod, _ = relay.frontend.from_onnx(model)
    with pytest.raises(NoHashError, match="get_hash=True"):
        relay.vm.compile(mod, TARGET).save_hash(tmp_path)
    assert os.listdir(tmp_path) == []


def test_get_hash_of_what_is_no_artifact_is_refused():
    with pytest.raises(tvm_model_hash.ArtifactError, match="found int"):
        vm_hash.get_hash(7)
