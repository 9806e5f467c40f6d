# SPDX-License-Identifier: Apache-2.0
"""No file of a stranger's makes a reader hang, crash or fill the memory: see hostile.py."""

import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zlib

import pytest
from hostile import CASES, MEMORY, SECONDS

from tvm_model_hash.boundary import reading, reads
from tvm_model_hash.errors import ArtifactError, BrokenSealError, ModelFileError, SealError

# Nothing is wrong with these but how much there is.
READ = {
    "json_with_a_million_keys",
    "a_zip_archive_of_deflated_zeros",
    "a_cache_of_thousands_of_shards_and_tensors",
    "pe_with_imports_in_a_large_section",
}


@pytest.fixture(scope="session")
def outcomes():
    program = pathlib.Path(__file__).with_name("hostile.py")
    names = list(CASES)
    running = [
        subprocess.Popen([sys.executable, program, *part], stdout=subprocess.PIPE)
        for part in (names[: len(names) // 2], names[len(names) // 2 :])
    ]
    found = {}
    for process in running:
        found.update(json.loads(process.communicate(timeout=600)[0]))
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_is_hostile_is_read_or_refused(outcomes, name):
    found = outcomes[name]
    if name in READ:
        assert found["error"] is None
        assert found["message"] == "read"
    else:
        assert found["error"] is not None, found["message"]
        # Of a model, the tensor or the node is named.
        of_model = found["error"] in ("InvalidModelError", "ExternalDataError")
        assert of_model or repr(found["place"])[1:-1] in found["message"]
        assert "mistake of tvm-model-hash" not in found["message"], "the cause is to be mended"
        assert len(found["message"]) < 2000
        if name.partition(",")[0].endswith("with_little_memory"):
            assert "it takes more memory than there is" in found["message"]
    assert found["seconds"] < SECONDS
    assert found["mib"] < MEMORY >> 20


# The boundary


def recurse():
    return recurse()


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (lambda: struct.unpack("<Q", b""), "'a.so' is damaged, or .*: error: unpack requires"),
        (b"\xff".decode, "'a.so' is damaged, or .*UnicodeDecodeError"),
        (lambda: int("9" * 5000), "'a.so' is damaged, or .*ValueError"),
        (lambda: "a"[1:][0], "'a.so' is damaged, or .*IndexError"),
        (lambda: {}["a"], "'a.so' is damaged, or .*KeyError"),
        (lambda: 1 << (1 << 70), "'a.so' is damaged, or .*OverflowError"),
        (lambda: zlib.decompress(b""), "'a.so' is damaged, or .*error: Error -5"),
        (lambda: pickle.loads(b""), "'a.so' is damaged, or .*EOFError"),
        (recurse, "'a.so' is damaged: what is in it is nested too deeply"),
        (lambda: bytes(1 << 62), "cannot read 'a.so': it takes more memory than there is"),
        (lambda: os.listdir("/none"), "cannot read 'a.so': No such file or directory"),
    ],
)
def test_what_a_damaged_file_can_raise_leaves_a_reader_as_a_typed_error(fails, message):
    with pytest.raises(SealError, match=message) as caught, reading("a.so", SealError):
        fails()
    assert caught.value.__cause__ is not None


def test_mistakes_and_errors_with_a_type_leave_a_reader_as_they_are():
    error = BrokenSealError("broken", ("a",))
    with pytest.raises(BrokenSealError) as caught, reading("a.so"):
        raise error
    assert caught.value is error
    with pytest.raises(TypeError), reading("a.so"):
        len(1)
    with pytest.raises(ArtifactError, match=r"'a\\x00b': there is a byte 0"), reading("a\0b"):
        pass


def test_a_reader_may_be_given_its_path_in_any_way(tmp_path):
    @reads(ModelFileError)
    def read(model, other=None):
        return "a"[1:][0]

    for given in ("a", pathlib.Path("a")):
        for call in (lambda given=given: read(given), lambda given=given: read(model=given)):
            with pytest.raises(ModelFileError, match="'a' is damaged"):
                call()
    with pytest.raises(IndexError):  # what is no file can't be damaged
        read(object())
    assert read.__name__ == "read"
