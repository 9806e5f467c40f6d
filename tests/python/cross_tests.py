# SPDX-License-Identifier: Apache-2.0
"""The tests of libraries for other platforms that hold for either engine.

Who takes them in has a fixture ``built``, which is a :class:`Built` for each platform.
"""

import json
import pathlib
import shutil
import tarfile
from typing import NamedTuple

import pytest
from conftest import run_python
from cross import PLATFORMS, Platform, leaky, llvm
from treatments import TREATMENTS, recorded, table

from tvm_model_hash import ArtifactError, Record, Status, check, read_record, seal
from tvm_model_hash.artifact.carrier import Role
from tvm_model_hash.artifact.record_io import read_artifact
from tvm_model_hash.cli import main

HOST = "linux-x86_64"
CONTAINERS = {".tar": "tar", ".a": "static library"}
# What an archive ends with, which is nothing of its files.
FILLING = {".tar": b"\0", ".a": b"\n"}


class Built(NamedTuple):
    """What was compiled for a platform."""

    platform: Platform
    record: Record
    deployment: pathlib.Path  # a directory, with the library that is to be loaded
    kinds: dict  # each library, and what it is, as `show` says

    @property
    def linked(self):
        return [path for path in self.kinds if path.suffix not in CONTAINERS]


def test_show_names_kind_container_and_platform(built, capsys):
    for path, kind in built.kinds.items():
        container = CONTAINERS.get(path.suffix, "shared library")
        platform = built.platform.of_objects if path.suffix in CONTAINERS else built.platform.name
        assert main(["show", str(path)]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"{path}: {kind} in a {container}, {platform}, ")
        assert f"model    {built.record.model}\n" in shown
        assert main(["show", "--json", str(path)]) == 0
        [fields] = json.loads(capsys.readouterr().out)["results"]
        assert (fields["kind"], fields["container"]) == (kind, container)
        assert fields["platform"] == platform
        assert fields["role"] == ("kernels" if "kernel" in kind else "executable")
        assert fields["record"]["record"] == str(built.record)


def test_an_object_file_with_the_record_is_shown_as_one(built, tmp_path, capsys):
    (path,) = (path for path in built.kinds if path.suffix == ".tar")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path)
    carrying = [path for path in tmp_path.iterdir() if recorded(path) == built.record]
    assert carrying
    for path in carrying:
        assert main(["show", str(path)]) == 0
        shown = capsys.readouterr().out.splitlines()[0]
        assert f" in an object file, {built.platform.of_objects}, " in shown


def test_a_library_is_recognized_by_its_content(built, tmp_path):
    for number, path in enumerate(built.kinds):
        copy = shutil.copy(path, tmp_path / f"file_{number}.bin")
        assert read_record(copy) == built.record


def test_the_model_matches_and_another_one_does_not(built):
    for artifact in (*built.kinds, built.deployment):
        assert check(leaky(0.1), artifact).status is Status.MATCH
        assert check(leaky(0.2), artifact).status is Status.MISMATCH


def test_a_sealed_deployment_is_verified_to_the_last_byte(built, tmp_path):
    directory = shutil.copytree(built.deployment, tmp_path / "d")
    seal(directory)
    verdict = check(leaky(), directory)
    assert (verdict.status, verdict.sealed) == (Status.MATCH, True)
    library = directory / built.platform.library
    data = bytearray(library.read_bytes())
    data[-1] ^= 1
    library.write_bytes(data)
    verdict = check(leaky(), directory)
    assert verdict.status is Status.BROKEN_SEAL
    assert built.platform.library in verdict.reason


def test_a_stripped_library_has_its_record(built, tmp_path):
    for path in built.linked:
        llvm("llvm-strip", path, "-o", tmp_path / path.name)
        assert read_record(tmp_path / path.name) == built.record


def test_a_library_cut_anywhere_is_an_error(built, tmp_path):
    for path in built.kinds:
        data = path.read_bytes()
        size = len(data.rstrip(FILLING.get(path.suffix, b"")))
        for cut in [*(size * part // 20 for part in range(20)), size - 1]:
            (tmp_path / path.name).write_bytes(data[:cut])
            with pytest.raises(ArtifactError):
                check(leaky(), tmp_path / path.name)


# What the record survives. Who takes these tests in has a fixture `export`, an Export, as well.

ASK = """
import json, sys, warnings
sys.modules["tvm_model_hash"] = None  # a TVM beside which it was never installed
warnings.simplefilter("ignore")
import tvm
answers = {}
for path in sys.argv[1:]:
    try:
        answers[path] = str(tvm.runtime.load_module(path).get_function("get_model_hash", True)())
    except Exception:
        answers[path] = None
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def treated(export, tmp_path_factory):
    """The library after each treatment, and what it answers in stock TVM."""
    root = tmp_path_factory.mktemp("treated")
    paths = {}
    for number, (name, (platform, treat)) in enumerate(TREATMENTS.items()):
        if platform in export.records:
            path = root / str(number) / PLATFORMS[HOST if platform == "c" else platform].library
            path.parent.mkdir()
            treat(export, path)
            paths[name] = path
    here = [path for name, path in paths.items() if TREATMENTS[name][0] in (HOST, "c")]
    answers = json.loads(run_python(ASK, *here, env={"TVM_MODEL_HASH": "0"}).stdout)
    return {name: (path, answers.get(str(path))) for name, path in paths.items()}


@pytest.mark.parametrize("name", TREATMENTS)
def test_the_table_of_what_the_record_survives_is_right(name, export, treated):
    platform, _ = TREATMENTS[name]
    if platform not in export.records:
        pytest.skip(f"this TVM's LLVM has no back end for {platform}")
    row, record = table()[name], export.records[platform]
    path, answer = treated[name]
    assert recorded(path) == {"yes": record, "no": None}[row.file]
    expected = {"yes": record.model, "no": None, "-": None}[getattr(row, export.engine)]
    assert answer == expected
    loadable = platform in (HOST, "c") and not name.endswith("in a program")
    assert ("-" in row) == (not loadable)


def test_a_program_without_names_is_taken_for_kernels(treated):
    path, _ = treated["ELF: `--gc-sections` and `-s` in a program"]
    artifact = read_artifact(path)
    assert (artifact.role, artifact.container) == (Role.KERNELS, "program")


def test_the_table_has_a_row_for_each_treatment():
    assert set(table()) == set(TREATMENTS)
