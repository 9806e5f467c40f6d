# SPDX-License-Identifier: Apache-2.0
"""A deployment in one file: an archive of what TVM wrote, as ``tvmc`` makes it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import limits
from ..boundary import reading
from ..containers import tar
from ..containers.window import Window
from ..errors import ArtifactError
from ..files import open_regular, state_of

_CHUNK_BYTES = 1024 * 1024
_HEADER_BYTES = 512


def is_archive(path: str) -> bool:
    """Whether a file begins as an archive does that :func:`unpacked` unpacks.

    Parameters
    ----------
    path : str
        Any file.

    Returns
    -------
    is_archive : bool
    """
    with open_regular(path) as file:
        data = file.read(_CHUNK_BYTES)
    if data.startswith(tar.GZIP_MAGIC):
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _HEADER_BYTES)
        except zlib.error:
            return False
    return tar.is_tar(Window(io.BytesIO(data), len(data), repr(path)))


@contextmanager
def unpacked(path: str) -> Iterator[dict[str, str] | None]:
    """Unpack an archive for as long as its files are read.

    Parameters
    ----------
    path : str
        Any file.

    Yields
    ------
    files : dict of str to str, or None
        For each file in the archive its name there, and the path of a private copy; None if the
        file is no tar archive, plain or compressed with gzip.

    Raises
    ------
    ArtifactError
        If the archive is damaged, or larger than what may be unpacked, or a name in it leads out of
        it or stands twice.
    """
    with ExitStack() as stack:
        with reading(path):
            file = stack.enter_context(open_regular(path))
            window = Window(file, state_of(file).size, repr(path))
            if window.size >= 2 and window.read(0, 2, "beginning") == tar.GZIP_MAGIC:
                content = tar.Gunzipped(window)
                window = Window(content, content.size, repr(path))
            files = None
            if tar.is_tar(window):
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                files = _unpack(path, window, directory)
        yield files


def _unpack(path: str, window: Window, directory: str) -> dict[str, str]:
    files: dict[str, str] = {}
    left = int(limits.PACKAGE_BYTES)
    free = shutil.disk_usage(directory).free
    for member in tar.members(window):
        name = member.name.removeprefix("./")
        copy_path = os.path.join(directory, name)
        below = name.split("/")
        if (
            name in files
            or {"", ".", ".."} & set(below)
            or "\0" in name
            or len(below) > limits.DIRECTORY_DEPTH
            # On Windows there are drives, and backslashes.
            or os.path.splitdrive(name)[0]
            or os.path.normpath(name).split(os.sep) != below
        ):
            raise ArtifactError(
                f"{path!r} has a file {member.name[:200]!r}, expected each name once, and names "
                f"below the archive, in up to {limits.DIRECTORY_DEPTH} directories"
            )
        left -= member.data.size
        free -= member.data.size
        if min(left, free) < 0:
            allowed = f"the limit of {limits.PACKAGE_BYTES}" if left < 0 else "is free for it"
            raise ArtifactError(
                f"{path!r} cannot be unpacked into {os.path.dirname(directory)!r}: with the file "
                f"{name!r} it has more bytes than {allowed}. Unpack it elsewhere, and check the "
                "directory"
            )
        os.makedirs(os.path.dirname(copy_path), exist_ok=True)
        with open(copy_path, "xb") as copy:
            for start in range(0, member.data.size, _CHUNK_BYTES):
                count = min(_CHUNK_BYTES, member.data.size - start)
                copy.write(member.data.read(start, count, f"file {name!r}"))
        files[name] = copy_path
    return files
