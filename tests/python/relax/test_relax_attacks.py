# SPDX-License-Identifier: Apache-2.0
"""The attacks of attacks/ that need TVM with Relax."""

import pytest
from test_attacks import attacks

NAMES = [name for name in attacks.NAMES if attacks.runs_here(attacks.load(name))]


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_stopped(name, tmp_path):
    assert attacks.load(name).attack(tmp_path)
