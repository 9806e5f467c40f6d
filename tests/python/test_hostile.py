# SPDX-License-Identifier: Apache-2.0
"""No file of a stranger's makes a reader hang, crash or fill the memory: see hostile.py."""

import json
import pathlib
import subprocess
import sys

import pytest
from hostile import CASES, MEMORY, SECONDS

# Nothing is wrong with these but how much there is.
READ = {
    "json_with_a_million_keys",
    "a_zip_archive_of_deflated_zeros",
    "a_cache_of_thousands_of_shards_and_tensors",
}


@pytest.fixture(scope="session")
def outcomes():
    program = pathlib.Path(__file__).with_name("hostile.py")
    done = subprocess.run(
        [sys.executable, program], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_what_is_hostile_is_read_or_refused(outcomes, name):
    found = outcomes[name]
    if name in READ:
        assert found["error"] is None
        assert found["message"] == "read"
    else:
        assert found["error"] is not None, found["message"]
        assert repr(found["place"])[1:-1] in found["message"] or "external data" in found["message"]
        assert "mistake of tvm-model-hash" not in found["message"], "the cause is to be mended"
        assert len(found["message"]) < 2000
    assert found["seconds"] < SECONDS
    assert found["mib"] < MEMORY >> 20
