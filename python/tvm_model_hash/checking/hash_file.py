# SPDX-License-Identifier: Apache-2.0
"""``hash.txt``, the file that carries a model hash beside an artifact."""

from __future__ import annotations

import os
import re

from .. import limits
from ..boundary import reads
from ..errors import InvalidHashError, OutputError
from ..files import open_regular, refuse_url, replacing
from ..record import RECORD_TAG, Record, check_model_hash

HASH_FILE_NAME = "hash.txt"

# ASCII's. What else Python takes for white space does not belong there.
_WHITE_SPACE = " \t\n\v\f\r"


@reads()
def read_hash_file(path: str) -> Record:
    """Read a file that holds a model hash, as people and tools write them.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    record : Record
        Of the hash alone, unless the file holds a record.

    Raises
    ------
    InvalidHashError
        If the file holds something else.
    ArtifactError
        If it cannot be read.
    """
    path = os.fsdecode(path)
    with open_regular(path) as file:
        data = file.read(limits.HASH_FILE_BYTES + 1)
    if len(data) > limits.HASH_FILE_BYTES:
        raise InvalidHashError(
            f"{path!r} has more than {limits.HASH_FILE_BYTES} bytes, expected 64 hexadecimal digits"
        )
    text = data.decode("utf-8", "replace").strip(_WHITE_SPACE)
    if text.startswith(RECORD_TAG):
        return Record.parse(text)
    return Record(parse_hash(text, repr(path)))


def parse_hash(text: str, where: str) -> str:
    """Find the model hash in a text that is one, give or take its form.

    Parameters
    ----------
    text : str
        64 hexadecimal digits in upper or lower case, with ``sha256:`` before them or, as
        ``sha256sum`` writes it, a file's name behind them, and white space around.
    where : str
        Where the text comes from, for the error's message.

    Returns
    -------
    model_hash : str
        64 lowercase hexadecimal digits.

    Raises
    ------
    InvalidHashError
        If the text is something else.
    """
    stripped = text.strip(_WHITE_SPACE)
    match = re.fullmatch(r"(?:sha256:)?([0-9a-fA-F]{64})(?: [^\r\n]+)?", stripped)
    if match:
        return match[1].lower()
    found = repr(text if len(text) <= 100 else text[:100] + "...") if text.strip() else "empty"
    raise InvalidHashError(f"{where} is {found}, not a model hash: expected 64 hexadecimal digits")


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
        If the directory does not exist, is not one, or can't be written to; the file is unchanged.
    """
    check_model_hash(model_hash, "the hash to write")
    directory = os.fsdecode(directory)
    refuse_url(directory)
    if not os.path.isdir(directory):
        found = "is a file" if os.path.exists(directory) else "does not exist"
        raise OutputError(
            f"cannot write {HASH_FILE_NAME} into {directory!r}: it {found}, expected a directory"
        )
    path = os.path.join(directory, HASH_FILE_NAME)
    with replacing(path) as file:
        file.write(model_hash.encode("ascii"))
    return path
