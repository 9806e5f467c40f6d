# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the readers: ``python tests/fuzz/run.py [--seconds N] [target ...]``.

Each target runs in a process of its own: over the corpus first, and then over what comes of it.
Where there is atheris, that is led by the code that is reached; where there is none, by chance
alone. What is kept and what is found lies in build/fuzz/<target>/, and is examined again by
``run.py <target> --file <path>``. It takes Linux.
"""

import paths  # which says where all else is

# isort: split

import argparse
import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import sys
import time
import traceback
from typing import NamedTuple

import corpus
from choices import Choices, change_bytes
from guard import Guard

try:
    import atheris
except ImportError:
    atheris = None
# Fuzzing is led by what is imported here for the first time.
with atheris.instrument_imports(["tvm_model_hash"]) if atheris else contextlib.nullcontext():
    import targets

MAX_INPUT_BYTES = 1 << 16
# Far more than the guard allows: for what hangs within one call of C.
HANGS_SECONDS = 20
FAILED = 77


class Result(NamedTuple):
    """What a run of a target gave."""

    name: str
    executions: int
    edges: int  # of the code that were reached; 0 without atheris
    inputs: int  # that were kept, because each reaches something of its own
    seconds: float
    finding: str  # the error, "" where there is none


def run(names, seconds, directory=paths.FOUND, jobs=2, seed=0):
    """Run targets, each in a process of its own.

    Parameters
    ----------
    names : iterable of str
        The targets.
    seconds : int
        For how long each, beside the corpus.
    directory : Path
        Where what is kept and found lies.
    jobs : int
        How many at a time.
    seed : int
        Of what is left to chance; 0 for another one each time.

    Yields
    ------
    result : Result
    """
    running, todo = {}, list(names)
    while running or todo:
        while todo and len(running) < jobs:
            name = todo.pop(0)
            own = pathlib.Path(directory, name)
            own.mkdir(parents=True, exist_ok=True)
            begin = time.monotonic()
            running[_fork(own / "log", _fuzz, name, seconds, seed, own)] = name, own, begin
        pid, status = os.wait()
        name, own, begin = running.pop(pid)
        yield _result(name, own / "log", status, time.monotonic() - begin)


def _fork(log, function, *arguments):
    """Call a function in a process of its own, which writes into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        function(*arguments)
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
        status = FAILED
    os._exit(status)


def _result(name, log, status, seconds):
    text = log.read_text(encoding="utf-8", errors="replace")
    numbers = re.findall(r"^#(\d+)\s.*?\bcov: (\d+) ft: \d+ corp: (\d+)", text, re.MULTILINE)
    finding = ""
    if status:
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*|^.*ERROR: .*", text, re.MULTILINE)
        finding = f"{(errors or [f'status {status}'])[0][:200]} (see {log})"
    return Result(name, *map(int, numbers[-1] if numbers else (0, 0, 0)), seconds, finding)


def _examiner(name, directory=None):
    """What examines an input, within limits that hold for all of this process."""
    function, guard = targets.TARGETS[name], Guard()
    targets.prepare(name)
    guard.limit_reservations()

    def examine(data):
        try:
            guard.run(function, data)
        except BaseException:
            if directory:
                path = directory / f"found-{hashlib.sha256(data).hexdigest()[:16]}"
                path.write_bytes(data)
                print(f"found: {path}")
            raise

    return examine


def _fuzz(name, seconds, seed, directory):
    seeds, kept = directory / "seeds", directory / "corpus"
    shutil.rmtree(seeds, ignore_errors=True)
    _write(seeds, corpus.inputs(name))
    kept.mkdir(exist_ok=True)
    if atheris is None:
        _by_chance(_examiner(name, directory), corpus.inputs(name), seconds, seed)
    else:
        options = [
            f"-artifact_prefix={directory}/",
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-timeout={HANGS_SECONDS}",
            f"-max_len={MAX_INPUT_BYTES}",
            "-rss_limit_mb=2048",
        ]
        examine = _examiner(name, directory)
        atheris.Setup([sys.argv[0], *options, str(kept), str(seeds)], examine)
        atheris.Fuzz()


def _by_chance(examine, inputs, seconds, seed):
    """Change the inputs at random."""
    inputs = [b"", *inputs]
    chooser, count = random.Random(seed or None), 0
    end = time.monotonic() + seconds
    while count < len(inputs) or time.monotonic() < end:
        data = inputs[count] if count < len(inputs) else chooser.choice(inputs)
        for _ in range(chooser.randrange(1, 5) if count >= len(inputs) else 0):
            data = change_bytes(data, Choices(chooser.randbytes(64)))
        examine(data)
        count += 1
    print(f"#{count} DONE cov: 0 ft: 0 corp: {len(inputs)}")


def _write(directory, inputs):
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main():
    names = list(targets.TARGETS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of: {', '.join(names)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    parser.add_argument("--directory", default=paths.FOUND, help="for what is kept and found")
    parser.add_argument("--file", type=pathlib.Path, help="examine this input, and nothing else")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(names):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if arguments.file:
        for name in arguments.targets:
            _examiner(name)(arguments.file.read_bytes())
        return
    print(f"{'target':20} {'executions':>12} {'edges':>7} {'inputs':>7} {'seconds':>8}  finding")
    failed = False
    todo = arguments.targets or names
    given = (arguments.seconds, arguments.directory, arguments.jobs, arguments.seed)
    for result in run(todo, *given):
        failed = failed or bool(result.finding)
        print(
            f"{result.name:20} {result.executions:12,} {result.edges:7,} {result.inputs:7,} "
            f"{result.seconds:8.0f}  {result.finding or 'none'}",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
