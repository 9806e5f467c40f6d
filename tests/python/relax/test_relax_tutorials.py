# SPDX-License-Identifier: Apache-2.0
"""The tutorials with Relax do what they show."""

import pytest
import tvm
from conftest import ROOT
from documents import follow

from tvm_model_hash.versions import RELAX_TVM_VERSIONS


@pytest.mark.skipif(
    tvm.__version__ != RELAX_TVM_VERSIONS[-1], reason="they are written for the newest"
)
@pytest.mark.parametrize("name", ["relax", "relax-parameters", "cross"])
def test_the_tutorial(name, tmp_path):
    text = (ROOT / f"docs/tutorials/{name}.md").read_text()
    assert len(follow(text, tmp_path)) > 5
