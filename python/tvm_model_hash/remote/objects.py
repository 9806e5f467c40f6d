# SPDX-License-Identifier: Apache-2.0
"""An object in a store as a file that can seek, of which only what is asked for is transferred."""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
import urllib.parse
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..errors import RemoteError
from ..progress import hashing

#: What is transferred at least: an artifact is told of in a few places that lie far apart.
BLOCK_BYTES = 64 * 1024
#: What is transferred at most by one request, which is what a request for more is made of.
MAX_REQUEST_BYTES = 8 << 20

_KEPT_BYTES = 32 << 20

_MAX_REASON = 500  # characters
_GZIP_MAGIC = b"\x1f\x8b"


class State(NamedTuple):
    """By what one notices that an object was replaced.

    Parameters
    ----------
    size : int
        In bytes.
    version : tuple of (str, str)
        What else the store says of its content: an ETag, a time. Of a store that says nothing only
        another size is noticed.
    """

    size: int
    version: tuple[tuple[str, str], ...]


class _Blocks:
    """The blocks that were read last, of all objects together."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> bytes | None:
        with self._lock:
            data = self._blocks.get(key)
            if data is not None:
                self._blocks.move_to_end(key)
            return data

    def put(self, key: tuple[int, int], data: bytes) -> None:
        with self._lock:
            self._blocks[key] = data
            while len(self._blocks) > _KEPT_BYTES // BLOCK_BYTES:
                self._blocks.popitem(last=False)


_blocks = _Blocks()
_numbers = itertools.count()


class Object(ABC):
    """An object in a store, in one version.

    Parameters
    ----------
    url : str
        Where it lies.
    state : State
        Its state when it was opened; from what is another one, nothing is taken.
    """

    def __init__(self, url: str, state: State) -> None:
        self.url = url
        self.state = state
        self._number = next(_numbers)
        self._whole: BinaryIO | None = None
        self._lock = threading.Lock()
        # Where a request that goes on where the last one ended would begin, and how much it gets.
        self._next, self._ahead = 0, 1

    def block(self, index: int, last: int) -> bytes:
        """Give a block of ``BLOCK_BYTES``, shorter at the end.

        Parameters
        ----------
        index : int
            Which one.
        last : int
            The last of those that will be asked for next.

        Returns
        -------
        data : bytes

        Raises
        ------
        RemoteError
            If it cannot be read, or the object is no longer the one that was opened.
        """
        with self._lock:
            if self._whole is not None:
                self._whole.seek(index * BLOCK_BYTES)
                return self._whole.read(BLOCK_BYTES)
            data = _blocks.get((self._number, index))
            return self._fetch_blocks(index, last) if data is None else data

    def _fetch_blocks(self, index: int, last: int) -> bytes:
        # Who reads on from where the last request ended, reads on: twice as much each time.
        self._ahead = 2 * self._ahead if index == self._next else 1
        count = min(max(self._ahead, last + 1 - index), MAX_REQUEST_BYTES // BLOCK_BYTES)
        self._ahead = min(count, MAX_REQUEST_BYTES // BLOCK_BYTES)
        start = index * BLOCK_BYTES
        end = min(start + count * BLOCK_BYTES, self.state.size)
        data = self.fetch(start, end)
        if len(data) != end - start:
            raise self.error(f"{end - start} bytes were asked for, and {len(data)} came")
        self._next = index + count
        return self.keep(index, data)

    def keep(self, index: int, data: bytes) -> bytes:
        """Keep what was transferred, from a block on, and give that block."""
        for offset in range(0, len(data), BLOCK_BYTES):
            piece = data[offset : offset + BLOCK_BYTES]
            _blocks.put((self._number, index + offset // BLOCK_BYTES), piece)
        return data[:BLOCK_BYTES]

    def take_whole(self) -> None:
        """Transfer all of it once, into a temporary file that nobody else has, with progress.

        Raises
        ------
        RemoteError
            If that fails, or there is another amount of data than was said.
        """
        size = self.state.size
        # It has no name, so that it goes with the process however that ends.
        whole = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            count = 0
            with hashing(
                size, self.url.partition("?")[0].rpartition("/")[2], is_slow=True
            ) as progress:
                for data in self.stream():
                    count += len(data)
                    if count > size:
                        break
                    whole.write(data)
                    progress.update(len(data))
            if count != size:
                raise self.error(f"it is said to have {size} bytes, and {count} or more came")
        except OSError as error:
            whole.close()
            raise self.error(f"it cannot be kept in a temporary file: {error}") from None
        except BaseException:
            whole.close()
            raise
        self.have_whole(whole)

    def have_whole(self, whole: BinaryIO) -> None:
        """Read from a file that has all of the object, and from the store no more."""
        self._whole = whole

    @property
    def is_local(self) -> bool:
        """Whether all of it was transferred."""
        return self._whole is not None

    def check_unchanged(self) -> None:
        """Make sure that it is still the object that was opened.

        Raises
        ------
        RemoteError
            If it is another one, or the store does not say.
        """
        found = self.state if self.is_local else self.current_state()
        if found != self.state:
            raise self.changed(found)

    @abstractmethod
    def fetch(self, start: int, end: int) -> bytes:
        """Transfer a part by one request.

        Raises
        ------
        RemoteError
            If it cannot be read, or the object is no longer the one that was opened.
        """

    @abstractmethod
    def stream(self) -> Iterator[bytes]:
        """Transfer all of it, from its beginning.

        Raises
        ------
        RemoteError
            As :meth:`fetch`.
        """

    @abstractmethod
    def current_state(self) -> State:
        """Its state by now, as far as :meth:`fetch` has not compared it already.

        Raises
        ------
        RemoteError
            If the store does not say.
        """

    def error(self, problem: str) -> RemoteError:
        """Make the error for what went wrong."""
        return RemoteError(f"cannot read {self.url!r}: {problem}")

    def changed(self, found: State) -> RemoteError:
        """Make the error for an object that is no longer the one that was opened."""
        return RemoteError(
            f"{self.url!r} changed while it was read, from {_shown(self.state)} to {_shown(found)}"
            ": try again when nobody writes to it"
        )


def reason_of(error: Exception, url: str) -> str:
    """Say what a library of others' says went wrong, without what is secret in a URL.

    Parameters
    ----------
    error : Exception
        What it raised.
    url : str
        The URL that it was given, of which parts may stand in its message.

    Returns
    -------
    reason : str
    """
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    parts = urllib.parse.urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    for secret in (user, *user.split(":"), parts.query):
        for form in (secret, urllib.parse.unquote(secret)) if secret else ():
            reason = reason.replace(form, "***")
    return reason[:_MAX_REASON]


def _shown(state: State) -> str:
    said = "".join(f", {name} {value}" for name, value in state.version)
    return f"{state.size} bytes{said}"


class RemoteFile(io.RawIOBase):
    """An object as a file to read bytes from.

    Parameters
    ----------
    source : Object
        The object, which several files may share.
    is_shared : bool
        Whether who shares it looks for changes of it.
    """

    def __init__(self, source: Object, is_shared: bool) -> None:
        super().__init__()
        self.source = source
        self._is_shared = is_shared
        self._position = 0

    @property
    def state(self) -> State:
        """The object's state."""
        if not self._is_shared:
            self.source.check_unchanged()
        return self.source.state

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:  # noqa: D102
        base = (0, self._position, self.source.state.size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:  # noqa: D102
        # By what comes, not by what is said to be there: nothing is allocated for that.
        return b"".join(self._pieces(self.source.state.size if size is None else size))

    def readall(self) -> bytes:  # noqa: D102
        return self.read()

    def readinto(self, buffer: Any, /) -> int:  # noqa: D102
        view = memoryview(buffer).cast("B")
        count = 0
        for piece in self._pieces(len(view)):
            view[count : count + len(piece)] = piece
            count += len(piece)
        return count

    def _pieces(self, size: int) -> Iterator[bytes]:
        left = self.source.state.size - self._position
        left = max(0, left if size < 0 else min(size, left))
        last = (self._position + left - 1) // BLOCK_BYTES
        while left > 0:
            index, offset = divmod(self._position, BLOCK_BYTES)
            piece = self.source.block(index, last)[offset : offset + left]
            if not piece:
                raise self.source.error("it has become shorter")
            self._position += len(piece)
            left -= len(piece)
            yield piece


def opened(source: Object, is_shared: bool) -> RemoteFile:
    """Give a file of an object.

    Parameters
    ----------
    source : Object
        The object. What is compressed can't be read in parts, so it is transferred whole, once.
    is_shared : bool
        As in :class:`RemoteFile`.

    Returns
    -------
    file : RemoteFile
    """
    is_large = source.state.size > BLOCK_BYTES
    if is_large and not source.is_local and source.block(0, 0).startswith(_GZIP_MAGIC):
        source.take_whole()
    return RemoteFile(source, is_shared)
