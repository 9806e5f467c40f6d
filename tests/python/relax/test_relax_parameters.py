# SPDX-License-Identifier: Apache-2.0
"""Files of parameters as TVM 0.25 and later writes and loads them, stock."""

import numpy as np
import pytest
import tvm
from tvm.contrib import tvmjs

from tvm_model_hash import Record, read_artifact, write_record

RECORD = Record("0123456789abcdef" * 4, "a" * 64, "b" * 64)
ARRAYS = {
    "w": np.linspace(-1, 1, 512, dtype="float32").reshape(32, 16),
    "b": np.arange(-3, 4, dtype="int8"),
}

LOADERS = {
    "weights.params": "tvm.runtime.load_param_dict_from_file(sys.argv[1])",
    "weights.npz": "np.load(sys.argv[1])",
    "tensor-cache.json": "tvmjs.load_tensor_cache(sys.argv[1], tvm.cpu())[0]",
    "tensor-cache-b16.json": "tvmjs.load_tensor_cache(sys.argv[1], tvm.cpu())[0]",
}
SAVE = """
import numpy as np, tvm
from tvm.contrib import tvmjs
for name, array in {loader}.items():
    array = array if isinstance(array, np.ndarray) else array.numpy()
    print(name, array.tobytes().hex())
"""
# What runs in C++: in an application of MLC LLM, for example.
CACHE = """
import os, tvm
tvm.get_global_func("vm.builtin.tensor_cache.load")(os.path.dirname(sys.argv[1]), 1, 0)
for name in "wb":
    array = tvm.get_global_func("vm.builtin.tensor_cache.get")(name)
    print(name, array.numpy().tobytes().hex())
"""


@pytest.fixture
def files(tmp_path):
    tensors = {name: tvm.runtime.tensor(array) for name, array in ARRAYS.items()}
    tvm.runtime.save_param_dict_to_file(tensors, str(tmp_path / "weights.params"))
    np.savez(tmp_path / "weights.npz", **ARRAYS)
    tvmjs.dump_tensor_cache(ARRAYS, str(tmp_path), show_progress=False)
    return tmp_path


def run(stock_python, code, path):
    process = stock_python(code, path)
    output = process.stdout.read()
    assert process.wait() == 0
    return [line for line in output.splitlines() if line.startswith(("w ", "b "))]


@pytest.mark.parametrize("name", LOADERS)
def test_a_stock_tvm_loads_what_was_tagged(files, stock_python, name):
    path = files / name
    code = SAVE.replace("{loader}", LOADERS[name])
    before = path.read_bytes()
    stock = run(stock_python, code, path)
    assert len(stock) == 2
    write_record(path, RECORD)
    artifact = read_artifact(path)
    assert artifact.record == RECORD
    assert sorted(artifact.tensors) == sorted(ARRAYS)
    assert run(stock_python, code, path) == stock
    write_record(path, None)
    assert path.read_bytes() == before


def test_the_loader_in_cpp_loads_what_was_tagged(files, stock_python):
    path = files / "tensor-cache.json"
    stock = run(stock_python, CACHE, path)
    assert len(stock) == 2
    write_record(path, RECORD)
    assert run(stock_python, CACHE, path) == stock
