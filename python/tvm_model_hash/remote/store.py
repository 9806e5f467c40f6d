# SPDX-License-Identifier: Apache-2.0
"""What lies behind URLs of any kind that fsspec knows: objects, and directories of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .. import limits
from ..errors import RemoteError
from .objects import MAX_REQUEST_BYTES, Object, State, reason_of

_WEB = ("http", "https")
_LOCAL = ("file", "local")

# What stores call that by which versions of an object differ.
_VERSION_KEYS = (
    *("ETag", "etag", "VersionId", "version_id", "generation", "md5Hash", "content_md5"),
    *("LastModified", "last_modified", "updated", "mtime", "modified", "modify", "created"),
    *("sha", "blob_id", "oid", "lfs", "xet_hash", "last_commit", "checksum"),
)


class StoreObject(Object):
    """An object in a store that fsspec has a file system for."""

    def __init__(self, url: str, file_system: Any, path: str) -> None:
        self._file_system, self._path = file_system, path
        with _asking(url):
            # What a listing has said of it may be in other words than what is asked for later.
            file_system.invalidate_cache()
            # A cache of its own would transfer what nobody asks for.
            self._file = file_system.open(path, "rb", cache_type="none")
            # To open most files is to ask for this.
            info = getattr(self._file, "details", None) or file_system.info(path)
            if info.get("type") == "directory":
                raise RemoteError(f"cannot read {url!r}: it is a directory, expected a file")
            if not isinstance(info.get("size"), int):
                raise RemoteError(f"cannot read {url!r}: the store does not say how large it is")
            self._can_seek = self._file.seekable()
        super().__init__(url, _state(info))

    @classmethod
    def open(cls, url: str, may_download: bool) -> StoreObject:
        """Open an object.

        Parameters
        ----------
        url : str
            Where it lies.
        may_download : bool
            Whether all of it may be transferred, where the store gives no parts.

        Returns
        -------
        source : StoreObject

        Raises
        ------
        RemoteError
            If it cannot be read, or the store gives no parts of it and it may not be transferred.
        """
        source = cls(url, *_located(url))
        if not source._can_seek:
            if not may_download:
                raise source.error(
                    f"the store gives no parts of it, and all of it is {source.state.size:,} bytes "
                    "to transfer: --download does that, or in Python "
                    "tvm_model_hash.downloading()"
                )
            source.take_whole()
        return source

    def fetch(self, start: int, end: int) -> bytes:  # noqa: D102
        try:
            with _asking(self.url):
                self._file.seek(start)
                return self._read(end - start)
        except RemoteError:
            self.check_unchanged()  # which is what some stores refuse
            raise

    def stream(self) -> Iterator[bytes]:  # noqa: D102
        with _asking(self.url):
            if self._can_seek:
                self._file.seek(0)
            while data := self._read(MAX_REQUEST_BYTES):
                yield data
        self.check_unchanged()

    def current_state(self) -> State:  # noqa: D102
        with _asking(self.url):
            self._file_system.invalidate_cache()
            return _state(self._file_system.info(self._path))

    def _read(self, size: int) -> bytes:
        pieces = []
        while size and (data := self._file.read(size)):
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)


def _state(info: dict[str, Any]) -> State:
    said = tuple((key, str(info[key])) for key in _VERSION_KEYS if info.get(key) is not None)
    return State(info["size"], said)


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Turn what goes wrong into an error that names the URL, whatever a file system raises."""
    try:
        yield
    except RemoteError:
        raise
    except FileNotFoundError:
        raise RemoteError(f"cannot read {url!r}: there is nothing") from None
    except PermissionError as error:
        raise RemoteError(f"cannot read {url!r}: not permitted ({reason_of(error, url)})") from None
    except Exception as error:  # those of a store's library are of no common type
        # Not "from error": the message of that may have secrets in it.
        raise RemoteError(f"cannot read {url!r}: {reason_of(error, url)}") from None


def _located(url: str) -> tuple[Any, str]:
    """The file system that a URL is of, and the path in it."""
    protocol = _protocol(url)
    _check_installed(url)
    from fsspec.registry import get_filesystem_class

    try:
        cls = get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise RemoteError(f"cannot read {url!r}: {reason_of(error, url)}") from None
    with _asking(url):
        file_system = cls(**cls._get_kwargs_from_urls(url))
        return file_system, cls._strip_protocol(url)


def _check_installed(url: str) -> None:
    protocol = _protocol(url)
    if protocol in _LOCAL:
        path = url.partition("://")[2]
        raise RemoteError(f"{url!r} is on this machine: write its path, {path!r}")
    try:
        import fsspec  # noqa: F401

        if protocol in _WEB:
            import aiohttp  # noqa: F401
    except ImportError as error:
        raise RemoteError(
            f'cannot read {url!r} without {error.name}: pip install "tvm-model-hash[remote]"'
        ) from None


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _web(url: str) -> ModuleType | None:
    """The part for web servers, if a URL is of one."""
    if _protocol(url) not in _WEB:
        return None
    _check_installed(url)
    from . import web

    return web


def open_object(url: str, may_download: bool) -> Object:
    """Open an object.

    Parameters
    ----------
    url : str
        Where it lies.
    may_download : bool
        Whether all of it may be transferred, where no parts of it can be had.

    Returns
    -------
    source : Object

    Raises
    ------
    RemoteError
        If it cannot be read, or what is needed for that is not installed.
    """
    web = _web(url)
    return (StoreObject if web is None else web.WebObject).open(url, may_download)


def is_directory(url: str) -> bool:
    """Whether a URL is that of a directory.

    Parameters
    ----------
    url : str
        Any URL.

    Returns
    -------
    is_directory : bool
        At a web server, whether it ends in ``/``.

    Raises
    ------
    RemoteError
        If the store can't be asked.
    """
    web = _web(url)
    if web is not None:
        return bool(web.is_directory(url))
    file_system, path = _located(url)
    with _asking(url):
        file_system.invalidate_cache()
        return bool(file_system.info(path)["type"] == "directory")


def entries(url: str) -> dict[str, bool]:
    """List a directory.

    Parameters
    ----------
    url : str
        Its URL.

    Returns
    -------
    entries : dict of str to bool
        For each name directly below, whether it is a directory.

    Raises
    ------
    RemoteError
        If it can't be listed, or has a name in it that no file can have.
    """
    web = _web(url)
    if web is not None:
        found: dict[str, bool] = web.entries(url)
        return found
    file_system, path = _located(url)
    root = path.rstrip("/") + "/"
    found = {}
    with _asking(url):
        file_system.invalidate_cache()
        listed = file_system.ls(path, detail=True)
    for info in listed:
        name, is_inner = info["name"], info["type"] == "directory"
        if name in (path, root) and not is_inner and not info["size"]:
            continue  # what some stores keep in the place of a directory
        below = name.removeprefix(root)
        if not name.startswith(root) or below in ("", ".", "..") or "/" in below:
            raise RemoteError(f"cannot list {url!r}: {name!r} in it is no name of a file")
        found[below] = is_inner
    return found


def walk(url: str) -> Iterator[str]:
    """Find all files below a directory.

    Parameters
    ----------
    url : str
        Its URL.

    Yields
    ------
    name : str
        Of each file, separated by ``/``, sorted in each directory.

    Raises
    ------
    RemoteError
        If a directory can't be listed, or there are too many files or directories.
    """
    count = 0
    pending = [""]
    while pending:
        directory = pending.pop()
        if directory.count("/") > limits.DIRECTORY_DEPTH:
            raise RemoteError(
                f"cannot list {url!r}: it is deeper than {limits.DIRECTORY_DEPTH} directories"
            )
        place = join(url, directory) if directory else url
        inner = []
        for name, is_inner in sorted(entries(place).items()):
            count += 1
            if count > limits.DIRECTORY_FILES:
                raise RemoteError(
                    f"cannot list {url!r}: it has over {limits.DIRECTORY_FILES:,} files"
                )
            if is_inner:
                inner.append(f"{directory}{name}/")
            else:
                yield directory + name
        pending += reversed(inner)


def join(directory: str, name: str) -> str:
    """Make the URL of what has a name below a directory."""
    if _protocol(directory) in _WEB:
        web = _web(directory)
        assert web is not None
        return str(web.join(directory, name))
    scheme, _, rest = directory.partition("://")
    above = rest.rstrip("/")
    return f"{scheme}://{above}/{name}" if above else f"{scheme}://{name}"


def parent(url: str) -> str:
    """Make the URL of the directory that something lies in."""
    if _protocol(url) in _WEB:
        web = _web(url)
        assert web is not None
        return str(web.parent(url))
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rstrip('/').rpartition('/')[0]}"


def is_pattern(url: str) -> bool:
    """Whether there is a character in a URL for which :func:`expand` looks for names."""
    return any(_is_magic(part, _protocol(url) in _WEB) for part in url.split("/")[3:])


def _is_magic(part: str, is_web: bool) -> bool:
    return re.search("[*[]" if is_web else "[*?[]", part) is not None


def expand(pattern: str) -> list[str]:
    """Find what a URL with ``*``, ``?`` or ``[...]`` in its path stands for.

    Parameters
    ----------
    pattern : str
        The URL. Between two ``/`` these stand for parts of a name, as for a shell, but of one that
        begins with a dot too. At a web server, ``?`` is no such character.

    Returns
    -------
    urls : list of str
        Sorted; the URL itself where nothing fits, or there is none of these in it.

    Raises
    ------
    RemoteError
        If a directory can't be listed.
    """
    is_web = _protocol(pattern) in _WEB
    scheme, _, rest = pattern.partition("://")
    first, *parts = rest.split("/")
    begin = next((i for i, part in enumerate(parts) if _is_magic(part, is_web)), None)
    if begin is None:
        return [pattern]
    found = [f"{scheme}://{'/'.join([first, *parts[:begin]])}"]
    for index, part in enumerate(parts[begin:], begin + 1):
        if not part:  # a "/" at the end
            continue
        found = [
            join(url, name) + "/" * (is_inner and is_web)
            for url in found
            for name, is_inner in sorted(entries(join(url, "")).items())
            if fnmatch.fnmatchcase(name, part) and (is_inner or index == len(parts))
        ]
    return found or [pattern]
