# SPDX-License-Identifier: Apache-2.0
"""The tutorials with Relay do what they show."""

import pytest
from conftest import ROOT
from documents import follow


@pytest.mark.parametrize("name", ["relay-vm", "relay-graph"])
def test_the_tutorial(name, tmp_path):
    text = (ROOT / f"docs/tutorials/{name}.md").read_text()
    assert len(follow(text, tmp_path)) > 5
