# SPDX-License-Identifier: Apache-2.0
"""Progress on a terminal, for what takes a while."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

# What is smaller is done before a bar would show, and does not wait for its import.
_MIN_BYTES = 64 * 1024 * 1024
_MIN_BYTES_IF_SLOW = 4 * 1024 * 1024


class _Silent:
    def update(self, size: int) -> None:
        """Do nothing."""


def hashing(total: int, name: str, is_slow: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Show progress while bytes are hashed, if that takes over a second on a terminal.

    Parameters
    ----------
    total : int
        How many bytes there are.
    name : str
        What is hashed, a file's name for example.
    is_slow : bool
        Whether they come in slower than from a disk.

    Returns
    -------
    progress : context manager
        Its ``update(size)`` is to be told of the bytes that are done.
    """
    least = _MIN_BYTES_IF_SLOW if is_slow else _MIN_BYTES
    if total < least or sys.stderr is None or not sys.stderr.isatty():
        return contextlib.nullcontext(_Silent())
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="B", unit_scale=True, delay=1, leave=False)
