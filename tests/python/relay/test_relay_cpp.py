# SPDX-License-Identifier: Apache-2.0
"""The C++ program for libraries of Relay's executors, on TVM's runtime alone."""

import pathlib
import subprocess

import numpy as np
import pytest
import tvm
from conftest import ROOT, layer, sha256
from tvm import relay

X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
EXPECTED = X @ (np.arange(512, dtype="float32") / 512).reshape(16, 32)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """examples/cpp/check_hash_relay.cc, built with the line that its comment shows."""
    path = tmp_path_factory.mktemp("cpp") / "check_hash_relay"
    source = ROOT / "examples/cpp/check_hash_relay.cc"
    root = pathlib.Path(tvm.__path__[0])
    include = [
        root / "include",
        root / "3rdparty/dlpack/include",
        root / "3rdparty/dmlc-core/include",
    ]
    subprocess.run(
        [
            *("g++", "-std=c++17", "-Wall", "-Wextra", "-o", path, source),
            *(word for directory in include for word in ("-isystem", root / directory)),
            "-DDMLC_USE_LOGGING_LIBRARY=<tvm/runtime/logging.h>",
            *(f"-L{root}", "-ltvm_runtime", f"-Wl,-rpath,{root}"),
        ],
        check=True,
    )
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Libraries of one model, with a hash and without, an input and a hash.txt."""
    directory = tmp_path_factory.mktemp("libraries")
    for name, get_hash in (("", True), ("stock_", False)):
        mod, params = relay.frontend.from_onnx(layer(), get_hash=get_hash)
        exe = relay.vm.compile(mod, "llvm", params=params)
        exe.mod.export_library(str(directory / f"{name}vm.so"))
        for executor in ("graph", "aot"):
            kind = relay.backend.Executor(executor)
            factory = relay.build(mod, "llvm", params=params, executor=kind)
            factory.export_library(str(directory / f"{name}{executor}.so"))
    (directory / "inputs").write_bytes(tvm.runtime.save_param_dict({"x": tvm.nd.array(X)}))
    (directory / "hash.txt").write_text(sha256(layer()))
    return directory


ARGUMENTS = {"library": "", "hash_file": "hash.txt", "inputs": "inputs", "outputs": "outputs"}


def run(program, directory, **arguments):
    """Run the program in a directory, with these arguments in place of the usual ones."""
    result = subprocess.run(
        [program, *{**ARGUMENTS, **arguments}.values()],
        cwd=directory,
        check=False,
        text=True,
        capture_output=True,
    )
    return result.returncode, result.stdout, result.stderr


def test_it_needs_nothing_of_tvm_but_its_runtime(program):
    printed = subprocess.run(
        ["readelf", "-d", program], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    needed = [line for line in printed.splitlines() if "NEEDED" in line and "tvm" in line]
    assert len(needed) == 1
    assert "[libtvm_runtime.so]" in needed[0]


def test_it_is_short():
    assert len((ROOT / "examples/cpp/check_hash_relay.cc").read_text().splitlines()) < 80


@pytest.mark.parametrize("library", ["vm.so", "graph.so", "aot.so"])
def test_it_runs_what_is_of_the_model(library, program, directory, tmp_path):
    outputs = tmp_path / "outputs"
    result = run(program, directory, library=library, outputs=outputs)
    assert result == (0, sha256(layer()) + "\n", "")
    (result,) = tvm.runtime.load_param_dict(outputs.read_bytes()).values()
    np.testing.assert_allclose(result.numpy(), EXPECTED, rtol=1e-5)


@pytest.mark.parametrize("library", ["vm.so", "graph.so", "aot.so"])
def test_it_refuses_what_is_not(library, program, directory, tmp_path):
    other = sha256(layer(2))
    (tmp_path / "hash.txt").write_text(other)
    arguments = {"hash_file": tmp_path / "hash.txt", "outputs": tmp_path / "outputs"}
    for name, found in ((library, sha256(layer())), (f"stock_{library}", "none")):
        result = run(program, directory, library=name, **arguments)
        assert result == (1, "", f"{name}: expected model {other}, found {found}\n")
    assert not (tmp_path / "outputs").exists()


def test_what_it_cannot_read_is_an_error(program, directory, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "named").write_bytes(tvm.runtime.save_param_dict({"z": tvm.nd.array(X)}))
    for change, message in (
        ({"library": "missing.so"}, "missing.so"),
        ({"hash_file": "missing.txt"}, "missing.txt is not a hash file"),
        ({"hash_file": tmp_path / "empty"}, "is not a hash file"),
        ({"inputs": "missing"}, "missing"),
        ({"inputs": tmp_path / "named"}, "has no input z"),
        ({"library": "vm.so", "inputs": tmp_path / "named"}, "inp_index < params_num"),
        ({"library": "aot.so", "inputs": tmp_path / "named"}, "nvalid input name"),
        ({"outputs": tmp_path / "missing/outputs"}, "missing/outputs"),
    ):
        status, output, error = run(program, directory, **{"library": "graph.so", **change})
        assert (status, output) == (2, "")
        assert message in error
