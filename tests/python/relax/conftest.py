# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import numpy as np
import pytest
import tvm

from tvm_model_hash.versions import RELAX_TVM_VERSIONS

# In the environment with Relay there is nothing here to test.
if tvm.__version__ not in RELAX_TVM_VERSIONS:
    collect_ignore_glob = ["test_*.py"]

# A TVM beside which this package was never installed.
STOCK = """
import sys, warnings
sys.modules["tvm_model_hash"] = None
warnings.simplefilter("ignore")  # that our entry point is missing
"""


@pytest.fixture
def stock_python():
    """Start Python code in a process of its own with stock TVM."""
    processes = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", STOCK + code, *map(str, arguments)],
            env={**os.environ, "TVM_MODEL_HASH": "0"},
            cwd=os.sep,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.stdin.close()  # what the servers wait for
        process.stdout.close()
        process.wait(timeout=60)


@pytest.fixture
def x():
    """An input of the model."""
    return np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)


def _export(directory, **keywords):
    from conftest import layer
    from tvm.relax.frontend.onnx import from_onnx

    executable = tvm.compile(from_onnx(layer(), **keywords), "llvm")
    executable.export_library(directory / "lib.so")
    executable.export_library(directory / "lib.tar")
    if keywords:
        executable.save_hash(directory)
    return directory


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """What the model was compiled to: lib.so, lib.tar, and hash.txt."""
    return _export(tmp_path_factory.mktemp("exported"), get_hash=True)


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """The same without a hash."""
    return _export(tmp_path_factory.mktemp("stock"))
