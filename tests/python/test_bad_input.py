# SPDX-License-Identifier: Apache-2.0
"""What wrong input gets: a typed error that names it, and nothing written."""

import contextlib
import os
import pathlib
import stat

import pytest
from conftest import layer, sha256
from tvm import relay

from tvm_model_hash import (
    InvalidHashError,
    ModelHashError,
    ModelSerializationError,
    ModelTypeError,
    OutputError,
    model_hash,
)
from tvm_model_hash.checking.hash_file import write_hash_file
from tvm_model_hash.files import new_directory

HASH = "0123456789abcdef" * 4


@contextlib.contextmanager
def unprivileged():
    """As a user whom permissions apply to."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (None, "NoneType"),
        ("model.onnx", "str"),
        (b"", "bytes"),
        (layer().graph, "onnx.GraphProto"),
        (type("ModelProto", (), {"SerializeToString": lambda self: b""})(), "ModelProto"),
    ],
)
def test_a_hash_of_what_is_no_model(model, found):
    for function in (model_hash, lambda m: relay.frontend.from_onnx(m, get_hash=True)):
        with pytest.raises(ModelTypeError, match=f"found {found}: load the model with onnx.load"):
            function(model)


def test_hash_txt_is_replaced_whole_and_readable_by_others(tmp_path):
    (tmp_path / "hash.txt").write_text("something longer than a hash, " * 10)
    old_mask = os.umask(0o022)
    try:
        path = write_hash_file(tmp_path, HASH)
    finally:
        os.umask(old_mask)
    assert (tmp_path / "hash.txt").read_bytes() == HASH.encode()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(tmp_path) == ["hash.txt"]


def test_a_directory_that_does_not_exist(tmp_path):
    with pytest.raises(OutputError, match="'.*missing': it does not exist, expected a directory"):
        write_hash_file(tmp_path / "missing", HASH)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="'.*file': it is a file, expected a directory"):
        write_hash_file(tmp_path / "file", HASH)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_directory_that_is_not_writable(tmp_path):
    for parent in tmp_path.parents[:3]:  # pytest's own, which nobody else may enter
        if os.stat(parent).st_uid == os.geteuid():
            os.chmod(parent, 0o755)
    (tmp_path / "hash.txt").write_text("kept")
    os.chmod(tmp_path, 0o555)
    with unprivileged(), pytest.raises(OutputError, match="hash.txt': Permission denied"):
        write_hash_file(tmp_path, HASH)
    assert (tmp_path / "hash.txt").read_text() == "kept"
    assert os.listdir(tmp_path) == ["hash.txt"]


def test_a_directory_is_made_with_all_its_files_or_not_at_all(tmp_path):

    def make(name, then):
        with new_directory(str(tmp_path / name)) as temporary:
            (pathlib.Path(temporary) / "file").write_text("new")
            then()

    def fail():
        raise KeyError

    def precede():
        (tmp_path / "late").mkdir()
        (tmp_path / "late/file").write_text("kept")

    with pytest.raises(KeyError):
        make("new", fail)
    assert os.listdir(tmp_path) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    with pytest.raises(OutputError, match="it is not empty, expected"):
        make("full", fail)
    with pytest.raises(OutputError, match="Directory not empty"):
        make("late", precede)
    assert sorted(os.listdir(tmp_path)) == ["full", "late"]
    assert (tmp_path / "late/file").read_text() == "kept"
    make("new", lambda: None)
    assert os.listdir(tmp_path / "new") == ["file"]


def test_a_hash_txt_that_is_a_directory(tmp_path):
    (tmp_path / "hash.txt").mkdir()
    with pytest.raises(OutputError, match="hash.txt': Is a directory"):
        write_hash_file(tmp_path, HASH)
    assert os.listdir(tmp_path) == ["hash.txt"]


@pytest.mark.parametrize("value", ["", HASH + "\n", HASH.upper(), None])
def test_a_malformed_hash_is_not_written(value, tmp_path):
    with pytest.raises(InvalidHashError, match="64 lowercase"):
        write_hash_file(tmp_path, value)
    assert os.listdir(tmp_path) == []


def test_hashing_changes_nothing():
    model = layer()
    before = model.SerializeToString()
    assert model_hash(model) == sha256(model)
    assert model.SerializeToString() == before


def test_all_errors_have_one_base():
    for error in (InvalidHashError, ModelSerializationError, ModelTypeError, OutputError):
        assert issubclass(error, ModelHashError)
        assert issubclass(error, ValueError)
