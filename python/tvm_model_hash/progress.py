# SPDX-License-Identifier: Apache-2.0
"""Progress on a terminal, for what takes a while."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

# What is smaller is done before a bar would show, and does not wait for its import.
_MIN_BYTES = 64 * 1024 * 1024


class _Silent:
    def update(self, size: int) -> None:
        """Do nothing."""


def hashing(total: int, name: str) -> contextlib.AbstractContextManager[Any]:
    """Show progress while bytes are hashed, if that takes over a second on a terminal.

    Parameters
    ----------
    total : int
        How many bytes there are.
    name : str
        What is hashed, a file's name for example.

    Returns
    -------
    progress : context manager
        Its ``update(size)`` is to be told of the bytes that are done.
    """
    if total < _MIN_BYTES or sys.stderr is None or not sys.stderr.isatty():
        return contextlib.nullcontext(_Silent())
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="B", unit_scale=True, delay=1, leave=False)
