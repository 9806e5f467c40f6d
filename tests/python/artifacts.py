# SPDX-License-Identifier: Apache-2.0
"""Real artifacts for the tests of what reads them: compiled once, in a directory of their own."""

import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # or TVM waits for the network

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

import tvm
from tvm import relay

BIG = 1 << 20  # columns; of 16 rows of floats: a constant of 64 MiB

# For code that has to work where none of these is installed.
WITHOUT_TVM = "import sys; sys.modules.update(tvm=None, onnx=None, numpy=None)\n"


def dense(weights):
    """A model with two inputs: x, b -> x @ weights + b."""
    weights = np.ascontiguousarray(weights, "float32")
    columns = weights.shape[1]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul"),
            onnx.helper.make_node("Add", ["y", "b"], ["z"], name="add"),
        ],
        "dense",
        [value("x", 1, [1, 16]), value("b", 1, [1, columns])],
        [value("z", 1, [1, columns])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = onnx.helper.make_opsetid("", 15)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def sha256(model):
    return hashlib.sha256(model.SerializeToString()).hexdigest()


def compile_model(model, **keywords):
    mod, _ = relay.frontend.from_onnx(model, freeze_params=True, **keywords)
    return relay.vm.compile(mod, "llvm")


def write_all(exe, directory):
    """Write an executable in each form that TVM has for it."""
    directory.mkdir()
    exe.mod.export_library(str(directory / "single.so"))
    exe.mod.export_library(str(directory / "single.tar"))
    code, lib = exe.save()
    (directory / "code.ro").write_bytes(code)
    lib.export_library(str(directory / "lib.so"))
    lib.export_library(str(directory / "lib.tar"))
    # What others make of them.
    objects = directory / "objects"
    objects.mkdir()
    with tarfile.open(directory / "single.tar") as archive:
        archive.extractall(objects)
    with tarfile.open(directory / "plain.tar", "w") as archive:
        for path in sorted(objects.iterdir()):
            archive.add(path, path.name)
    run("strip", "-o", directory / "stripped.so", directory / "single.so")
    run("gcc", "-shared", "-Wl,--hash-style=sysv", "-o", directory / "sysv.so", *objects.iterdir())
    exe.move_late_bound_consts(str(directory / "consts"), byte_limit=256)
    (directory / "late.ro").write_bytes(exe.save()[0])


def run(*command):
    subprocess.run([str(word) for word in command], check=True)


def run_python(code, *arguments):
    """Run Python code in another process, and return what it prints."""
    command = [sys.executable, "-c", WITHOUT_TVM + code, *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


@functools.cache
def build():
    """The directory of the artifacts: small/ and big/ with a hash, stock/ without."""
    # A module's global lives as long as the process; the directory goes with it.
    global _temporary
    _temporary = tempfile.TemporaryDirectory()
    root = pathlib.Path(_temporary.name)
    for name, model in models().items():
        exe = compile_model(model, get_hash=True)
        assert tvm.runtime.vm.Executable.get_function_params(exe, "main") == ["x", "b"]
        write_all(exe, root / name)
    write_all(compile_model(models()["small"]), root / "stock")
    return root


@functools.cache
def models():
    return {
        "small": dense(np.arange(512).reshape(16, 32)),
        "big": dense(np.arange(16 * BIG).reshape(16, BIG)),
    }
