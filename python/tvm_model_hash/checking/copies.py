# SPDX-License-Identifier: Apache-2.0
"""Private copies of files, so that what was checked is what is loaded."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from ..boundary import reading
from ..errors import ArtifactError, ModelHashError, without_secrets
from ..files import one_version, open_regular, state_of

_CHUNK_BYTES = 1024 * 1024
_NUMBER_BITS = 40

_copies = itertools.count()


@contextmanager
def private_copies(files: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Copy files to where nobody else changes them. Each is read once.

    Parameters
    ----------
    files : mapping of str to str
        For each file its name and its path.

    Yields
    ------
    copies : dict of str to str
        For each name the path of the copy, for as long as the block lasts. On Linux it is in memory
        and can't be changed any more; elsewhere it is in a directory of this user's only.

    Raises
    ------
    ArtifactError
        If a file can't be read or copied. Errors from inside the block name the file and not its
        copy.
    """
    with ExitStack() as stack:
        copies = {}
        try:
            with one_version():
                for name, path in files.items():
                    copies[name] = stack.enter_context(_copy(name, path))
            yield copies
        except ModelHashError as error:
            for name, copy in copies.items():
                path = repr(without_secrets(files[name]))
                error.args = tuple(
                    text.replace(repr(copy), path) if isinstance(text, str) else text
                    for text in error.args
                )
            raise


@contextmanager
def _copy(name: str, path: str) -> Iterator[str]:
    with ExitStack() as stack:
        with reading(path):
            source = stack.enter_context(open_regular(path))
            size = state_of(source).size
            # TVM unpacks a tar beside itself, and asks for its suffix.
            if not name.endswith(".tar") and size <= _sealed_memory_bytes():
                copy = stack.enter_context(_sealed_memory(source))
            else:
                directory = stack.enter_context(
                    tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
                )
                free = shutil.disk_usage(directory).free
                if size > free:
                    raise ArtifactError(
                        f"cannot copy {path!r}: it has {size} bytes, and {free} are free in "
                        f"{os.path.dirname(directory)!r}. Set TMPDIR to a place with more"
                    )
                copy = os.path.join(directory, os.path.basename(name))
                with open(copy, "xb") as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
            source.close()
        yield copy


def _sealed_memory_bytes() -> int:
    """How much may be copied into memory that can be sealed; -1 where there is none."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return -1
    # Files may have holes, or be larger than what the process that loads them leaves of memory.
    with open("/proc/meminfo", encoding="ascii") as lines:
        found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 // 2 if found else 0


@contextmanager
def _sealed_memory(source: BinaryIO) -> Iterator[str]:
    import fcntl

    descriptor = os.memfd_create("tvm-model-hash", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        # A path that was never used before: the loader gives the library that it has loaded from
        # an equal path, and the number of a descriptor comes again.
        number = next(_copies)
        bits = (number >> bit & 1 for bit in range(_NUMBER_BITS))
        yield "/proc/self/fd" + "".join("/." if bit else "/" for bit in bits) + f"/{descriptor}"
    finally:
        os.close(descriptor)
