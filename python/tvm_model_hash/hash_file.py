# SPDX-License-Identifier: Apache-2.0
"""``hash.txt``, the file that carries a model hash beside an artifact."""

from __future__ import annotations

import os

from .errors import OutputError
from .files import replacing
from .record import check_model_hash

HASH_FILE_NAME = "hash.txt"


def write_hash_file(directory: str | os.PathLike[str], model_hash: str) -> str:
    """Write ``hash.txt``: the 64 digits of the hash and nothing else.

    Parameters
    ----------
    directory : str or os.PathLike
        A directory that exists; a ``hash.txt`` in it is replaced.
    model_hash : str
        64 lowercase hexadecimal digits.

    Returns
    -------
    path : str
        The path of the file.

    Raises
    ------
    OutputError
        If the directory does not exist, is none, or can't be written to.
    """
    check_model_hash(model_hash, "the hash to write")
    directory = os.fspath(directory)
    if not os.path.isdir(directory):
        found = "is a file" if os.path.exists(directory) else "does not exist"
        raise OutputError(
            f"cannot write {HASH_FILE_NAME} into {directory!r}: it {found}, expected a directory"
        )
    path = os.path.join(directory, HASH_FILE_NAME)
    with replacing(path) as file:
        file.write(model_hash.encode("ascii"))
    return path
