# SPDX-License-Identifier: Apache-2.0
"""The attacks of attacks/, each of which has to be stopped."""

import importlib.util

import pytest
from conftest import ROOT

_spec = importlib.util.spec_from_file_location("attacks_run", ROOT / "attacks/run.py")
attacks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(attacks)


@pytest.mark.parametrize("name", attacks.NAMES)
def test_an_attack_is_stopped(name, tmp_path):
    module = attacks.load(name)
    if not attacks.runs_here(module):
        pytest.skip("it needs the other TVM")
    assert module.attack(tmp_path)


def test_the_documentation_lists_these_attacks():
    assert attacks.table() in (ROOT / "docs/security.md").read_text()
