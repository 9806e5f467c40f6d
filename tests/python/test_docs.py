# SPDX-License-Identifier: Apache-2.0
"""The site builds, and what is there to copy works."""

import os
import re
import subprocess
import sys

import onnx
import pytest
import yaml
from conftest import ROOT, layer
from tvm import relay
from tvm.runtime import vm_hash

import tvm_model_hash

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TO_COPY = {
    title: yaml.safe_load(text)
    for title, text in re.findall(
        r'^```yaml title="(.+?)"\n(.*?)^```$',
        (ROOT / "docs/ci.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
}


def test_the_site_builds(tmp_path):
    """With ``strict: true``: a dead link, a missing page or an unknown name is an error.

    Not with ``--quiet``, which passes over warnings.
    """
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert not result.returncode, result.stdout
    site = tmp_path / "site"
    pages = {path.relative_to(site).as_posix() for path in site.rglob("index.html")}
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert {path.with_suffix("").joinpath("index.html").as_posix() for path in sources} < pages
    python = (site / "python/index.html").read_text()
    assert [n for n in tvm_model_hash.__all__ if f"tvm_model_hash.{n}\n" not in python] == []
    command = (site / "command/index.html").read_text()
    assert "usage: tvm-model-hash check" in command


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """What somebody's pipeline has: a model, and what was compiled from it."""
    directory = tmp_path_factory.mktemp("repository")
    onnx.save(layer(), directory / "model.onnx")
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    vm_hash.save(relay.vm.compile(mod, "llvm", params=params), directory / "deployment")
    return directory


def shell(command, directory):
    programs = os.path.dirname(sys.executable)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, env={**os.environ, "PATH": path}, check=False
    ).returncode


def test_the_jobs_to_copy_work(repository):
    commands = [
        step["run"]
        for title, content in TO_COPY.items()
        for job in content.get("jobs", {}).values()
        for step in job["steps"]
        if "run" in step
    ]
    commands = [c for c in commands if "install" not in c and c != "python compile.py"]
    assert len(commands) == 5
    assert [command for command in commands if shell(command, repository)] == []


def test_the_example_in_python_works(repository):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, check=True, text=True, stdout=subprocess.PIPE
    )
    assert result.stdout == "match: same model\n"


def test_the_hook_to_copy_works(repository, tmp_path):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (used,) = TO_COPY[".pre-commit-config.yaml"]["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False
    command = " ".join([hook["entry"], *used["args"]])
    assert shell(command, repository) == 0
    onnx.save(layer(2), tmp_path / "model.onnx")
    (tmp_path / "deployment").symlink_to(repository / "deployment")
    assert shell(command, tmp_path) == 1
    for name in ("model.onnx", "deployment/lib.so"):
        assert re.search(used["files"], name)
    assert not re.search(used["files"], "model.onnx.txt")


def test_our_own_workflow_runs_what_make_has():
    makefile = (ROOT / "Makefile").read_text()
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if "run" in step:
                    target = step["run"].removeprefix("make ")
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), step
                else:
                    assert re.fullmatch(r"[\w/-]+@v\d+", step["uses"])


def test_the_hooks_of_our_own_are_what_lint_runs():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [re.sub(r"^sh -c '|'$", "", hook["entry"]) for hook in hooks]
    for entry in entries:
        line = entry.replace(".venv-test", "$(TEST)").replace("$(find", "$$(find")
        files = r"( [.]| [$][(]CXX_SOURCES[)])?"  # which pre-commit gives by itself
        assert re.search(rf"^\t{re.escape(line)}{files}$".replace('"', "'"), lint, re.MULTILINE)
    assert len(entries) == len(lint.splitlines())
