# SPDX-License-Identifier: Apache-2.0
"""What the README shows of Relax is what happens."""

import subprocess
import sys

import pytest
import tvm
from conftest import ROOT
from documents import follow

from tvm_model_hash.activation import RELAX_PATCHES
from tvm_model_hash.versions import RELAX_TVM_VERSIONS

README = (ROOT / "README.md").read_text()


def test_what_it_shows_with_relax_happens(tmp_path):
    commands = follow(README.partition("\n## Relax\n")[2], tmp_path)
    assert len(commands) == 5
    assert {path.name for path in tmp_path.iterdir()} == {
        "ask.py",
        "hash.txt",
        "lib.so",
        "model.onnx",
        "relax_story.py",
    }


def test_the_list_of_patches_is_complete():
    text = (ROOT / "docs/environment.md").read_text()
    for module, (integration, replacements) in RELAX_PATCHES.items():
        assert f"`{integration}`" in text
        for path in replacements:
            name = path.rpartition(".")[2]
            assert f"`{module}.{path}`" in text or f"`.{name}`" in text


@pytest.mark.parametrize("version", RELAX_TVM_VERSIONS)
def test_the_versions_are_those_that_are_tested(version):
    assert version in (ROOT / "docs/compatibility.md").read_text()
    assert version in (ROOT / "Makefile").read_text()


@pytest.mark.skipif(tvm.__version__ != RELAX_TVM_VERSIONS[-1], reason="the demo's is the newest")
def test_the_demo(tmp_path):
    demo = ROOT / "examples/handshake_relax.py"
    result = subprocess.run(
        [sys.executable, demo, tmp_path], check=True, text=True, stdout=subprocess.PIPE
    )
    assert "The hashes are equal, and so are the outputs." in result.stdout
    assert "speech, 59.9%" in result.stdout
