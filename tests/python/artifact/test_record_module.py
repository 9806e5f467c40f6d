# SPDX-License-Identifier: Apache-2.0
"""The text of the module that brings a record into a library."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_model_hash import ArtifactError, Record, RecordError, limits
from tvm_model_hash.artifact.record_module import (
    Engine,
    Machine,
    c_source,
    llvm_ir,
    names_in,
    payload,
    payload_in_c,
    payload_in_ir,
)

RECORD = Record("a" * 64)
X86 = Machine("e-m:e-p270:32:32-p271:32:32-i64:64-S128", "x86_64-linux-gnu", "llvm")
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@given(VALUES, st.lists(st.text()), st.sampled_from(Engine))
def test_every_payload_is_found_again(value, names, engine):
    data = payload(Record("a" * 64, extra=(("x", value),)), names)
    assert data.isascii()
    assert names_in(data) == names
    assert payload_in_c(c_source(data, engine)) == data
    for prefix in (None, "", "first_"):
        assert payload_in_ir(llvm_ir(data, X86, engine, prefix)) == data


def test_a_name_is_written_as_it_is_but_for_what_a_line_cannot_hold():
    assert payload(RECORD, ["w.0/a:b", "a b", "ü%\n"]) == (
        f"{RECORD}\nw.0/a:b\na%20b\n%C3%BC%25%0A".encode()
    )


def test_more_names_than_a_payload_holds_are_an_error():
    name = "w" * (limits.PAYLOAD_BYTES - len(str(RECORD)) - 1)
    assert len(payload(RECORD, [name])) == limits.PAYLOAD_BYTES
    with pytest.raises(RecordError, match="the names of 1 parameters is 1048577 bytes long"):
        payload(RECORD, [name + "w"])


@pytest.mark.parametrize(
    ("layout", "pointer"),
    [
        (X86.layout, "i64"),
        ("e-m:e-p:32:32-p10:8:8-i64:64", "i32"),
        ("E-m:e-p0:32:32-i64:64", "i32"),
        ("p:32:32", "i32"),
        ("e-m:o-p32:64-i64:64", "i64"),
    ],
)
def test_the_size_of_a_string_is_as_wide_as_a_pointer(layout, pointer):
    machine = Machine(layout, "some-linux", "llvm")
    text = llvm_ir(payload(RECORD), machine, Engine.RELAX)
    assert set(re.findall(r"= internal constant { ptr, (i[0-9]+) }", text)) == {pointer}


def test_the_machine_is_read_from_any_ir():
    text = (
        '; ModuleID = "x"\ntarget datalayout = "e-m:e"\ntarget triple = "t-linux"\n'
        '!0 = !{i32 2, !"tvm_target", !"{\\22kind\\22:\\22llvm\\22}"}\n'
    )
    machine = Machine.of_ir(text)
    assert machine == Machine("e-m:e", "t-linux", "{\\22kind\\22:\\22llvm\\22}")
    for line in text.splitlines(keepends=True)[1:]:
        with pytest.raises(ArtifactError, match="has no line"):
            Machine.of_ir(text.replace(line, ""))


@pytest.mark.parametrize(
    "text", ["", "int main(void) { return 0; }", '@x = constant [2 x i8] c"a"']
)
def test_in_another_module_there_is_no_payload(text):
    assert payload_in_ir(text) is payload_in_c(text) is None


@pytest.mark.parametrize("byte", ["\xff", "\0", "\x1b", "\x7f"])
def test_what_is_not_ascii_is_no_payload_in_c(byte):
    source = c_source(payload(RECORD, ["w"]), Engine.RELAY)
    assert payload_in_c(source) is not None
    assert payload_in_c(source.replace("a" * 64, "a" * 63 + byte)) is None
