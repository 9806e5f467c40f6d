# SPDX-License-Identifier: Apache-2.0
"""Progress on a terminal, for what takes a while."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

# What is smaller is done before a bar would show, and does not wait for its import.
_MIN_BYTES = 64 * 1024 * 1024
_MIN_BYTES_IF_SLOW = 4 * 1024 * 1024
# Before, what there is to go by is how long the first piece took.
_ESTIMATE_SECONDS = 3

# In a narrow window without a bar: the name is to be read, and the numbers.
_NARROW_COLUMNS = 60
_NARROW_FORMAT = "{desc}:{percentage:4.0f}% {n_fmt}/{total_fmt} {remaining}"
_FORMAT = "{desc}:{percentage:4.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left"
_NUMBERS_COLUMNS = 28


class _Silent:
    def update(self, size: int) -> None:
        """Do nothing."""


def escaped(text: str) -> str:
    """Escape what could write on a terminal by itself; names that come from files could.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    text : str
        The same with escapes for what is not printable, so on one line.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            # No rate yet: then it has no estimate.
            fields: dict[str, Any] = super().format_dict
            return {**fields, "rate": 0} if fields["elapsed"] < _ESTIMATE_SECONDS else fields

    columns = _columns()
    is_narrow = columns < _NARROW_COLUMNS
    return Bar(
        total=total,
        desc=_shortened(escaped(name), columns - _NUMBERS_COLUMNS if is_narrow else columns // 3),
        bar_format=_NARROW_FORMAT if is_narrow else _FORMAT,
        unit="B",
        unit_scale=True,
        delay=1,
        leave=False,
        miniters=1,
        mininterval=0.2,
        dynamic_ncols=True,
        smoothing=0,  # the average: what follows is as much work as what was
    )


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _shortened(name: str, length: int) -> str:
    length = max(length, 4)
    return name if len(name) <= length else name[: length - 2] + ".."
