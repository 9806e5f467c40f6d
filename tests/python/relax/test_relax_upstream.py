# SPDX-License-Identifier: Apache-2.0
"""docs/upstream.md names files of this TVM."""

import pathlib
import re

import tvm
from conftest import ROOT


def test_the_files_that_a_patch_to_relaxs_tvm_would_touch_are_there():
    text = (ROOT / "docs/upstream.md").read_text().partition("## Today's")[2]
    paths = re.findall(r"^\| `([\w/.]+)` \|", text, re.MULTILINE)
    assert len(paths) == 5
    root = pathlib.Path(tvm.__path__[0])
    assert [path for path in paths if not (root / path.removeprefix("python/tvm/")).exists()] == []
