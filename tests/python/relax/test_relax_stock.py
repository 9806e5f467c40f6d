# SPDX-License-Identifier: Apache-2.0
"""A TVM without this package loads and runs our libraries, and answers, in Python, RPC and C++."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx.helper
import onnx.numpy_helper
import pytest
import tvm
from conftest import ROOT, layer, run_command, servers, sha256
from tvm import relax, rpc
from tvm.relax.frontend.onnx import from_onnx

from tvm_model_hash import check

RUN = """
import json, os
import numpy as np
import tvm
from tvm import relax
assert not hasattr(relax.VirtualMachine, "get_hash")
library = tvm.runtime.load_module(sys.argv[1])
vm = relax.VirtualMachine(library, tvm.cpu())
x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
print(json.dumps([
    library.get_function("get_model_hash", True)(),
    library.get_function("get_model_hash_record", True)(),
    vm.module.get_function("get_model_hash", True)(),
    vm["main"](tvm.runtime.tensor(x)).numpy().tolist(),
]))
"""

SERVER = """
from tvm import rpc
server = rpc.Server("127.0.0.1", port=19090, port_end=29090)
print(server.port, flush=True)
sys.stdin.read()
server.terminate()
"""


def reference(x):
    return x @ onnx.numpy_helper.to_array(layer().graph.initializer[0])


@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
def test_a_stock_python_runs_it_and_answers(name, exported, stock_python, x):
    process = stock_python(RUN, exported / name)
    output = process.stdout.read()
    assert process.wait() == 0
    library_hash, record, vm_hash, y = json.loads(output)
    assert library_hash == vm_hash == sha256(layer())
    assert record.startswith(f"model-hash/1 model=sha256:{sha256(layer())} graph=")
    np.testing.assert_allclose(y, reference(x), rtol=1e-5)


@pytest.mark.parametrize("name", ["lib.so", "lib.tar"])
def test_a_stock_rpc_server_runs_it_and_answers(name, exported, stock, stock_python, tmp_path):
    server = stock_python(SERVER)
    session = rpc.connect("127.0.0.1", int(server.stdout.readline()))
    shutil.copy(exported / name, tmp_path / f"ours{name}")
    shutil.copy(stock / name, tmp_path / f"stock{name}")
    for path in tmp_path.iterdir():
        session.upload(str(path))
    library = session.load_module(f"ours{name}")
    assert library.get_function("get_model_hash", True)() == sha256(layer())
    assert library.get_function("get_model_hash_record", True)().startswith("model-hash/1 ")
    vm = relax.VirtualMachine(library, session.cpu())
    assert vm.get_hash() == sha256(layer())
    assert check(layer(), library).ok
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    vm.set_input("main", tvm.runtime.tensor(x, session.cpu()))
    vm.invoke_stateful("main")
    np.testing.assert_allclose(vm.get_outputs("main").numpy(), reference(x), rtol=1e-5)
    without = session.load_module(f"stock{name}")
    assert relax.VirtualMachine(without, session.cpu()).get_hash() is None


def test_the_command_asks_a_stock_rpc_server(exported, stock, tmp_path):
    (tmp_path / "model.onnx").write_bytes(layer().SerializeToString())
    with servers() as start:
        address = f"127.0.0.1:{start('server')}"
        for model, path, status, line in (
            ("model.onnx", exported / "lib.so", 0, "match: same model"),
            (sha256(layer(2)), exported / "lib.tar", 1, "mismatch: other model"),
            ("model.onnx", stock / "lib.so", 3, "no record: the artifact carries no record"),
        ):
            result = run_command("check", model, "--rpc", address, "--remote", path, cwd=tmp_path)
            assert result.stdout.startswith(line), result.stderr
            assert result.returncode == status


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """examples/cpp/check_hash.cc, built with the line that its comment shows."""
    directory = tmp_path_factory.mktemp("cpp")
    source = ROOT / "examples/cpp/check_hash.cc"
    libraries = pathlib.Path(tvm.__path__[0]) / "lib"
    config = pathlib.Path(sys.executable).parent / "tvm-ffi-config"

    def options(*names):
        text = subprocess.run(
            [config, *names], check=True, text=True, stdout=subprocess.PIPE
        ).stdout
        return text.split()

    subprocess.run(
        [
            *("g++", "-Wall", "-Wextra", "-o", directory / "check_hash", source),
            *options("--cxxflags", "--ldflags"),
            *(f"-L{libraries}", "-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi"),
            f"-Wl,-rpath,{libraries},-rpath,{options('--libdir')[0]}",
        ],
        check=True,
    )
    return directory / "check_hash"


@pytest.fixture
def run_program(program, tmp_path, x):
    """Run the program on an input, and give its status, what it prints and what it computes."""

    def run(library, hash_file, name="x"):
        outputs = tmp_path / "outputs"
        tvm.runtime.save_param_dict_to_file({name: tvm.runtime.tensor(x)}, str(tmp_path / "inputs"))
        result = subprocess.run(
            [program, library, hash_file, tmp_path / "inputs", outputs],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        computed = tvm.runtime.load_param_dict_from_file(str(outputs)) if outputs.exists() else {}
        outputs.unlink(missing_ok=True)
        return result.returncode, result.stdout, [value.numpy() for value in computed.values()]

    return run


def test_the_cpp_program_runs_what_it_expects(run_program, exported, x):
    status, output, (y,) = run_program(exported / "lib.so", exported / "hash.txt")
    assert (status, output) == (0, f"{sha256(layer())}\n")
    np.testing.assert_allclose(y, reference(x), rtol=1e-5)


def test_the_cpp_program_runs_a_function_with_several_outputs(run_program, x, tmp_path):
    model = layer()
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, [1, 32]))
    model.graph.node.append(onnx.helper.make_node("Neg", ["y"], ["z"], name="neg"))
    executable = tvm.compile(from_onnx(model, get_hash=True), "llvm")
    executable.export_library(tmp_path / "lib.so")
    executable.save_hash(tmp_path)
    status, _, (y, z) = run_program(tmp_path / "lib.so", tmp_path / "hash.txt")
    assert status == 0
    np.testing.assert_allclose(y, reference(x), rtol=1e-5)
    np.testing.assert_array_equal(z, -y)


def test_the_cpp_program_refuses_what_it_does_not(run_program, exported, stock, tmp_path):
    path = tmp_path / "hash.txt"
    path.write_text(sha256(layer(2)))
    status, output, computed = run_program(exported / "lib.so", path)
    assert (status, computed) == (1, [])
    assert f": expected model {sha256(layer(2))}, found {sha256(layer())}\n" in output
    status, output, computed = run_program(stock / "lib.so", path)
    assert (status, computed) == (1, [])
    assert "carries no model hash" in output


def test_what_the_cpp_program_cannot_read_is_an_error(run_program, exported, tmp_path):
    path = tmp_path / "hash.txt"
    path.write_text("")
    status, output, _ = run_program(exported / "lib.so", path)
    assert status == 2
    assert "is not a hash file" in output
    assert run_program(tmp_path / "lib.so", exported / "hash.txt")[::2] == (2, [])
    assert run_program(exported / "lib.so", exported / "hash.txt", name="z")[::2] == (2, [])
