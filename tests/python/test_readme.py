# SPDX-License-Identifier: Apache-2.0
"""What the README shows is what happens."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import onnx
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


def test_the_commands_and_the_two_lines_work(tmp_path):
    shutil.copy(NETWORKS["magika"].path, tmp_path / "model.onnx")
    compile_it = re.search(r"```python\n(.*?)code, lib", README, re.DOTALL)[1]
    save_and_load = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    subprocess.run([sys.executable, "-c", compile_it + save_and_load], cwd=tmp_path, check=True)
    shutil.copy(tmp_path / "deployment/code.ro", tmp_path)
    onnx.save(onnx.load(tmp_path / "model.onnx"), tmp_path / "old.onnx")
    shutil.copy(tmp_path / "old.onnx", tmp_path / "new.onnx")
    commands = re.findall(r"^(?:\$ )?(tvm-model-hash .*?)(?: +#.*)?$", README, re.MULTILINE)
    # Those with a URL run against servers, in tests/python/remote.
    commands = [command for command in commands if "://" not in command]
    assert len(commands) == 14
    for command in commands:
        result = subprocess.run(
            command,
            shell=True,
            env={**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
            cwd=tmp_path,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        if f"$ {command}\n" in README:
            assert f"$ {command}\n{result.stdout}```" in README


@pytest.mark.parametrize("target", re.findall(r"[^\"]\]\((?!https:)([^)#]+)\)", README))
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


def test_the_files_that_a_patch_to_relays_tvm_would_touch_are_there():
    import tvm

    text = (ROOT / "docs/upstream.md").read_text()
    paths = re.findall(r"^\| `([\w/.]+)` \|", text.partition("## Today's")[0], re.MULTILINE)
    assert len(paths) > 10
    root = pathlib.Path(tvm.__path__[0])
    assert [path for path in paths if not (root / path.removeprefix("python/tvm/")).exists()] == []
