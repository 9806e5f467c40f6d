# SPDX-License-Identifier: Apache-2.0
"""Where everything is, and that it can be imported from there."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: What runs keep and find.
FOUND = ROOT / "build/fuzz"

for _path in ("tests", "tests/python", "tests/python/model", "tests/vectors", "reference"):
    sys.path.insert(1, str(ROOT / _path))
os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # or TVM waits for the network
