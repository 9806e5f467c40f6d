# SPDX-License-Identifier: Apache-2.0
"""A TVM without this package loads and runs our libraries, and answers, in Python, RPC and C++."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx.numpy_helper
import pytest
import tvm
from conftest import ROOT, layer, sha256
from tvm import relax, rpc

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


def run_program(program, *arguments):
    result = subprocess.run(
        [program, *arguments],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return result.returncode, result.stdout


def test_the_cpp_program_starts_what_it_expects(program, exported):
    status, output = run_program(program, exported / "lib.so", exported / "hash.txt")
    assert (status, output) == (0, f"{sha256(layer())}\nmain takes 1 arguments\n")


def test_the_cpp_program_refuses_what_it_does_not(program, exported, stock, tmp_path):
    (tmp_path / "hash.txt").write_text(sha256(layer(2)))
    status, output = run_program(program, exported / "lib.so", tmp_path / "hash.txt")
    assert status == 1
    assert f"is of another model: expected {sha256(layer(2))}" in output
    status, output = run_program(program, stock / "lib.so", tmp_path / "hash.txt")
    assert status == 1
    assert "carries no model hash" in output
    (tmp_path / "hash.txt").write_text("")
    assert run_program(program, exported / "lib.so", tmp_path / "hash.txt")[0] == 2
