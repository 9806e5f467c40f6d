# SPDX-License-Identifier: Apache-2.0
"""The main story with an older TVM with Relay, in an environment of its own.

It is no part of ``make test``: ``make test-relay-old`` runs it with a fork of TVM 0.16.dev0.
"""

import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relay
from tvm.runtime import vm_hash
from tvm.runtime.vm import Executable, VirtualMachine

import tvm_model_hash
from tvm_model_hash.artifact.vm_header import parse_header, rewrite_record
from tvm_model_hash.versions import RELAY_TVM_VERSIONS

TARGET = "llvm -mtriple=x86_64-linux-gnu"  # its own default is RISC-V


def network(scale):
    weights = ", ".join(f"{scale * i / 512:.6f}" for i in range(512))
    return onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        layer (float[1, 16] x) => (float[1, 32] y) <float[16, 32] w = {{{weights}}}> {{
            y = MatMul(x, w)
        }}
        """
    )


@pytest.fixture(scope="module")
def story():
    """The model's hash, and what was compiled with it and without."""
    expected = tvm_model_hash.model_hash(network(1.0))
    with pytest.warns(RuntimeWarning, match=f"not tested with TVM {tvm.__version__}"):
        mod, params = relay.frontend.from_onnx(network(1.0), get_hash=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        relay.frontend.from_onnx(network(1.0), get_hash=True)
    compiled = relay.vm.compile(mod, TARGET, params=params)
    stock = relay.vm.compile(relay.frontend.from_onnx(network(1.0))[0], TARGET)
    return expected, compiled, stock


def outputs(executable):
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    return VirtualMachine(executable, tvm.cpu()).run(x).numpy()


def test_this_is_another_tvm():
    assert tvm.__version__ not in RELAY_TVM_VERSIONS
    assert tvm_model_hash.is_installed()


def test_the_cpp_library_was_built_for_it(story):
    assert tvm.get_global_func("runtime.SetExecutableRecord", allow_missing=True) is not None


def test_the_executable_has_the_hash_and_computes_the_same(story):
    expected, compiled, stock = story
    assert compiled.get_hash() == expected
    assert stock.get_hash() is None
    np.testing.assert_array_equal(outputs(compiled), outputs(stock))


def test_its_code_is_read_and_written_offline(story):
    expected, compiled, stock = story
    code = bytes(compiled.save()[0])
    header = parse_header(code)
    assert header.version == tvm.__version__
    assert header.record.model == expected
    plain = bytes(stock.save()[0])
    assert parse_header(rewrite_record(code, None)) == parse_header(plain)
    assert parse_header(rewrite_record(plain, header.record)) == header


def test_a_deployment_is_saved_checked_and_loaded(story, tmp_path):
    expected, compiled, _ = story
    vm_hash.save(compiled, tmp_path / "deployment", byte_limit=256)
    assert (tmp_path / "deployment/hash.txt").read_text() == expected
    vm = vm_hash.load(tmp_path / "deployment", tvm.cpu(), expected=network(1.0))
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    np.testing.assert_array_equal(vm.run(x).numpy(), outputs(compiled))
    with pytest.raises(tvm_model_hash.ModelHashMismatch):
        vm_hash.load(tmp_path / "deployment", tvm.cpu(), expected=network(2.0))


def test_the_command_checks_it(story, tmp_path):
    _, compiled, _ = story
    vm_hash.save(compiled, tmp_path / "deployment")
    for scale, status in ((1.0, 0), (2.0, 1)):
        onnx.save(network(scale), tmp_path / "model.onnx")
        command = pathlib.Path(sys.executable).with_name("tvm-model-hash")
        result = subprocess.run(
            [command, "check", tmp_path / "model.onnx", tmp_path / "deployment"], check=False
        )
        assert result.returncode == status


# A stock runtime: this TVM without this package.
STOCK = """
import sys
sys.modules["tvm_model_hash"] = None
import numpy as np, tvm
from tvm.runtime.vm import Executable, VirtualMachine
assert not hasattr(Executable, "get_hash")
with open(sys.argv[1] + "/code.ro", "rb") as file:
    lib = tvm.runtime.load_module(sys.argv[1] + "/lib.so")
    executable = Executable.load_exec(file.read(), lib)
assert "model-hash/1 model=sha256:" in executable.virtual_devices
single = Executable(tvm.runtime.load_module(sys.argv[1] + "/single.so"))
x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
for each in (executable, single):
    print(VirtualMachine(each, tvm.cpu()).run(x).numpy().tobytes().hex())
"""


def test_a_stock_runtime_loads_and_runs_it(story, tmp_path):
    _, compiled, stock = story
    vm_hash.save(compiled, tmp_path / "deployment")
    compiled.mod.export_library(tmp_path / "deployment/single.so")
    result = subprocess.run(
        [sys.executable, "-c", STOCK, tmp_path / "deployment"],
        env={**os.environ, "TVM_MODEL_HASH": "0"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert set(result.stdout.split()) == {outputs(stock).tobytes().hex()}


def test_files_of_another_version_are_left_to_their_own(story):
    _, compiled, _ = story
    code, lib = compiled.save()
    header = parse_header(code)
    assert len(tvm.__version__) == len("0.15.dev0")
    other = bytes(code).replace(tvm.__version__.encode(), b"0.15.dev0", 1)
    assert parse_header(other).record == header.record
    with pytest.raises(tvm.TVMError, match="version"):
        Executable.load_exec(other, lib)
