# SPDX-License-Identifier: Apache-2.0
"""The record's grammar, in Python and in C++, on the same records."""

import json
import re

import pytest
import tvm
from conftest import ROOT, layer
from tvm import relay
from tvm.runtime import relay_vm_hash as vm_hash

from tvm_model_hash import InvalidHashError, ModelHashError, Record, RecordError
from tvm_model_hash.limits import RECORD_BYTES

A, B, C = "a" * 64, "b0" * 32, "0123456789abcdef" * 4


def expand(text):
    """Fill in what would be tedious in the file: {a}, {b}, {c} digests, {n x} n times x."""
    text = re.sub(r"\{(\d+) (.)\}", lambda match: int(match[1]) * match[2], text)
    return text.replace("{a}", A).replace("{A}", A.upper()).replace("{b}", B).replace("{c}", C)


RECORDS = json.loads((ROOT / "tests/vectors/records.json").read_text())
VALID = [expand(text) for text in RECORDS["valid"]]
MALFORMED = {name: expand(text) for name, text in RECORDS["malformed"].items()}


@pytest.fixture(scope="module")
def vm_exec():
    mod, _ = relay.frontend.from_onnx(layer())
    return relay.vm.compile(mod, "llvm")


@pytest.fixture(scope="module")
def set_record():
    return vm_hash._writer()  # the C++ function: with None, every test below fails


@pytest.mark.parametrize("text", VALID)
def test_a_valid_record_round_trips(text):
    assert str(Record.parse(text)) == text


@pytest.mark.parametrize("text", VALID)
def test_a_valid_record_is_set_by_cpp(text, vm_exec, set_record):
    set_record(vm_exec.mod, text)
    assert tvm.get_global_func("runtime.GetExecutableRecord")(vm_exec.mod) == text
    assert vm_exec.virtual_devices.count("model-hash/") == 1
    assert vm_hash.get_record(vm_exec) == Record.parse(text)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_is_refused(name):
    with pytest.raises(RecordError):
        Record.parse(MALFORMED[name])


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_is_refused_by_cpp_and_changes_nothing(name, vm_exec, set_record):
    set_record(vm_exec.mod, VALID[0])
    before = bytes(vm_exec.save()[0])
    with pytest.raises(ValueError, match="cannot set the record"):
        set_record(vm_exec.mod, MALFORMED[name])
    assert bytes(vm_exec.save()[0]) == before


def test_cpp_refuses_modules_that_are_no_executable(vm_exec, set_record):
    for function, arguments in (
        (set_record, (VALID[0],)),
        (tvm.get_global_func("runtime.GetExecutableRecord"), ()),
    ):
        with pytest.raises(ValueError, match="not a VM executable"):
            function(vm_exec.lib, *arguments)


def test_the_longest_valid_record_has_the_longest_length():
    assert max(map(len, VALID)) == RECORD_BYTES


def test_the_parts_of_a_record():
    record = Record.parse(f"model-hash/1 model=sha256:{A} graph=sha256:{B} n=1")
    assert record == Record(A, B, None, (("n", "1"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model-hash/2 model=x", "version 'model-hash/2'.*upgrade"),
        ("hello", "'hello' is not a record: expected 'model-hash/1"),
        (f"model-hash/1 model=sha256:{A} graph=sha256:zz", "key 'graph'.*'sha256:zz'.*64 lower"),
        (f"model-hash/1 graph=sha256:{A}", "no field 'model'"),
        (f"model-hash/1 model=sha256:{A} n", "field 'n' is malformed"),
        ("x" * 2000, "2000 bytes long.*1024"),
    ],
)
def test_the_error_says_what_is_wrong(text, message):
    with pytest.raises(RecordError, match=message):
        Record.parse(text)


@pytest.mark.parametrize("digest", ["", A[1:], A.upper(), f"sha256:{A}", None, 7])
def test_a_record_is_not_made_of_a_malformed_hash(digest):
    with pytest.raises(InvalidHashError, match="64 lowercase"):
        Record(digest)


@pytest.mark.parametrize("extra", [("model", A), ("n", "1 2"), ("n", ""), ("N", "1"), ("n", "\n")])
def test_a_record_is_not_made_of_extra_fields_that_it_could_not_be_read_from(extra):
    with pytest.raises(RecordError):
        Record(A, extra=(extra,))


def test_every_error_is_a_value_error():
    assert issubclass(RecordError, ModelHashError)
    assert issubclass(ModelHashError, ValueError)
