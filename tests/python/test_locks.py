# SPDX-License-Identifier: Apache-2.0
"""What the environments are made of is written down: all of it, with hashes, for each Python."""

import re

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from tvm_model_hash.versions import RELAX_TVM_VERSIONS

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none, and the others have")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def extra(name):
    return PROJECT["project"]["optional-dependencies"][name]


def group(name):
    for entry in PROJECT["dependency-groups"][name]:
        if isinstance(entry, dict):
            yield from group(entry["include-group"])
        else:
            yield entry


def lines(path):
    return [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]


DEPENDENCIES = PROJECT["project"]["dependencies"]
BUILD = PROJECT["build-system"]["requires"]
WANTED = {
    "relay": [
        *(*DEPENDENCIES, *BUILD, *group("test")),
        *(*extra("relay"), *extra("attest"), *extra("completion"), *extra("remote")),
    ],
    "bench": [*DEPENDENCIES, *BUILD, *extra("relay"), *lines("benchmarks/requirements.txt")],
    "demo": [*DEPENDENCIES, *BUILD, *extra("relay"), *lines("examples/requirements.txt")],
    "demo-relax": [*DEPENDENCIES, *BUILD, *extra("relax"), *group("demo-relax")],
    "relay-old": [*DEPENDENCIES, *BUILD, *group("relay-old")],
    "release": [*BUILD, *group("release")],
    "models": lines("tests/models.txt"),
    **{
        f"relax-{version}": [*DEPENDENCIES, *BUILD, f"apache-tvm=={version}", *group("test-relax")]
        for version in RELAX_TVM_VERSIONS
    },
}


def locked(name):
    """What a lock has, and the hashes of each."""
    text = (ROOT / f"locks/{name}.txt").read_text()
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    entries = [re.split(r"\s+--hash=", line.strip()) for line in text.splitlines()]
    return [(Requirement(requirement), hashes) for requirement, *hashes in entries]


def test_there_is_a_lock_for_each_environment():
    assert {path.stem for path in (ROOT / "locks").iterdir()} == set(WANTED)
    makefile = (ROOT / "Makefile").read_text()
    used = set(re.findall(r"^[^\t#\n].*?/ready:.*?locks/([\w.%-]+)[.]txt", makefile, re.MULTILINE))
    assert used == {*WANTED, "relax-%"} - {"models"} - {n for n in WANTED if n[:6] == "relax-"}


@pytest.mark.parametrize("name", WANTED)
def test_everything_is_pinned_and_hashed(name):
    entries = locked(name)
    for requirement, hashes in entries:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes)
    assert "://" not in (ROOT / f"locks/{name}.txt").read_text()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", WANTED)
def test_it_is_what_is_asked_for(name, python):
    """After a change in pyproject.toml: make lock."""
    environment = {"python_version": python, "python_full_version": f"{python}.99", "extra": ""}

    def holds(requirement):
        return requirement.marker is None or requirement.marker.evaluate(environment)

    versions = {}
    for requirement, _ in locked(name):
        if holds(requirement):
            assert requirement.name not in versions
            (specifier,) = requirement.specifier
            versions[requirement.name] = specifier.version
    wanted = [requirement for text in WANTED[name] if holds(requirement := Requirement(text))]
    assert wanted or name == "models"
    for requirement in wanted:
        version = versions.get(requirement.name.lower().replace("_", "-").replace(".", "-"))
        assert version is not None, f"make lock: {requirement}"
        good = requirement.specifier.contains(version, prereleases=True)
        assert good, f"make lock: {requirement}"
