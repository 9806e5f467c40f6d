# SPDX-License-Identifier: Apache-2.0
"""What the README shows of Relax is what happens."""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tvm
from conftest import ROOT

from tvm_model_hash.activation import RELAX_PATCHES
from tvm_model_hash.versions import RELAX_TVM_VERSIONS

README = (ROOT / "README.md").read_text()
MODEL = (
    pathlib.Path(importlib.util.find_spec("silero_vad").origin).parent
    / "data/silero_vad_op18_ifless.onnx"
)


def test_the_example_prints_what_the_readme_shows(tmp_path):
    shutil.copy(MODEL, tmp_path / "model.onnx")
    section = README.partition("\n## Relax\n")[2]
    code, output = re.search(r"```python\n(.*?)```\s*```\n(.*?)```", section, re.DOTALL).groups()
    here, _, there = code.partition("\n# Later")
    printed = []
    # The second part in a process of its own, as it says.
    for part in (here, f"import tvm\n#{there}"):
        result = subprocess.run(
            [sys.executable, "-c", part],
            cwd=tmp_path,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        printed.append(result.stdout)
    assert "".join(printed) == output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hash.txt", "lib.so", "model.onnx"]


def test_the_list_of_patches_is_complete():
    for module, (integration, replacements) in RELAX_PATCHES.items():
        assert f"`{integration}`" in README
        for path in replacements:
            name = path.rpartition(".")[2]
            assert f"`{module}.{path}`" in README or f"`.{name}`" in README


@pytest.mark.parametrize("version", RELAX_TVM_VERSIONS)
def test_the_versions_are_those_that_are_tested(version):
    assert version in README
    assert version in (ROOT / "Makefile").read_text()


@pytest.mark.skipif(tvm.__version__ != RELAX_TVM_VERSIONS[-1], reason="the demo's is the newest")
def test_the_demo(tmp_path):
    demo = ROOT / "examples/handshake_relax.py"
    result = subprocess.run(
        [sys.executable, demo, tmp_path], check=True, text=True, stdout=subprocess.PIPE
    )
    assert "The hashes are equal, and so are the outputs." in result.stdout
    assert "speech, 59.9%" in result.stdout
