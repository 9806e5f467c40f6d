# SPDX-License-Identifier: Apache-2.0
"""The record's parser in C++, built with sanitizers, in a process of its own."""

import importlib.util
import os
import pathlib
import shlex
import struct
import subprocess

import paths

SOURCE = paths.HERE / "record_harness.cc"
PARSER = paths.ROOT / "src/runtime/vm/executable_hash.cc"
PROGRAM = paths.FOUND / "record_harness"
# TVM's own library is built without: its types and its leaks are not looked into.
OPTIONS = "-std=c++17 -O1 -g -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover"
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
LIBRARIES = ("dlpack", "dmlc-core")


def build():
    """Build the harness, unless it is newer than its sources."""
    times = [path.stat().st_mtime for path in (SOURCE, PARSER)]
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > max(times):
        return
    tvm = pathlib.Path(importlib.util.find_spec("tvm").origin).parent
    include = [tvm / name for name in ("include", *map("3rdparty/{}/include".format, LIBRARIES))]
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    temporary = PROGRAM.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [
            *shlex.split(os.environ.get("CXX", "g++")),
            *OPTIONS.split(),
            "-DDMLC_USE_LOGGING_LIBRARY=<tvm/runtime/logging.h>",
            f"-I{PARSER.parent}",
            *(word for path in include for word in ("-isystem", str(path))),
            str(SOURCE),
            "-o",
            str(temporary),
            f"-L{tvm}",
            "-ltvm_runtime",
            f"-Wl,-rpath,{tvm}",
            "-Wl,--allow-shlib-undefined",
        ],
        check=True,
    )
    temporary.rename(PROGRAM)


class Harness:
    """The running program."""

    def __init__(self):
        build()
        self._process = subprocess.Popen(
            [str(PROGRAM)],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def accepts(self, data):
        """Whether a record is set, and is given back as it is.

        Raises
        ------
        AssertionError
            If a sanitizer has ended the program, or the record is given back as another.
        """
        self._process.stdin.write(struct.pack("<I", len(data)) + data)
        self._process.stdin.flush()
        said = self._process.stdout.read(1)
        assert said in (b"+", b"-"), f"the harness said {said!r} to {data!r}"
        return said == b"+"
