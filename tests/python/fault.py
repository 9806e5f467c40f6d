# SPDX-License-Identifier: Apache-2.0
"""Kill what writes, at random moments: either what was there is there, or the new, and no part.

Each round starts a process that writes again and again, kills it with SIGKILL, looks at what it has
left, and then lets one finish, which has to leave nothing behind.

    python fault.py [ROUNDS [OPERATION ...]]
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

from tvm_model_hash.artifact.record_io import read_record, write_record
from tvm_model_hash.checking.deployment import Deployment
from tvm_model_hash.checking.hash_file import write_hash_file
from tvm_model_hash.checking.manifest import seal, verify_seal
from tvm_model_hash.files import new_directory
from tvm_model_hash.record import Record

A, B = (Record(digit * 64, graph=digit * 64, weights=digit * 64) for digit in "ab")


class HashFile:
    """hash.txt of one model, of another, of the first ..."""

    def __init__(self, directory, built):
        self.directory = directory
        self.write()

    def write(self):
        for record in (A, B):
            write_hash_file(self.directory, record.model)

    def check(self):
        assert (self.directory / "hash.txt").read_text() in (A.model, B.model)

    names = ("hash.txt",)


class Seal:
    """The manifest of a deployment in which a file was changed."""

    names = ("SHA256SUMS", "code.ro", "labels.txt", "lib.so")

    def __init__(self, directory, built):
        self.directory = directory
        for name in ("code.ro", "lib.so"):
            shutil.copy(built / "small" / name, directory)
        self.change()
        seal(directory)
        self.change()

    def change(self):
        (self.directory / "labels.txt").write_bytes(random.randbytes(1 << 20))
        manifest = self.directory / "SHA256SUMS"
        self.old = manifest.read_bytes() if manifest.exists() else None

    def write(self):
        seal(self.directory)

    def check(self):
        # Either the one that was there, which the change has broken, or a new one, which holds.
        if (self.directory / "SHA256SUMS").read_bytes() != self.old:
            verify_seal(self.directory)
            self.change()


class Tag:
    """A code.ro that gets one record, and another one."""

    names = ("code.ro",)
    records = (A, B)

    def __init__(self, directory, built):
        self.path = directory / "code.ro"
        shutil.copy(built / "small/code.ro", self.path)
        self.expected = {}
        for record in self.records:
            write_record(self.path, record)
            self.expected[self.path.read_bytes()] = record

    def write(self):
        for record in self.records:
            write_record(self.path, record)

    def check(self):
        assert read_record(self.path) == self.expected[self.path.read_bytes()]


class Strip(Tag):
    """A code.ro whose record is removed, and put in again."""

    records = (None, A)


class Directory:
    """A directory with two files of one content, that is replaced by one of another content."""

    names = ("deployment",)

    def __init__(self, directory, built):
        self.path = directory / "deployment"
        self.write()

    def write(self):
        for text in ("a", "b"):
            with new_directory(str(self.path), overwrite=True) as new:
                for name in ("first", "second"):
                    pathlib.Path(new, name).write_text(text * 100_000)

    def check(self):
        if not self.path.exists():  # killed between two renames: the next one brings it back
            bring_back(self.path)
        found = {(self.path / name).read_text() for name in ("first", "second")}
        assert found in ({"a" * 100_000}, {"b" * 100_000})
        assert sorted(os.listdir(self.path)) == ["first", "second"]


class Executables:
    """What writes executables of TVM's: here they are compiled, and never run.

    What TVM has run can't be forked, as its threads are gone then.
    """

    def __init__(self, directory, built):
        import numpy as np
        from artifacts import compile_model, dense
        from tvm.runtime import vm_hash

        weights = np.arange(512).reshape(16, 32)
        models = [dense(weights), dense(-weights)]
        self.executables = [compile_model(model, get_hash=True) for model in models]
        self.records = [vm_hash.get_record(exe) for exe in self.executables]
        self.directory = directory
        self.write()


class Save(Executables):
    """A deployment of one executable with late-bound constants, then of another one."""

    names = ("deployment",)

    def write(self):
        from tvm.runtime import vm_hash

        for exe in self.executables:
            vm_hash.save(exe, self.directory / "deployment", byte_limit=1024, overwrite=True)

    def check(self):
        path = self.directory / "deployment"
        if not path.exists():  # killed between two renames: the next one brings it back
            bring_back(path)
        assert sorted(os.listdir(path)) == ["SHA256SUMS", "code.ro", "consts", "hash.txt", "lib.so"]
        found = Deployment.read(path)
        assert not found.disagreement
        assert found.stated.model in [record.model for record in self.records]


class Move(Executables):
    """The constants of one executable, then of another one."""

    names = ("consts",)

    def write(self):
        path = self.directory / "consts"
        self.whole = getattr(self, "whole", {})
        for exe, record in zip(self.executables, self.records, strict=True):
            exe.move_late_bound_consts(str(path), 1024)
            self.whole[path.read_bytes()] = record.model
            exe.load_late_bound_consts(str(path))

    def check(self):
        path = self.directory / "consts"
        assert read_record(path).model == self.whole[path.read_bytes()]


def bring_back(path):
    """Write beside a directory, which brings back what a killed one has moved away."""
    with contextlib.suppress(KeyError), new_directory(str(path), overwrite=True):
        raise KeyError


OPERATIONS = {
    "hash_file": HashFile,
    "seal": Seal,
    "tag": Tag,
    "strip": Strip,
    "new_directory": Directory,
    "save": Save,
    "move": Move,
}


def fork(action):
    """Run an action in a process of its own, which ends with it."""
    process = os.fork()
    if process:
        return process
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def forever(write):
    while True:
        write()


def kill(name, rounds, built):
    """Kill one operation a number of times.

    Parameters
    ----------
    name : str
        Which, of ``OPERATIONS``.
    rounds : int
        How often.
    built : pathlib.Path
        Where ``small/code.ro`` and ``small/lib.so`` are.

    Returns
    -------
    left : int
        After how many of the rounds a temporary was left; where it is always 0, nothing was tried.
    """
    left = 0
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        operation = OPERATIONS[name](directory, built)
        started = time.perf_counter()
        operation.write()
        seconds = time.perf_counter() - started
        for _ in range(rounds):
            writer = fork(lambda: forever(operation.write))
            time.sleep(random.uniform(0, 3 * seconds))
            os.kill(writer, signal.SIGKILL)
            _, status = os.waitpid(writer, 0)
            assert os.WIFSIGNALED(status), "it has ended by itself"
            left += sorted(os.listdir(directory)) != sorted(operation.names)
            operation.check()
            operation.write()
            operation.check()
            found = sorted(os.listdir(directory))
            assert found == sorted(operation.names), f"{name} has left {found}"
    return left


def main(rounds, names, built):
    found = {}
    for name in names or OPERATIONS:
        found[name] = kill(name, rounds, built)
        print(f"{name}: {rounds} killed, {found[name]} in the middle", file=sys.stderr)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    if "FAULT_ARTIFACTS" in os.environ:
        artifacts = pathlib.Path(os.environ["FAULT_ARTIFACTS"])
        main(int(sys.argv[1]), sys.argv[2:], artifacts)
    else:
        # In a process of its own, which has not loaded TVM: what it runs can't be forked.
        from artifacts import build, run

        os.environ["FAULT_ARTIFACTS"] = str(build())
        run(sys.executable, __file__, *(sys.argv[1:] or ["300"]))
