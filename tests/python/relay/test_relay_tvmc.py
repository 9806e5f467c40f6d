# SPDX-License-Identifier: Apache-2.0
"""tvmc: what it compiles carries the hash, and it refuses to run what is of another model."""

import os
import subprocess
import sys
import tarfile

import numpy as np
import onnx
import pytest
from conftest import layer, run_python, sha256
from tvm.driver import tvmc

from tvm_model_hash import Status, activation, check, read_record

X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)


def command_line(*arguments, check=True, **env):
    result = subprocess.run(
        [sys.executable, "-m", "tvm.driver.tvmc", *map(str, arguments)],
        env={**os.environ, **env},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert not check or result.returncode == 0, result.stdout
    return result


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ in their weights, an input, and a package of the first."""
    directory = tmp_path_factory.mktemp("models")
    for scale in (1, 2):
        onnx.save(layer(scale), directory / f"{scale}.onnx")
    np.savez(directory / "inputs.npz", x=X)
    command_line(
        *("compile", "--get-hash", "--target", "llvm"),
        *("-o", directory / "package.tar", directory / "1.onnx"),
    )
    return directory


def outputs(package):
    return tvmc.run(tvmc.TVMCPackage(str(package)), device="cpu", inputs={"x": X}).outputs


@pytest.mark.parametrize(
    "options",
    [{}, {"output_format": "tar"}, {"use_vm": True}, {"use_vm": True, "output_format": "tar"}],
    ids=str,
)
def test_a_package_knows_its_model(options, models, tmp_path):
    path = tmp_path / "package.tar"
    results = []
    for get_hash in (False, True):
        model = tvmc.load(str(models / "1.onnx"), get_hash=get_hash)
        tvmc.compile(model, "llvm", package_path=str(path), **options)
        results.append(outputs(path) if "use_vm" not in options else None)
        expected = Status.MATCH if get_hash else Status.NO_RECORD
        assert check(models / "1.onnx", path).status is expected
    assert check(models / "2.onnx", path).status is Status.MISMATCH
    np.testing.assert_equal(*results)


def test_a_model_that_tvmc_saved_keeps_its_hash(models, tmp_path):
    tvmc.load(str(models / "1.onnx"), get_hash=True).save(str(tmp_path / "model.tar"))
    model = tvmc.TVMCModel(model_path=str(tmp_path / "model.tar"))
    tvmc.compile(model, "llvm", package_path=str(tmp_path / "package.tar"))
    assert check(models / "1.onnx", tmp_path / "package.tar").status is Status.MATCH


@pytest.mark.parametrize("part", ["mod.so", "mod.json", "mod.params"])
def test_a_part_of_another_package_is_told(part, models, tmp_path):
    for scale in (1, 2):
        model = tvmc.load(str(models / f"{scale}.onnx"), get_hash=True)
        tvmc.compile(model, "llvm", package_path=str(tmp_path / f"{scale}.tar"))
        with tarfile.open(tmp_path / f"{scale}.tar") as archive:
            archive.extractall(tmp_path / str(scale), filter="data")
    os.replace(tmp_path / "2" / part, tmp_path / "1" / part)
    with tarfile.open(tmp_path / "mixed.tar", "w") as archive:
        for name in ("mod.so", "mod.json", "mod.params"):
            archive.add(tmp_path / "1" / name, name)
    verdict = check(models / "1.onnx", tmp_path / "mixed.tar")
    assert verdict.status is Status.MISMATCH
    assert "of different models" in verdict.reason
    assert part in verdict.reason


# The command line.


def test_the_command_line_takes_the_hash_along(models):
    assert check(models / "1.onnx", models / "package.tar").status is Status.MATCH


def test_the_command_line_runs_what_is_of_the_model(models, tmp_path):
    run = ("run", "--device", "cpu", "--inputs", models / "inputs.npz")
    for expected in (models / "1.onnx", sha256(layer())):
        output = tmp_path / "output.npz"
        command_line(*run, "--check-hash", expected, "-o", output, models / "package.tar")
        np.testing.assert_equal(dict(np.load(output)), outputs(models / "package.tar"))
        os.remove(output)


def test_the_command_line_does_not_run_what_is_of_another_model(models, tmp_path):
    run = ("run", "--device", "cpu", "--inputs", models / "inputs.npz")
    output = tmp_path / "output.npz"
    result = command_line(
        *run, "--check-hash", models / "2.onnx", "-o", output, models / "package.tar", check=False
    )
    assert result.returncode == 4
    assert "Error: " in result.stdout
    assert "other weights" in result.stdout
    assert "Traceback" not in result.stdout
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "env", "has_hash"),
    [
        ([], {}, False),
        ([], {"TVM_MODEL_HASH": "import"}, True),
        (["--no-get-hash"], {"TVM_MODEL_HASH": "import"}, False),
    ],
)
def test_the_environment_says_what_happens_by_default(options, env, has_hash, models, tmp_path):
    path = tmp_path / "package.tar"
    arguments = ("--target", "llvm", "-o", path, models / "1.onnx")
    command_line("compile", *options, *arguments, **env)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    for part in ("mod.so", "mod.json", "mod.params"):
        assert (read_record(tmp_path / part) is not None) == has_hash


def test_a_hash_of_another_format_is_an_error(models, tmp_path):
    (tmp_path / "model.pb").write_bytes(b"")
    path = tmp_path / "package.tar"
    result = command_line(
        *("compile", "--get-hash", "--target", "llvm", "-o", path, tmp_path / "model.pb"),
        check=False,
    )
    assert result.returncode == 4
    assert "is for ONNX models" in result.stdout
    assert not path.exists()


def test_without_activation_the_options_are_gone():
    code = (
        "from tvm.driver.tvmc import main; from tvm_model_hash import activation\n"
        "assert main._main.__name__ == '_main' and main._main is not main._main.__wrapped__\n"
        "main._main(['--version']); main._main(['--version'])\n"
        "activation.uninstall()\n"
        "assert not hasattr(main._main, '__wrapped__')\n"
        "main._main(['compile', '--get-hash', 'x'])"
    )
    result = run_python(code, check=False)
    assert result.returncode == 2  # argparse's
    assert activation.is_installed()


@pytest.mark.parametrize(("value", "expected"), [("import", True), ("1", False), ("", False)])
def test_drivers_that_call_the_importer_take_the_hash_along(value, expected, models):
    code = (
        "import sys, onnx\nfrom tvm import relay\n"
        "mod, _ = relay.frontend.from_onnx(onnx.load(sys.argv[1]))\n"
        "stock, _ = relay.frontend.from_onnx(onnx.load(sys.argv[1]), get_hash=False)\n"
        "assert not stock.attrs or 'model_hash' not in stock.attrs\n"
        "print(bool(mod.attrs) and 'model_hash' in mod.attrs)"
    )
    result = run_python(code, models / "1.onnx", env={"TVM_MODEL_HASH": value})
    assert result.stdout.strip() == str(expected)
