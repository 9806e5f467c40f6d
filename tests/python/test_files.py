# SPDX-License-Identifier: Apache-2.0
"""What writes loses nothing, whatever happens to it and wherever it runs."""

import ast
import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading

import pytest
from artifacts import compile_model, models
from fault import OPERATIONS, A, B, fork

from tvm_model_hash import files
from tvm_model_hash.artifact import record_io
from tvm_model_hash.artifact.record_io import read_record, write_record
from tvm_model_hash.checking import copies
from tvm_model_hash.checking.copies import private_copies
from tvm_model_hash.checking.hash_file import write_hash_file
from tvm_model_hash.checking.manifest import seal, verify_seal
from tvm_model_hash.checking.package import unpacked
from tvm_model_hash.checking.parts import file_names
from tvm_model_hash.errors import ArtifactError, OutputError
from tvm_model_hash.files import (
    file_sha256,
    is_temporary,
    locked,
    new_directory,
    open_regular,
    replacing,
    replacing_path,
)

FAULT = pathlib.Path(__file__).with_name("fault.py")
STALE = ".0123456789abcdef.tvm-model-hash-tmp"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("built")
    (directory / "small").mkdir()
    code, lib = compile_model(models()["small"]).save()
    (directory / "small/code.ro").write_bytes(code)
    lib.export_library(str(directory / "small/lib.so"))
    return directory


def names(directory):
    return sorted(os.listdir(directory))


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def interrupted(context):
    """Something that is written, but for an error at the end."""
    with contextlib.suppress(KeyError):
        with context as value:
            yield value
            raise KeyError
        raise AssertionError("the error was lost")


# Names


@pytest.mark.parametrize("name", [STALE, ".lock.tvm-model-hash-tmp"])
def test_what_is_temporary_is_known_by_its_name(name):
    assert is_temporary(name)


@pytest.mark.parametrize(
    "name", ["code.ro", STALE[1:], STALE + "x", "a" + STALE, STALE.upper(), ".tvm-model-hash-tmp"]
)
def test_what_has_another_name_is_not_temporary(name):
    assert not is_temporary(name)


def test_every_temporary_has_such_a_name(tmp_path):
    with replacing(str(tmp_path / "a")), new_directory(str(tmp_path / "b")):
        assert len(names(tmp_path)) == 2
        assert all(map(is_temporary, names(tmp_path)))
        assert list(file_names(str(tmp_path))) == []
    assert names(tmp_path) == ["a", "b"]


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    with replacing(str(tmp_path / ("a" * 255))) as file:
        file.write(b"new")
    with new_directory(str(tmp_path / ("b" * 255))):
        pass
    assert names(tmp_path) == ["a" * 255, "b" * 255]


# Replacing a file


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(str(path)) as file:
        file.write(b"ne")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"w\r\n\n")
    assert path.read_bytes() == b"new\r\n\n"
    with interrupted(replacing(str(path))) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"new\r\n\n"
    assert names(tmp_path) == ["file"]


def test_something_that_takes_a_path_writes_as_safely(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing_path(str(path), 0o640) as temporary:
        assert os.path.dirname(temporary) == str(tmp_path)
        shutil.copy(__file__, temporary)
        assert path.read_text() == "old"
    assert path.read_bytes() == pathlib.Path(__file__).read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["file"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    log = []

    def logged(name):
        function = getattr(os, name)

        def call(*arguments):
            target = arguments[0]
            where = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else target
            log.append((name, os.path.relpath(where, tmp_path)))
            return function(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "rename"):
        logged(name)
    with replacing(str(tmp_path / "file")):
        (temporary,) = names(tmp_path)
    assert log == [("fsync", temporary), ("replace", temporary), ("fsync", ".")]
    log.clear()
    with new_directory(str(tmp_path / "above/new")) as new:
        (pathlib.Path(new) / "below").mkdir()
        (pathlib.Path(new) / "below/file").write_text("")
    new = os.path.relpath(new, tmp_path)
    assert log == [
        *(("fsync", f"{new}/below/file"), ("fsync", f"{new}/below"), ("fsync", new)),
        *(("rename", new), ("fsync", "above"), ("fsync", ".")),
    ]


@pytest.mark.parametrize("name", ["a\0b", "none/file", "file/below"])
def test_a_place_that_is_no_place_is_an_error(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot write"), replacing(str(tmp_path / name)):
        pass
    if name != "none/file":  # that one gets its directory
        with pytest.raises(OutputError, match="cannot write"), new_directory(str(tmp_path / name)):
            pass
    with pytest.raises(ArtifactError, match="cannot read"):
        open_regular(str(tmp_path / name))
    assert names(tmp_path) == ["file"]


# Making a directory


def fill(directory, text):
    for name in ("first", "second"):
        pathlib.Path(directory, name).write_text(text)


def test_directories_above_are_made_and_removed_if_it_fails(tmp_path):
    with interrupted(new_directory(str(tmp_path / "a/b/c"))):
        assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path) == []
    (tmp_path / "a").mkdir()
    with interrupted(new_directory(str(tmp_path / "a/b/c"))):
        pass
    assert names(tmp_path) == ["a"]
    with new_directory(f"{tmp_path}/a/b/c//") as new:
        fill(new, "new")
    assert names(tmp_path / "a/b") == ["c"]
    assert names(tmp_path / "a/b/c") == ["first", "second"]


def test_a_relative_path_is_one_below_where_the_process_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a", "b/c"):
        with new_directory(path) as new:
            fill(new, "new")
    with replacing("d") as file:
        file.write(b"new")
    assert names(tmp_path) == ["a", "b", "d"]


def test_a_directory_replaces_another_one_only_if_asked(tmp_path):
    path = tmp_path / "deployment"
    for text in ("old", "new"):
        with new_directory(str(path), overwrite=True) as new:
            fill(new, text)
            pathlib.Path(new, text).mkdir()
    assert (path / "first").read_text() == "new"
    assert names(path) == ["first", "new", "second"]
    assert names(tmp_path) == ["deployment"]
    with pytest.raises(OutputError, match="not empty"), new_directory(str(path)):
        pass
    with interrupted(new_directory(str(path), overwrite=True)) as new:
        fill(new, "newer")
    assert (path / "first").read_text() == "new"
    assert names(tmp_path) == ["deployment"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_replaced_keeps_its_permissions(tmp_path, overwrite):
    path = tmp_path / "private"
    path.mkdir(0o700)
    with new_directory(str(path), overwrite) as new:
        fill(new, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("overwrite", [False, True])
def test_neither_a_file_nor_a_link_is_replaced_by_a_directory(tmp_path, overwrite):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with (
            pytest.raises(OutputError, match="not a directory"),
            new_directory(str(tmp_path / name), overwrite),
        ):
            pass
    assert names(tmp_path) == ["file", "link"]


def test_the_old_directory_is_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "deployment"
    path.mkdir()
    fill(path, "old")
    rename = os.rename

    def fail(source, target):
        if target == str(path) and os.path.basename(source) == "new":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OutputError, match="Input/output"), new_directory(str(path), True) as new:
        fill(new, "new")
    assert (path / "first").read_text() == "old"
    assert names(tmp_path) == ["deployment"]


@pytest.mark.parametrize("moved", [1, 2])
def test_killed_between_the_renames_the_next_one_brings_a_directory_back(tmp_path, moved):
    path = tmp_path / "deployment"
    path.mkdir()
    fill(path, "old")

    def killed():
        rename, done = os.rename, []

        def last(source, target):
            rename(source, target)
            done.append(target)
            if len(done) == moved:
                os.kill(os.getpid(), signal.SIGKILL)

        os.rename = last
        with new_directory(str(path), overwrite=True) as new:
            fill(new, "new")

    _, status = os.waitpid(fork(killed), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert any(map(is_temporary, names(tmp_path)))
    with replacing(str(tmp_path / "other")):
        pass
    assert {(path / name).read_text() for name in names(path)} == {("old", "new")[moved - 1]}
    assert names(tmp_path) == ["deployment", "other"]


def test_what_cannot_go_back_is_not_removed(tmp_path, monkeypatch):
    path = tmp_path / "deployment"
    path.mkdir()
    fill(path, "old")
    rename = os.rename

    def fail(source, target):
        if target == str(path):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OutputError, match="Input/output"), new_directory(str(path), True):
            pass
    assert [is_temporary(name) for name in names(tmp_path)] == [True]
    with replacing(str(tmp_path / "other")):
        pass
    assert (path / "first").read_text() == "old"
    assert names(tmp_path) == ["deployment", "other"]


def test_a_directory_is_sealed_before_it_has_its_name(tmp_path):
    with new_directory(str(tmp_path / "new")) as new:
        fill(new, "new")
        seal(new)
    verify_seal(tmp_path / "new")


# Temporaries of others


@pytest.fixture(params=["file", "directory"])
def stale(request, tmp_path):
    if request.param == "file":
        (tmp_path / STALE).write_text("half of")
    else:
        (tmp_path / STALE / "new/below").mkdir(parents=True)
        (tmp_path / STALE / "new/below/code.ro").write_text("half of")
    return tmp_path


@pytest.mark.parametrize("write", ["replacing", "new_directory"])
def test_the_next_one_removes_what_a_killed_one_left(stale, write):
    with getattr(files, write)(str(stale / "a")):
        pass
    assert names(stale) == ["a"]


def test_what_someone_is_writing_is_not_removed(tmp_path):
    with replacing(str(tmp_path / "a")) as file, new_directory(str(tmp_path / "b")) as new:
        fill(new, "new")
        code = "import sys; from tvm_model_hash.files import *; replacing(sys.argv[1]).__enter__()"
        subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True)
        write_hash_file(tmp_path, A.model)
        file.write(b"new")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path / "b") == ["first", "second"]
    assert "hash.txt" in names(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_temporaries_are_not_touched(stale):
    os.chown(stale / STALE, 12345, 12345)
    write_hash_file(stale, A.model)
    assert names(stale) == [STALE, "hash.txt"]


def test_a_link_with_such_a_name_leads_nowhere(tmp_path):
    (tmp_path / "kept/old/victim").mkdir(parents=True)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / STALE).symlink_to(tmp_path / "kept")
    write_hash_file(tmp_path / "below", A.model)
    assert (tmp_path / "kept/old/victim").is_dir()
    assert "victim" not in names(tmp_path / "below")


# Disks


def small_files(action):
    """Do something in a process whose files may have 4,096 bytes, and give what it raised."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OutputError, match="cannot write .*File too large"):
            action()

    _, status = os.waitpid(fork(limited), 0)
    assert status == 0


def test_a_file_that_may_not_be_that_large_leaves_the_old_one(tmp_path, built):
    path = tmp_path / "code.ro"
    shutil.copy(built / "small/code.ro", path)
    with open(path, "ab") as file:
        file.write(bytes(4096 * 2))
    before = path.read_bytes()

    def write():
        with replacing(str(path)) as file:
            for _ in range(100):
                file.write(bytes(1024))

    def make():
        with new_directory(str(tmp_path / "above/new")) as new:
            fill(new, "new" * 10_000)

    for action in (write, make):
        small_files(action)
        assert path.read_bytes() == before
        assert names(tmp_path) == ["code.ro"]


def mount(directory, *options):
    command = ["mount", "-t", "tmpfs", *options, "none", directory]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def mounted(tmp_path, built):
    """A small file system of its own, with a deployment and hash.txt in it."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    mount(directory, "-o", "size=256k")
    try:
        for name in ("code.ro", "lib.so"):
            shutil.copy(built / "small" / name, directory)
        write_record(directory / "code.ro", A)
        write_hash_file(directory, A.model)
        seal(directory)
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def fails_to_write(directory, reason):
    """Try all that writes, which has to fail and to leave everything as it was."""

    def make(overwrite):
        path = directory / ("kept" if overwrite else "above/new")
        with new_directory(str(path), overwrite) as new:
            fill(new, "new" * 1000)

    before = contents(directory)
    for action in (
        lambda: write_hash_file(directory, B.model),
        lambda: write_record(directory / "code.ro", B),
        lambda: write_record(directory / "code.ro", None),
        lambda: seal(directory),
        lambda: make(False),
        lambda: make(True),
    ):
        with pytest.raises(OutputError, match=reason):
            action()
        assert contents(directory) == before
        assert not any(map(is_temporary, names(directory)))
        assert "above" not in names(directory)


def test_a_full_disk_leaves_everything_as_it_was(mounted):
    (mounted / "kept").mkdir()
    fill(mounted / "kept", "old")
    (mounted / "weights").write_bytes(b"")
    with contextlib.suppress(OSError), open(mounted / "weights", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    fails_to_write(mounted, "No space left")
    (mounted / "weights").unlink()
    write_hash_file(mounted, B.model)
    write_record(mounted / "code.ro", B)
    seal(mounted)
    verify_seal(mounted)


def test_a_read_only_disk_leaves_everything_as_it_was(mounted):
    (mounted / "kept").mkdir()
    fill(mounted / "kept", "old")
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    fails_to_write(mounted, "Read-only file system")


def archive_of(path, size):
    """An archive with a directory of two files."""
    with tarfile.open(path, "w") as out:
        for name in ("a/first", "a/second"):
            member = tarfile.TarInfo(name)
            member.size = size
            out.addfile(member, io.BytesIO(bytes(size)))
    return str(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_for_which_the_disk_has_no_room_is_not_unpacked(
    mounted, tmp_path, monkeypatch, compressed
):
    path = archive_of(tmp_path / "a.tar", 1 << 20)
    if compressed:
        path += ".gz"
        pathlib.Path(path).write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    before = names(mounted)
    monkeypatch.setattr(tempfile, "tempdir", str(mounted))
    with pytest.raises(ArtifactError, match="'a/first' it has more bytes than is free"):  # noqa: SIM117
        with unpacked(path):
            pass
    with pytest.raises(ArtifactError, match="bytes, and [0-9]+ are free in"):  # noqa: SIM117
        with private_copies({"a.tar": str(tmp_path / "a.tar")}):
            pass
    assert names(mounted) == before


def test_files_that_may_not_be_that_large_are_an_error_and_leave_nothing(tmp_path, monkeypatch):
    path = archive_of(tmp_path / "a.tar", 3000)
    (tmp_path / "place").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "place"))

    def limited():
        # The first file fits.
        resource.setrlimit(resource.RLIMIT_FSIZE, (3500, 3500))
        with unpacked(path) as files:
            assert len(files) == 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 3500))
        for context in (unpacked(path), private_copies({"a.tar": path})):
            with pytest.raises(ArtifactError, match=r"a\.tar': File too large"), context:
                pass

    _, status = os.waitpid(fork(limited), 0)
    assert status == 0
    assert names(tmp_path / "place") == []


def test_what_the_memory_has_no_room_for_is_copied_to_the_disk(tmp_path, monkeypatch, built):
    code = built / "small/code.ro"
    with private_copies({"code.ro": str(code)}) as files:
        assert files["code.ro"].startswith("/proc/")
    hole = tmp_path / "hole"
    with open(hole, "wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "place").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "place"))
    with pytest.raises(ArtifactError, match="hole': it has 1099511627776 bytes, and [0-9]+ are"):  # noqa: SIM117
        with private_copies({"hole": str(hole)}):
            pass
    monkeypatch.setattr(copies, "_sealed_memory_bytes", lambda: 10)
    with private_copies({"code.ro": str(code)}) as files:
        assert pathlib.Path(files["code.ro"]).read_bytes() == code.read_bytes()
        assert files["code.ro"].startswith(str(tmp_path / "place"))
    assert names(tmp_path / "place") == []


# Several at once


def at_once(*actions):
    for process in [fork(action) for action in actions]:
        assert os.waitpid(process, 0)[1] == 0


def repeat(action, times=50):
    for _ in range(times):
        action()


def test_of_two_writers_a_reader_sees_one_or_the_other(tmp_path, built):
    code = tmp_path / "code.ro"
    shutil.copy(built / "small/code.ro", code)
    write_record(code, A)
    write_hash_file(tmp_path, A.model)

    def read():
        assert (tmp_path / "hash.txt").read_text() in (A.model, B.model)
        assert read_record(code) in (A, B)

    at_once(
        *(lambda r=r: repeat(lambda: write_hash_file(tmp_path, r.model)) for r in (A, B)),
        *(lambda r=r: repeat(lambda: write_record(code, r)) for r in (A, B)),
        lambda: repeat(read, 200),
    )
    read()
    assert names(tmp_path) == ["code.ro", "hash.txt"]


def test_of_two_that_make_a_directory_each_makes_it_or_says_that_it_did_not(tmp_path):
    path = tmp_path / "deployment"

    def make(text):
        for _ in range(20):
            with (
                contextlib.suppress(OutputError),
                new_directory(str(path), overwrite=True) as new,
            ):
                fill(new, text)

    at_once(lambda: make("a"), lambda: make("b"))
    assert len({(path / name).read_text() for name in ("first", "second")}) == 1
    assert names(tmp_path) == ["deployment"]


def test_threads_wait_for_each_other_too(tmp_path):
    inside = []

    def work():
        with locked(str(tmp_path)):
            inside.append(1)
            assert len(inside) == 1
            threading.Event().wait(0.05)
            inside.pop()
            done.append(1)

    done = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert names(tmp_path) == []


# Files that change while they are read


@pytest.fixture
def during(monkeypatch):
    """Do something between the first and the second MiB that are hashed."""

    def prepare(action):
        class Progress:
            def update(self, size):
                nonlocal action
                if action:
                    action()
                action = None

        monkeypatch.setattr(files, "hashing", lambda *_: contextlib.nullcontext(Progress()))

    return prepare


@pytest.mark.parametrize("size", [0, 1 << 20, 3 << 20])
def test_a_file_that_is_cut_or_goes_on_while_it_is_hashed_is_an_error(tmp_path, during, size):
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 << 20))
    during(lambda: os.truncate(path, size))
    with pytest.raises(ArtifactError, match="weights' was written to while it was read"):
        file_sha256(str(path))


def test_a_file_that_is_written_to_while_it_is_hashed_is_an_error(tmp_path, during):
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 << 20))
    os.utime(path, (0, 0))

    def write():
        with open(path, "r+b") as file:
            file.write(b"new")

    during(write)
    with pytest.raises(ArtifactError, match="weights' was written to while it was read"):
        file_sha256(str(path))


def test_a_file_that_is_replaced_while_it_is_hashed_is_the_old_one(tmp_path, during):
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 << 20))

    def replace():
        with replacing(str(path)) as file:
            file.write(b"new")

    during(replace)
    assert file_sha256(str(path)) == (2 << 20, hashlib.sha256(bytes(2 << 20)).hexdigest())
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_an_artifact_that_changes_while_it_is_copied_is_an_error(
    tmp_path, built, monkeypatch, size
):
    path = tmp_path / "code.ro"
    shutil.copy(built / "small/code.ro", path)
    copied = path.read_bytes()
    original = record_io._copy

    def copy(source, start, end, target):
        original(source, start, end, target)
        if start == 0:
            os.truncate(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(record_io, "_copy", copy)
        with pytest.raises(ArtifactError, match=r"code\.ro' (has become|was written to)"):
            write_record(path, A, tmp_path / "out.ro")
    assert names(tmp_path) == ["code.ro"]
    path.write_bytes(copied)
    write_record(path, A, tmp_path / "out.ro")
    assert read_record(tmp_path / "out.ro") == A


# Other systems


@pytest.fixture
def windows(monkeypatch):
    """As far as it can be had elsewhere: what Windows lacks is missing, what it refuses fails."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "fchmod", "geteuid"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "O_BINARY", 1 << 40, raising=False)
    monkeypatch.setattr(os, "O_TEMPORARY", 1 << 41, raising=False)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    monkeypatch.setattr(files, "_OPEN_SECONDS", 0.2)
    original = {n: getattr(os, n) for n in ("open", "close", "unlink", "replace", "rename")}
    deleted_on_close = {}

    def denied(*_):
        raise PermissionError(errno.EACCES, "Access is denied")

    def is_open(path):
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{descriptor}")
                if os.path.join(target, "").startswith(os.path.join(os.path.realpath(path), "")):
                    return True
        return False

    def open_file(path, flags, mode=0o777, **keywords):
        if os.path.isdir(path) and not keywords:
            denied()
        descriptor = original["open"](path, flags & ((1 << 40) - 1), mode, **keywords)
        if flags & os.O_TEMPORARY:
            deleted_on_close[descriptor] = path
        return descriptor

    def close(descriptor):
        original["close"](descriptor)
        if path := deleted_on_close.pop(descriptor, None):
            original["unlink"](path)

    def guarded(name):
        def call(*paths, **keywords):
            if not keywords and any(is_open(path) for path in paths if os.path.lexists(path)):
                denied()
            if name == "rename" and os.path.lexists(paths[1]):
                raise FileExistsError(errno.EEXIST, "Cannot create a file when it already exists")
            return original[name](*paths, **keywords)

        return call

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "close", close)
    for name in ("unlink", "replace", "rename"):
        monkeypatch.setattr(os, name, guarded(name))


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as some on a network are."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)


@pytest.fixture(params=["windows", "no_locks"])
def host(request):
    return request.getfixturevalue(request.param)


@pytest.mark.usefixtures("host")
def test_everything_is_written_on_any_host(tmp_path, built):
    for name in ("code.ro", "lib.so"):
        shutil.copy(built / "small" / name, tmp_path)
    for record in (A, B, None, A):
        write_record(tmp_path / "code.ro", record)
        assert read_record(tmp_path / "code.ro") == record
    for _ in range(2):
        write_hash_file(tmp_path, A.model)
        seal(tmp_path)
        verify_seal(tmp_path)
    (tmp_path / "empty").mkdir()
    for path, overwrite in (("empty", False), ("a/b", False), ("a/b", True), ("a/c", True)):
        with new_directory(str(tmp_path / path), overwrite) as new:
            fill(new, path)
            seal(new)
        assert (tmp_path / path / "first").read_text() == path
        verify_seal(tmp_path / path)
    (tmp_path / "empty/first").write_text("kept")
    with pytest.raises(OutputError, match="not empty"), new_directory(str(tmp_path / "empty")):
        pass
    found = ["SHA256SUMS", "a", "code.ro", "empty", "hash.txt", "lib.so"]
    assert names(tmp_path) == found
    assert names(tmp_path / "a") == ["b", "c"]


@pytest.mark.usefixtures("windows")
def test_on_windows_a_directory_that_was_filled_meanwhile_is_not_replaced(tmp_path):
    def make():
        with new_directory(str(tmp_path / "a")) as new:
            fill(new, "new")
            (tmp_path / "a").mkdir()
            fill(tmp_path / "a", "kept")

    with pytest.raises(OutputError, match="not empty"):
        make()
    assert (tmp_path / "a/first").read_text() == "kept"
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("windows")
def test_on_windows_the_next_one_removes_what_a_killed_one_left(stale):
    write_hash_file(stale, A.model)
    assert names(stale) == ["hash.txt"]


@pytest.mark.usefixtures("windows")
def test_on_windows_what_someone_is_writing_is_not_removed(tmp_path):
    with new_directory(str(tmp_path / "b")) as new, replacing(str(tmp_path / "a")) as file:
        fill(new, "new")
        write_hash_file(tmp_path, A.model)
        file.write(b"new")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path / "b") == ["first", "second"]


@pytest.mark.usefixtures("windows")
def test_on_windows_a_file_is_replaced_when_its_reader_has_closed_it(tmp_path):
    path = tmp_path / "hash.txt"
    path.write_text("old")
    reader = open(path)  # noqa: SIM115
    timer = threading.Timer(0.1, reader.close)
    timer.start()
    write_hash_file(tmp_path, A.model)
    timer.join()
    assert path.read_text() == A.model
    with open(path), pytest.raises(OutputError, match=r"hash\.txt': Access is denied"):
        write_hash_file(tmp_path, B.model)
    assert path.read_text() == A.model
    assert names(tmp_path) == ["hash.txt"]


@pytest.mark.usefixtures("windows")
def test_on_windows_the_lock_is_a_file_that_goes_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.1)
    (tmp_path / "a").write_text("first")
    with locked(str(tmp_path)):
        assert [is_temporary(name) for name in names(tmp_path)] == [True, False]
        with pytest.raises(OutputError, match="has left '.lock.tvm-model-hash-tmp' there"):
            seal(tmp_path)
    assert names(tmp_path) == ["a"]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_nothing_is_taken_for_stale(stale):
    write_hash_file(stale, A.model)
    assert names(stale) == [STALE, "hash.txt"]


@pytest.mark.usefixtures("windows")
def test_without_o_nofollow_a_symbolic_link_is_still_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    open_regular(str(tmp_path / "link")).close()
    with pytest.raises(ArtifactError, match="it is a symbolic link"):
        open_regular(str(tmp_path / "link"), follow_symlinks=False)


def test_the_core_asks_the_system_for_nothing_that_windows_lacks():
    everywhere = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND"}
    for path in pathlib.Path(files.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("O_"):
                assert node.attr in everywhere, f"{path}:{node.lineno}: {node.attr}"
            elif isinstance(node, ast.Attribute):
                assert node.attr not in ("fchmod", "fchown", "getuid", "mkfifo"), path
            elif isinstance(node, (ast.Import, ast.ImportFrom)) and path.name not in (
                *("files.py", "copies.py"),  # which ask first what there is
            ):
                names = {name.name for name in node.names} | {getattr(node, "module", None)}
                assert not names & {"fcntl", "pwd", "resource", "termios"}, path


def test_a_junction_is_a_link(tmp_path, monkeypatch):
    class Entry:
        def stat(self, follow_symlinks):
            assert not follow_symlinks
            return type("Status", (), {"st_mode": stat.S_IFDIR, "st_reparse_tag": 0xA0000003})

    assert stat.S_ISDIR(files.mode_of(Entry()))
    monkeypatch.setattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", 0xA0000003, raising=False)
    assert stat.S_ISLNK(files.mode_of(Entry()))


# Killed


# Each takes its time, and is never at rest; `make fault` does it hundreds of times.
SAMPLE = {"save": 3, "move": 8}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whoever_is_killed_has_lost_nothing(built, operation):
    done = subprocess.run(
        [sys.executable, FAULT, str(SAMPLE.get(operation, 20)), operation],
        env={**os.environ, "FAULT_ARTIFACTS": str(built)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[operation] > 0, "none was killed in the middle"
