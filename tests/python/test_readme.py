# SPDX-License-Identifier: Apache-2.0
"""What the README shows is what happens."""

import hashlib
import pathlib
import re

import pytest
from conftest import ROOT
from documents import follow

from tvm_model_hash.activation import PATCHES
from tvm_model_hash.cli.command import make_parser

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_what_it_shows_with_relay_happens(tmp_path):
    commands = follow(README.partition("\n## Relax\n")[0], tmp_path)
    subparsers = make_parser()._subparsers._group_actions[0].choices
    assert {c.split()[1] for c in commands if c.startswith("tvm-model-hash")} == set(subparsers)
    assert hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest() in README


def test_every_command_is_one_of_those():
    """Commands stand in blocks that are followed."""
    blocks = re.findall(r"^```(\w*).*?\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    others = [text for language, text in blocks if language not in ("console", "python", "sh")]
    assert len(others) == 1  # the picture
    assert others[0].startswith("model.onnx --->")


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path):
    """As they stand in the repository; those in the site are looked at when it is built."""
    targets = re.findall(r"[^\"]\]\((?!https:)([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS)
def test_what_is_to_be_made_and_installed_exists(path):
    text, makefile = path.read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make\s+([a-z][\w-]*)", text, re.MULTILINE)) - {"PYTHON"}
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()
    extras = re.findall(r"pip install \"(?:tvm-model-hash|[.])\[(\w+)\]\"", text)
    project = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[0]
    assert {e for e in extras if not re.search(rf"^{e} = \[", project, re.MULTILINE)} == set()


def test_the_list_of_patches_is_complete():
    text = (ROOT / "docs/environment.md").read_text()
    for module, (integration, replacements) in PATCHES.items():
        assert f"`{integration}`" in text
        for path in replacements:
            name = path.rpartition(".")[2]
            assert f"`{module}.{path}`" in text or f"`.{name}`" in text or f"`{path}`" in text


def test_the_files_that_a_patch_to_relays_tvm_would_touch_are_there():
    import tvm

    text = (ROOT / "docs/upstream.md").read_text()
    paths = re.findall(r"^\| `([\w/.]+)` \|", text.partition("## Today's")[0], re.MULTILINE)
    assert len(paths) > 10
    root = pathlib.Path(tvm.__path__[0])
    assert [path for path in paths if not (root / path.removeprefix("python/tvm/")).exists()] == []
