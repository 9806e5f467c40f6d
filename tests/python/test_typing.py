# SPDX-License-Identifier: Apache-2.0
"""The public names, as a type checker sees them in a user's program."""

import ast
import os
import pathlib
import subprocess
import sys
import sysconfig
from importlib import metadata

import pytest

import tvm_model_hash

pytest.importorskip("mypy")  # an environment that only runs TVM has none

PACKAGE = pathlib.Path(tvm_model_hash.__file__).parent

# A release job, which uses what docs/interface.md lists.
PROGRAM = """
import os
import sys
import warnings
from typing import assert_type

import onnx

import tvm_model_hash
from tvm_model_hash import (
    Artifact,
    BrokenSealError,
    ModelHashError,
    ModelHashMismatch,
    ModelHashWarning,
    Record,
    Seal,
    Status,
    Verdict,
    check,
    check_consistent,
    explain,
    model_hash,
    model_record,
    read_artifact,
    read_interface,
    read_record,
    seal,
    verify_seal,
    write_record,
)


def release(path: str, directory: os.PathLike[str]) -> Record:
    model = onnx.load(path)
    assert_type(model_hash(model), str)
    record = model_record(path)
    assert_type(record, Record)
    assert_type(record.model, str)
    assert_type(record.graph, str | None)
    artifact = read_artifact(os.path.join(directory, "lib.so"))
    assert_type(artifact, Artifact)
    assert_type(artifact.record, Record | None)
    if read_record(os.path.join(directory, "code.ro")) is None:
        write_record(os.path.join(directory, "code.ro"), record)
    assert_type(seal(directory), str)
    sealed = verify_seal(directory)
    assert_type(sealed, Seal)
    for file in sealed.files:
        assert_type(file.name + file.sha256, str)
        assert_type(file.size, int)
    return record


def accept(path: str, directory: str) -> int:
    warnings.simplefilter("error", ModelHashWarning)
    try:
        assert_type(check_consistent(directory, sealed=True), Verdict)
        verdict = check(path, directory, follow_links=True)
        assert_type(verdict, Verdict)
        assert_type(verdict.status, Status)
        assert_type(verdict.reason, str)
        assert_type(verdict.found, Record | None)
        assert_type(verdict.ok, bool)
        assert_type(verdict.remarks + verdict.changed, tuple[str, ...])
        assert_type(verdict.require(exact=True), Verdict)
    except ModelHashMismatch as error:
        assert_type(error.verdict, Verdict)
        print(explain(path, "other.onnx"), read_interface("lib.so"))
        return 1
    except BrokenSealError as error:
        assert_type(error.missing, tuple[str, ...])
        return 1
    except ModelHashError as error:
        print(error, tvm_model_hash.__version__)
        return 2
    assert_type(tvm_model_hash.is_installed(), bool)
    return 0


if __name__ == "__main__":
    sys.exit(accept(*sys.argv[1:3]))
"""


def type_check(directory, program):
    (directory / "program.py").write_text(program)
    # Mypy finds what is installed by itself, and refuses to be told where that is.
    is_installed = os.fspath(PACKAGE.parent) == sysconfig.get_path("purelib")
    sources = {} if is_installed else {"MYPYPATH": os.fspath(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--disallow-any-expr", "program.py"],
        cwd=directory,
        env={**os.environ, **sources},
        check=False,
        text=True,
        capture_output=True,
    ).stdout


def test_a_program_is_strictly_typed(tmp_path):
    wrong = """
check(1, "lib.so")
tvm_model_hash.chek
verdict: int = check("model.onnx", "lib.so")
"""
    found = type_check(tmp_path, PROGRAM + wrong)
    lines = PROGRAM.count("\n") + 1
    assert [line.split(":")[1] for line in found.splitlines()[:-1]] == [
        str(lines + number) for number in (1, 2, 3)
    ], found


def test_type_checkers_see_all_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == tvm_model_hash._EXPORTS
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_that_of_the_distribution():
    assert tvm_model_hash.__version__ == metadata.version("tvm-model-hash")
    assert "__version__" in dir(tvm_model_hash)
