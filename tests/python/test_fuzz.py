# SPDX-License-Identifier: Apache-2.0
"""The targets of ``make fuzz``, each for a moment; and what they have to notice."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

FUZZ = ROOT / "tests/fuzz"
TARGETS = re.findall(r"^@target\ndef (\w+)\(", (FUZZ / "targets.py").read_text(), re.MULTILINE)


def python(*arguments, check=True):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=FUZZ,
        check=check,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ).stdout


@pytest.fixture(scope="session")
def rows():
    """What a short run of all targets says of each; what it finds stays."""
    directory = ROOT / "build/fuzz-short"
    shutil.rmtree(directory, ignore_errors=True)
    output = python("run.py", "--seconds=1", "--seed=1", "--directory", directory, check=False)
    return {row.split()[0]: row.split(maxsplit=5) for row in output.splitlines()}


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(rows, name):
    _, executions, _, inputs, _, finding = rows[name]
    assert finding == "none"
    assert int(executions.replace(",", "")) >= int(inputs) > 0


def test_each_target_has_a_file_in_the_corpus_and_the_corpus_is_small():
    sizes = {path.stem: path.stat().st_size for path in (FUZZ / "corpus").iterdir()}
    assert {name for name in sizes if not name.startswith("template_")} == set(TARGETS)
    assert sum(sizes.values()) < 300 * 1024


def test_where_there_is_no_atheris_inputs_are_changed_by_chance(tmp_path):
    code = """
import pathlib, sys
sys.modules["atheris"] = None
import run
(result,) = run.run(["record"], 1, pathlib.Path(sys.argv[1]))
print(result.finding, result.executions > 100 * result.inputs)
"""
    assert python("-c", code, tmp_path).split() == ["True"]


# Each is put in the place of a reader, or of what it says: the target, the fault, what is told.
FAULTS = {
    "an error that is not ours": ("record", "Record.decode = struct.unpack", "TypeError"),
    "time": ("devices", "vm_header.record_from_listing = endless", "it took more than 1.0 s"),
    "memory": ("devices", "vm_header.record_from_listing = large", "bytes of memory"),
    "what is reserved": ("devices", "vm_header.record_from_listing = reserved", "MemoryError"),
    "another answer than the second reader's": (
        "hash_txt",
        "targets.formats_reference.hash_txt = lambda data: None",
        "AssertionError",
    ),
    "what can't be read is rewritten": (
        "code_ro",
        "code_ro.RelayVM.patch = lambda self, _: carrier.Patch(0, 0, b'')",
        "it can't be read, and is rewritten",
    ),
    "a record that is put elsewhere": (
        "tensor_list",
        "tensor_list.trailer = lambda record: b''",
        "AssertionError",
    ),
    "a file of a tar that is unpacked under another name": (
        "tar_archive",
        "tar._read_long_name = lambda data: ('other', None)",
        "AssertionError",
    ),
    "a difference without a name": (
        "model_structure",
        "targets.explain = lambda a, b: None",
        "AssertionError",
    ),
    "a match of what is changed": ("deployment_sealed", "targets.check = always", "another"),
    "a match of another model": ("deployment_unsealed", "targets.check = always", "AssertionError"),
}

WITH_FAULTS = """
import json, os, pathlib, struct, sys
import run, corpus, targets
from targets import Record, tar, vm_header
from tvm_model_hash.artifact import carrier, code_ro, tensor_list

def endless(_):
    while True:
        try:
            sum(range(1000))
        except Exception:
            pass

def large(_):
    return bytes(b"x" * (100 << 20))

def reserved(_):
    return bytearray(2 << 30)

unchanged, other = targets.check, targets.place("other")

def always(digest, path):
    original = dict(corpus.template("deployment"))
    if not os.path.exists(os.path.join(path, "SHA256SUMS")):
        del original["SHA256SUMS"]
    return unchanged(digest, other.fill(original))

for what, (name, fault, _) in json.loads(sys.argv[2]).items():
    if os.fork() == 0:
        exec(fault)
        directory = pathlib.Path(sys.argv[1], what)
        (result,) = run.run([name], 20, directory)
        print(json.dumps([what, result.finding]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    """What is told of each fault, and where."""
    directory = tmp_path_factory.mktemp("faults")
    output = python("-c", WITH_FAULTS, directory, json.dumps(FAULTS))
    return dict(map(json.loads, output.splitlines())), directory


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_wrong_is_noticed(told, what):
    findings, directory = told
    name, _, expected = FAULTS[what]
    assert expected in findings[what]
    assert list((directory / what / name).glob("found-*"))
