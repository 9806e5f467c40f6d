# SPDX-License-Identifier: Apache-2.0
"""Hashing several streams of one model at the same time, each on a thread of its own.

SHA-256 takes the time, and Python's releases the interpreter's lock; fetching goes on meanwhile.

The streams have the tensors in orders of their own: ``model`` in that of the message, ``graph`` and
``weights`` in that of their use. Where the two agree each tensor is fetched once, for both. So it
is where they differ by no more than ``_KEPT_BYTES``, the size of what is kept for the other stream.
A tensor that is needed again later than that is fetched twice: SHA-256 can't be computed out of
order, so one would have to keep all of it instead. A stream whose order is another one altogether
goes through the model on its own, beside the first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .contents import Content

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_KEPT_BYTES = 16 << 20

# What is fetched before it is hashed: at most so much, but at least one piece.
_QUEUED_BYTES = 16 << 20

# How far the model's stream goes ahead alone to the tensor that the canonical one waits for.
_AHEAD_BYTES = 64 << 20

# Larger pieces are not fetched while another one is in use, so that there is one of them at a time.
_LARGE_BYTES = 32 << 20

# Smaller ones are joined, because to hand one to a thread takes as long as to hash it.
_SMALL_BYTES = 1 << 16

#: A hash, and what goes into it.
Item: TypeAlias = tuple[Any, "bytes | Content"]


class _Next(NamedTuple):
    digest: Any
    data: bytes | None
    content: Content | None = None
    number: int = 0


def hash_streams(model: Iterable[Item], canonical: Iterable[Item], progress: Any) -> None:
    """Hash the model's stream and the canonical ones.

    Parameters
    ----------
    model, canonical : iterable of Item
        The two streams. Contents of the second are hashed as ``masked``.
    progress : object
        Its ``update(size)`` is told of the bytes of the first that are done.
    """
    from concurrent.futures import ThreadPoolExecutor

    items = list(model)
    # Each starts its thread when something large comes.
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        _Pass(_Stream(items, one), _Stream(canonical, other), _offsets(items), progress).run()


def size_of(data: bytes | Content) -> int:
    """Tell how many bytes a piece of a stream has."""
    return data.size if isinstance(data, Content) else len(data)


def _offsets(items: list[Item]) -> dict[Content, int]:
    offsets: dict[Content, int] = {}
    offset = 0
    for _, data in items:
        if isinstance(data, Content):
            offsets[data] = offset
        offset += size_of(data)
    return offsets


class _Stream:
    """One stream: what comes next in it, and the thread that hashes it."""

    def __init__(self, items: Iterable[Item], pool: ThreadPoolExecutor):
        self.done = 0
        self._items = _pieces(items)
        self._pool = pool
        self._small: list[bytes] = []
        self._small_size = 0
        self._digest: Any = None
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_size = 0
        self.next: _Next | None = next(self._items, None)

    def hash_next(self, data: bytes) -> None:
        """Hash the next piece, whose bytes these are, and go on to the one after it."""
        assert self.next is not None
        digest = self.next.digest
        if digest is not self._digest:
            self._hash_small()
            self._digest = digest
        if len(data) < _SMALL_BYTES:
            self._small.append(data)
            self._small_size += len(data)
            if self._small_size >= 16 * _SMALL_BYTES:
                self._hash_small()
        else:
            self._hash_small()
            self._start(data)
        self.done += len(data)
        self.next = next(self._items, None)
        if self.next is None:
            self._hash_small()

    def wait(self, size: int = 0) -> None:
        """Wait until no more than so many bytes, or one piece, are left to hash."""
        while self._waiting_size > size and len(self._waiting) > bool(size):
            future, done = self._waiting.popleft()
            future.result()
            self._waiting_size -= done

    def _hash_small(self) -> None:
        if self._small:
            self._start(b"".join(self._small))
        self._small.clear()
        self._small_size = 0

    def _start(self, data: bytes) -> None:
        if not self._waiting and len(data) < _SMALL_BYTES:
            self._digest.update(data)
            return
        self._waiting.append((self._pool.submit(self._digest.update, data), len(data)))
        self._waiting_size += len(data)


def _pieces(items: Iterable[Item]) -> Iterator[_Next]:
    for digest, data in items:
        if isinstance(data, Content):
            for index in range(len(data)):
                yield _Next(digest, None, data, index)
        else:
            yield _Next(digest, data)


class _Pass:
    def __init__(
        self, model: _Stream, canonical: _Stream, offsets: dict[Content, int], progress: Any
    ):
        self.model, self.canonical = model, canonical
        self.offsets = offsets
        self.progress = progress
        self.kept: OrderedDict[tuple[Content, int], bytes] = OrderedDict()
        self.kept_size = 0

    def run(self) -> None:
        """Hash both to their ends."""
        while (stream := self._turn()).next is not None:
            step = stream.next
            data = step.data
            if step.content is not None:
                data = self._fetch(step.content, step.number)
                if stream is self.canonical:
                    data = step.content.masked(step.number, data)
            assert data is not None
            stream.hash_next(data)
            if stream is self.model:
                self.progress.update(len(data))
        self.model.wait()
        self.canonical.wait()

    def _turn(self) -> _Stream:
        step = self.canonical.next
        if step is None or self.model.next is None:
            return self.model if step is None else self.canonical
        if step.content is None or (step.content, step.number) in self.kept:
            return self.canonical
        offset = self.offsets.get(step.content)
        if offset is None:  # a small one, which the model's stream has within its message
            return self.canonical
        ahead = offset + step.number * step.content.piece_bytes - self.model.done
        if 0 <= ahead <= _AHEAD_BYTES or self.model.done <= self.canonical.done:
            return self.model
        return self.canonical

    def _fetch(self, content: Content, index: int) -> bytes:
        key = content, index
        if key in self.kept:  # it has been fetched for the other stream
            data = self.kept.pop(key)
            self.kept_size -= len(data)
            return data
        is_large = min(content.size, content.piece_bytes) > _LARGE_BYTES
        if is_large:
            self._free(0)
        for stream in (self.model, self.canonical):
            stream.wait(0 if is_large else _QUEUED_BYTES)
        data = content.read(index)
        if self.canonical.next is not None and self.model.next is not None:
            self.kept[key] = data
            self.kept_size += len(data)
            self._free(_KEPT_BYTES)
        return data

    def _free(self, size: int) -> None:
        # The last one stays whatever its size is, unless none is to stay: it is in use anyway.
        while self.kept_size > size and len(self.kept) > (1 if size else 0):
            _, data = self.kept.popitem(last=False)
            self.kept_size -= len(data)
