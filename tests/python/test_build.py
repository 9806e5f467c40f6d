# SPDX-License-Identifier: Apache-2.0
"""The identity of a compilation, and which records may stand together."""

import hashlib
import re

import pytest
from conftest import run_python

from tvm_model_hash import Record, RecordError
from tvm_model_hash.record import conflict

MODEL, OTHER = "a" * 64, "b" * 64
BUILDS = """
import sys
sys.modules["tvm"] = None
from tvm_model_hash.integration import new_build
print(*(new_build() for _ in range(3)))
"""


def builds(text):
    return run_python(BUILDS, env={"TVM_MODEL_HASH_BUILD": text}).stdout.split()


def test_builds_are_random():
    # An empty text is none, or all who leave it empty would have the same builds.
    made = builds("") + builds("")
    assert len(set(made)) == 6
    assert all(re.fullmatch("[0-9a-f]{32}", build) for build in made)


def test_builds_follow_from_a_text_and_their_number_in_the_process():
    for text in ("release 7", "ü"):
        expected = [hashlib.sha256(f"{text}\0{n}".encode()).hexdigest()[:32] for n in (1, 2, 3)]
        assert builds(text) == expected


def record(model=MODEL, build=None, params=0):
    return Record(model).with_fields(build, params)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (record(), record(), None),
        (record(build="1"), record(build="1"), None),
        (record(build="1"), record(), None),
        (record(build="1", params=2), record(build="1"), None),
        (record(build="1"), record(build="2"), "two compilations of this model"),
        (record(), record(OTHER), "two models"),
        (record(build="1"), record(OTHER, build="1"), "two models"),
    ],
)
def test_records_that_stand_together(a, b, expected):
    assert conflict(a, b) == conflict(b, a) == expected


def test_the_fields_of_a_part_are_read_and_replaced():
    text = f"model-hash/1 model=sha256:{MODEL} build=0123 params=2 x=1"
    found = Record.parse(text)
    assert (found.build, found.params, str(found)) == ("0123", 2, text)
    assert (record().build, record().params) == (None, 0)
    again = Record(MODEL, extra=(("x", "1"),)).with_fields("0123", 2)
    assert again == found
    assert found.with_fields("4567").extra == (("build", "4567"), ("x", "1"))
    assert found.with_fields(None).extra == (("x", "1"),)


@pytest.mark.parametrize("value", ["-1", "01", "1.0", "x", "1" * 10])
def test_a_number_of_parameters_that_is_not_one_is_an_error(value):
    found = Record.parse(f"model-hash/1 model=sha256:{MODEL} params={value}")
    with pytest.raises(RecordError, match="'params' of the record is .* decimal number"):
        _ = found.params
