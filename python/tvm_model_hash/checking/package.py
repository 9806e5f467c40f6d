# SPDX-License-Identifier: Apache-2.0
"""A deployment in one file: an archive of what TVM wrote, as ``tvmc`` makes it."""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

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
        If the archive is damaged, or a name in it leads out of it or stands twice.
    """
    with open_regular(path) as file:
        size = state_of(file).size
        window = Window(file, size, repr(path))
        if window.size >= 2 and window.read(0, 2, "beginning") == tar.GZIP_MAGIC:
            content = tar.Gunzipped(window)
            window = Window(content, content.size, repr(path))
        if not tar.is_tar(window):
            yield None
            return
        with tempfile.TemporaryDirectory() as directory:
            files: dict[str, str] = {}
            for member in tar.members(window):
                name = member.name.removeprefix("./")
                if name in files or {"", ".", ".."} & set(name.split("/")):
                    raise ArtifactError(
                        f"{path!r} has a file {member.name!r}, expected each name once, and names "
                        "below the archive"
                    )
                files[name] = os.path.join(directory, name)
                os.makedirs(os.path.dirname(files[name]), exist_ok=True)
                with open(files[name], "xb") as copy:
                    for start in range(0, member.data.size, _CHUNK_BYTES):
                        count = min(_CHUNK_BYTES, member.data.size - start)
                        copy.write(member.data.read(start, count, f"file {name!r}"))
            yield files
