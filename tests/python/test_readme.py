# SPDX-License-Identifier: Apache-2.0
"""What the README shows is what happens."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import NETWORKS, ROOT

from tvm_model_hash.activation import PATCHES

README = (ROOT / "README.md").read_text()


def test_the_example_prints_what_the_readme_shows(tmp_path):
    shutil.copy(NETWORKS["magika"].path, tmp_path / "model.onnx")
    code, output = re.search(r"```python\n(.*?)```\s*```\n(.*?)```", README, re.DOTALL).groups()
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, text=True, stdout=subprocess.PIPE
    )
    assert result.stdout == output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "code.ro",
        "hash.txt",
        "lib.so",
        "model.onnx",
    ]


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https:)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_list_of_patches_is_complete():
    for module, (integration, replacements) in PATCHES.items():
        assert f"`{integration}`" in README
        for path in replacements:
            name = path.rpartition(".")[2]
            assert f"`{module}.{path}`" in README or f"`.{name}`" in README or f"`{path}`" in README
