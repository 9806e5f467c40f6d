# SPDX-License-Identifier: Apache-2.0
"""The graph executor and the AOT executor: what relay.build returns knows its model."""

import copy
import os
import warnings

import numpy as np
import onnx.parser
import pytest
import tvm
from conftest import layer, run_python, sha256
from tvm import relay, rpc
from tvm.contrib import graph_executor
from tvm.contrib.debugger import debug_executor
from tvm.relay.backend.executor_factory import GraphExecutorFactoryModule
from tvm.runtime import relay_graph_hash, vm_hash
from tvm.runtime.executor import AotModule
from tvm.runtime.params_hash import Params

from tvm_model_hash import (
    ArtifactError,
    HashConflictError,
    ModelHashMismatch,
    NoHashError,
    Record,
    Status,
    check,
    model_record,
    read_record,
    seal,
    verify_seal,
    write_record,
)

X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
EXECUTORS = ["graph", "aot"]
TARGETS = tvm.target.Target.canon_multi_target_and_host("llvm")


def compile_model(model, executor="graph", get_hash=True):
    mod, params = relay.frontend.from_onnx(model, get_hash=get_hash)
    return relay.build(mod, "llvm", params=params, executor=relay.backend.Executor(executor))


def run(module):
    module.set_input("x", X)
    module.run()
    return module.get_output(0).numpy()


@pytest.fixture(scope="module")
def factory():
    return compile_model(layer())


@pytest.fixture(scope="module")
def stock():
    """The same without a hash, and what it computes."""
    made = compile_model(layer(), get_hash=False)
    return made, run(graph_executor.GraphModule(made["default"](tvm.cpu())))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_factory_knows_its_model(executor, tmp_path):
    made = compile_model(layer(), executor)
    assert made.get_hash() == vm_hash.get_hash(made.module) == sha256(layer())
    assert made.check_hash(layer()).status is Status.MATCH
    assert check(layer(), made).status is Status.MATCH
    with pytest.raises(ModelHashMismatch, match="other weights"):
        made.check_hash(layer(2))
    with open(made.save_hash(tmp_path), encoding="ascii") as file:
        assert file.read() == sha256(layer())


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
def test_a_library_that_was_loaded_knows_its_model(executor, name, tmp_path):
    compile_model(layer(), executor).export_library(str(tmp_path / name))
    library = tvm.runtime.load_module(str(tmp_path / name))
    assert vm_hash.get_hash(library) == sha256(layer())
    assert check(layer(), library).status is Status.MATCH
    with pytest.raises(ModelHashMismatch, match="other weights"):
        vm_hash.check_hash(library, layer(2))


def test_all_parts_have_the_record_of_one_compilation(factory, tmp_path):
    factory.get_lib().export_library(str(tmp_path / "lib.so"))
    (tmp_path / "graph.json").write_text(factory.get_graph_json())
    (tmp_path / "params").write_bytes(relay.save_param_dict(factory.get_params()))
    tvm.runtime.save_param_dict_to_file(factory.get_params(), str(tmp_path / "other"))
    parts = [read_record(tmp_path / name) for name in ("lib.so", "graph.json", "params", "other")]
    assert {record.with_fields(None) for record in parts} == {model_record(layer())}
    assert len({record.build for record in parts}) == 1
    assert parts[0].build is not None
    os.remove(tmp_path / "other")
    assert check(layer(), tmp_path).status is Status.MATCH


def test_without_the_record_the_graph_and_the_parameters_are_stock(factory, stock, tmp_path):
    (tmp_path / "graph.json").write_text(factory.get_graph_json())
    (tmp_path / "params").write_bytes(relay.save_param_dict(factory.get_params()))
    expected = stock[0].get_graph_json(), bytes(relay.save_param_dict(stock[0].get_params()))
    record = read_record(tmp_path / "graph.json")
    for name in ("graph.json", "params"):
        write_record(tmp_path / name, None)
    found = (tmp_path / "graph.json").read_text(), (tmp_path / "params").read_bytes()
    # A kernel's name has a hash of the whole module in it.
    assert found == expected
    for name in ("graph.json", "params"):
        write_record(tmp_path / name, record)
    assert (tmp_path / "graph.json").read_text() == factory.get_graph_json()
    assert (tmp_path / "params").read_bytes() == relay.save_param_dict(factory.get_params())


def by_parts(factory, directory):
    directory.mkdir()
    factory.get_lib().export_library(str(directory / "lib.so"))
    return (
        factory.get_graph_json(),
        tvm.runtime.load_module(str(directory / "lib.so")),
        relay.save_param_dict(factory.get_params()),
    )


def loaded(factory, directory, name="lib.so"):
    directory.mkdir()
    factory.export_library(str(directory / name))
    return tvm.runtime.load_module(str(directory / name))


def with_create(factory, directory):
    graph, library, params = by_parts(factory, directory)
    module = graph_executor.create(graph, library, tvm.cpu())
    module.load_params(params)
    return run(module)


def with_debug_create(factory, directory):
    graph, library, params = by_parts(factory, directory)
    module = debug_executor.create(graph, library, tvm.cpu(), str(directory))
    module.load_params(params)
    return run(module)


def with_share_params(factory, directory):
    graph, library, params = by_parts(factory, directory)
    first, second = (graph_executor.create(graph, library, tvm.cpu()) for _ in range(2))
    first.load_params(params)
    second.share_params(first, params)
    return run(second)


def with_set_input(factory, directory):
    graph, library, params = by_parts(factory, directory)
    module = graph_executor.create(graph, library, tvm.cpu())
    module.set_input(**tvm.runtime.load_param_dict(params))
    return run(module)


def without_params_in_the_library(factory, directory):
    directory.mkdir()
    factory["remove_params"]().export_library(str(directory / "lib.so"))
    library = tvm.runtime.load_module(str(directory / "lib.so"))
    module = graph_executor.GraphModule(library["default"](tvm.cpu()))
    module.load_params(relay.save_param_dict(factory.get_params()))
    return run(module)


STOCK_WAYS = {
    "GraphModule": lambda f, d: run(graph_executor.GraphModule(loaded(f, d)["default"](tvm.cpu()))),
    "GraphModule of a tar": lambda f, d: run(
        graph_executor.GraphModule(loaded(f, d, "lib.tar")["default"](tvm.cpu()))
    ),
    "in the process": lambda f, d: run(graph_executor.GraphModule(f["default"](tvm.cpu()))),
    "debug_create": lambda f, d: run(
        debug_executor.GraphModuleDebug(
            loaded(f, d)["debug_create"]("default", tvm.cpu()),
            [tvm.cpu()],
            f.get_graph_json(),
            str(d),
        )
    ),
    "create": with_create,
    "debug executor": with_debug_create,
    "share_params": with_share_params,
    "set_input": with_set_input,
    "remove_params": without_params_in_the_library,
}


@pytest.mark.parametrize("way", STOCK_WAYS)
def test_what_stock_tvm_does_with_it_is_the_same_to_the_bit(way, factory, stock, tmp_path):
    found = STOCK_WAYS[way](factory, tmp_path / "a")
    np.testing.assert_array_equal(found, stock[1])
    np.testing.assert_array_equal(STOCK_WAYS[way](stock[0], tmp_path / "b"), found)


def test_stock_tvm_loads_all_parts(factory, stock, tmp_path):
    by_parts(factory, tmp_path / "d")
    (tmp_path / "d/graph.json").write_text(factory.get_graph_json())
    (tmp_path / "d/params").write_bytes(relay.save_param_dict(factory.get_params()))
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy, tvm; from tvm.contrib import graph_executor\n"
        "d, x, y = sys.argv[1:]\n"
        "m = graph_executor.create(open(d + '/graph.json').read(),"
        " tvm.runtime.load_module(d + '/lib.so'), tvm.cpu())\n"
        "m.load_params(open(d + '/params', 'rb').read())\n"
        "m.set_input('x', numpy.load(x)); m.run()\n"
        "numpy.save(y, m.get_output(0).numpy())\n"
        "assert not hasattr(tvm.runtime.vm.Executable, 'get_hash')"
    )
    environment = {"TVM_MODEL_HASH": "0"}
    run_python(code, tmp_path / "d", tmp_path / "x.npy", tmp_path / "y.npy", env=environment)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), stock[1])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_nothing_changes_without_a_hash(executor, tmp_path):
    made = compile_model(layer(), executor, get_hash=False)
    assert made.get_hash() is None
    assert type(made.get_params()) is dict
    assert made.check_hash.__self__ is made
    assert check(layer(), made).status is Status.NO_RECORD
    with pytest.raises(NoHashError):
        made.save_hash(tmp_path)
    assert os.listdir(tmp_path) == []


# Parts that do not belong together.


def made_of(graph, library, params):
    return GraphExecutorFactoryModule(
        library.ir_mod,
        library.target,
        library.executor,
        graph.get_graph_json(),
        library.get_lib(),
        "default",
        params.get_params(),
        library.function_metadata,
    )


def test_a_factory_with_the_graph_of_another_model_is_told(factory):
    verdict = check(layer(), made_of(compile_model(layer(2)), factory, factory))
    assert verdict.status is Status.MISMATCH
    assert "graph and its library are of two models" in verdict.reason


def test_a_factory_with_the_graph_of_another_compilation_is_told(factory):
    verdict = check(layer(), made_of(compile_model(layer()), factory, factory))
    assert verdict.status is Status.MISMATCH
    assert "graph and its library are of two compilations" in verdict.reason


def test_a_factory_with_a_graph_of_which_nothing_is_known_is_told(factory, stock):
    verdict = check(layer(), made_of(stock[0], factory, factory))
    assert verdict.status is Status.NO_RECORD
    assert "which model the graph is of" in verdict.reason


def test_a_loaded_library_without_its_parameters_is_told(factory, tmp_path):
    factory["remove_params"]().export_library(str(tmp_path / "lib.so"))
    verdict = check(layer(), tvm.runtime.load_module(str(tmp_path / "lib.so")))
    assert verdict.status is Status.NO_RECORD
    assert "1 of the graph's parameters is" in verdict.reason


# Behind RPC.


def test_a_library_behind_rpc_knows_its_model(factory, tmp_path):
    factory.export_library(str(tmp_path / "lib.so"))
    server = rpc.Server("127.0.0.1", key="test")
    try:
        session = rpc.connect("127.0.0.1", server.port, key="test")
        session.upload(str(tmp_path / "lib.so"))
        library = session.load_module("lib.so")
        assert vm_hash.get_hash(library) == sha256(layer())
        assert check(layer(), library).status is Status.MATCH
        with pytest.raises(ModelHashMismatch, match="other weights"):
            vm_hash.check_hash(library, layer(2))
    finally:
        server.terminate()


# Parameters.


def test_parameters_of_an_import_know_their_model_in_a_file(tmp_path):
    _, params = relay.frontend.from_onnx(layer(), freeze_params=False, get_hash=True)
    (tmp_path / "params").write_bytes(relay.save_param_dict(params))
    assert read_record(tmp_path / "params") == model_record(layer())


@pytest.mark.parametrize("same", [Params.copy, copy.copy, lambda params: params])
def test_parameters_that_were_exchanged_say_nothing_of_a_model(same, tmp_path):
    params = same(compile_model(layer()).get_params())
    (tmp_path / "params").write_bytes(relay.save_param_dict(params))
    assert read_record(tmp_path / "params").model == sha256(layer())
    (name,) = params
    params[name] = tvm.nd.array(params[name].numpy() * 2)
    params = same(params)
    (tmp_path / "params").write_bytes(relay.save_param_dict(params))
    assert read_record(tmp_path / "params") is None


def test_a_part_of_the_parameters_is_of_the_model(tmp_path):
    arrays = {name: tvm.nd.array(X) for name in "ab"}
    params = Params(arrays, Record("0" * 64))
    del params["a"]
    (tmp_path / "params").write_bytes(relay.save_param_dict(params))
    assert read_record(tmp_path / "params") == Record("0" * 64)


# What loses a hash says so.


@pytest.mark.parametrize("with_params", [True, False])
def test_a_function_without_its_module_keeps_its_hash(with_params):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        factory = relay.build(mod["main"], "llvm", params=params if with_params else None)
    assert factory.get_hash() == sha256(layer())


def test_a_function_that_lost_its_hash_warns():
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    main = relay.Function(mod["main"].params, mod["main"].body)
    with pytest.warns(RuntimeWarning, match="nothing that is compiled gets a hash"):
        relay.build_module.BuildModule().build(tvm.IRModule.from_expr(main), TARGETS, params=params)


def test_a_build_by_hand_takes_the_hash_along(tmp_path):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph, library, weights = relay.build_module.BuildModule().build(
            mod, TARGETS, params=params
        )
    library.export_library(str(tmp_path / "lib.so"))
    (tmp_path / "graph.json").write_text(graph)
    (tmp_path / "params").write_bytes(relay.save_param_dict(weights))
    assert check(layer(), tmp_path).status is Status.MATCH


# Whole deployments.


@pytest.mark.parametrize("library", ["lib.so", "lib.tar"])
def test_a_deployment_of_a_graph_is_saved_and_loaded(library, factory, stock, tmp_path):
    vm_hash.save(factory, tmp_path / "d", library=library)
    names = {library, "graph.json", "params", "hash.txt", "SHA256SUMS"}
    assert set(os.listdir(tmp_path / "d")) == names
    assert verify_seal(tmp_path / "d")
    for expected in (layer(), sha256(layer()), tmp_path / "d/hash.txt", None):
        module = vm_hash.load(tmp_path / "d", tvm.cpu(), expected)
        assert isinstance(module, graph_executor.GraphModule)
        np.testing.assert_array_equal(run(module), stock[1])


def test_a_deployment_of_aot_is_saved_and_loaded(tmp_path):
    made = compile_model(layer(), "aot")
    vm_hash.save(made, tmp_path / "d")
    assert set(os.listdir(tmp_path / "d")) == {"lib.so", "hash.txt", "SHA256SUMS"}
    expected = run(AotModule(made["default"](tvm.cpu())))
    np.testing.assert_array_equal(run(vm_hash.load(tmp_path / "d", tvm.cpu(), layer())), expected)


def test_a_graph_without_parameters_is_saved_and_loaded(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1,16] x) => (float[1,16] y) '
        "{ y = LeakyRelu<alpha=0.1>(x) }"
    )
    vm_hash.save(compile_model(model), tmp_path / "d")
    assert "params" not in os.listdir(tmp_path / "d")
    found = run(vm_hash.load(tmp_path / "d", tvm.cpu(), model))
    np.testing.assert_allclose(found, np.where(X < 0, X * np.float32(0.1), X), rtol=1e-6)


@pytest.mark.parametrize("params_apart", [False, True])
def test_a_single_library_with_any_name_of_its_model_is_loaded(params_apart, stock, tmp_path):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    made = relay.build(mod, "llvm", params=params, mod_name="other")
    (tmp_path / "d").mkdir()
    if params_apart:
        made["remove_params"]().export_library(str(tmp_path / "d/net.so"))
        (tmp_path / "d/params").write_bytes(relay.save_param_dict(made.get_params()))
    else:
        made.export_library(str(tmp_path / "d/net.so"))
    np.testing.assert_array_equal(run(vm_hash.load(tmp_path / "d", tvm.cpu(), layer())), stock[1])


@pytest.mark.parametrize("part", ["lib.so", "graph.json", "params"])
@pytest.mark.parametrize(
    ("scale", "what"), [(2, "of different models"), (1, "two compilations of this model")]
)
def test_a_part_of_another_deployment_is_refused(part, scale, what, factory, tmp_path):
    vm_hash.save(factory, tmp_path / "d", seal=False)
    vm_hash.save(compile_model(layer(scale)), tmp_path / "other", seal=False)
    os.replace(tmp_path / "other" / part, tmp_path / "d" / part)
    with pytest.raises(ModelHashMismatch, match=what):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    with pytest.raises(HashConflictError, match=what):
        vm_hash.load(tmp_path / "d", tvm.cpu(), None)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_code_of_a_refused_deployment_is_loaded(executor, tmp_path, monkeypatch):
    vm_hash.save(compile_model(layer(), executor), tmp_path / "d")
    loaded = []
    real = relay_graph_hash.load_copy
    monkeypatch.setattr(
        relay_graph_hash, "load_copy", lambda path: (loaded.append(path), real(path))[1]
    )
    with pytest.raises(ModelHashMismatch, match="other weights"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer(2))
    assert loaded == []
    vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    assert len(loaded) == 1


def test_a_graph_that_a_seal_covers_is_loaded(factory, stock, tmp_path):
    vm_hash.save(factory, tmp_path / "d", seal=False)
    write_record(tmp_path / "d/graph.json", None)
    with pytest.raises(ModelHashMismatch, match="'graph.json'"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer())
    seal(tmp_path / "d")
    np.testing.assert_array_equal(run(vm_hash.load(tmp_path / "d", tvm.cpu(), layer())), stock[1])


def test_two_things_to_run_are_refused(factory, tmp_path):
    vm_hash.save(factory, tmp_path / "d", seal=False)
    factory.export_library(str(tmp_path / "d/all.so"))
    with pytest.raises(ArtifactError, match="two parts to be run, 'all.so' and 'graph.json'"):
        vm_hash.load(tmp_path / "d", tvm.cpu(), layer())


def test_what_is_not_known_to_be_of_one_model_is_not_saved(stock, tmp_path):
    made = compile_model(layer())
    with pytest.raises(NoHashError):
        vm_hash.save(stock[0], tmp_path / "d")
    with pytest.raises(ArtifactError, match="byte_limit is for .* a VM executable"):
        vm_hash.save(made, tmp_path / "d", 256)
    with pytest.raises(HashConflictError, match="graph and its library are of two compilations"):
        vm_hash.save(made_of(compile_model(layer()), made, made), tmp_path / "d")
    (name,) = made.get_params()
    made.get_params()[name] = tvm.nd.array(made.get_params()[name].numpy() * 2)
    with pytest.raises(HashConflictError, match="parameters are of: they were exchanged"):
        vm_hash.save(made, tmp_path / "d")
    assert os.listdir(tmp_path) == []
