# SPDX-License-Identifier: Apache-2.0
"""Hashing a model's stream, and the contents in it each on its own, from the same bytes.

SHA-256 takes the time, and Python's releases the interpreter's lock: one thread hashes the stream,
another one the content, and meanwhile this one fetches the next piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from .contents import Content, Piece, Source

# Larger pieces are not fetched while another one is in use, so that there is one of them at a time.
_LARGE_BYTES = 32 << 20

# Smaller ones are joined, because to hand one to a thread takes as long as to hash it.
_SMALL_BYTES = 1 << 16


def hash_stream(pieces: Iterable[Piece], feeds_contents: bool, progress: Any) -> str:
    """Hash a stream.

    Parameters
    ----------
    pieces : iterable of Piece
        The stream.
    feeds_contents : bool
        Whether each content in it is fed, so that it has its own digest afterwards.
    progress : object
        Its ``update(size)`` is told of the bytes that are done.

    Returns
    -------
    digest : str
        SHA-256 of the stream, in hexadecimal digits.

    Raises
    ------
    ModelHashError
        If a piece cannot be fetched.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    stream = hashlib.sha256()
    small = bytearray()
    running: list[Future[None]] = []

    def wait() -> None:
        for future in running:
            future.result()
        running.clear()

    with ThreadPoolExecutor(2) as pool:  # they start when something large comes
        for piece, index, size in _steps(pieces):
            if size > _LARGE_BYTES:
                wait()
            data = piece if isinstance(piece, bytes) else piece.read(index)
            content = piece if feeds_contents and isinstance(piece, Content) else None
            progress.update(size)
            if size < _SMALL_BYTES and not index:  # else what is before it may be running
                small += data
                if content:
                    content.feed(index, data)
                if len(small) < 16 * _SMALL_BYTES:
                    continue
                content, data = None, b""
            wait()
            if small:
                stream.update(small)
                small.clear()
            if data:
                running.append(pool.submit(stream.update, data))
            if content:
                running.append(pool.submit(content.feed, index, data))
        wait()
    stream.update(small)
    return stream.hexdigest()


def _steps(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, int, int]]:
    for piece in pieces:
        if isinstance(piece, Source):
            for index in range(len(piece)):
                start = index * piece.piece_bytes
                yield piece, index, min(piece.piece_bytes, piece.size - start)
        else:
            yield piece, 0, len(piece)
