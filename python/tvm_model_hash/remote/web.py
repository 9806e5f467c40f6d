# SPDX-License-Identifier: Apache-2.0
"""Objects at a web server: what it answers is compared with what was asked for, each time."""

from __future__ import annotations

import asyncio
import html.parser
import io
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import aiohttp
import fsspec
from fsspec.asyn import sync

from ..errors import RemoteError
from .objects import BLOCK_BYTES, Object, State, reason_of

_CONNECT_SECONDS, _SILENCE_SECONDS, _REQUEST_SECONDS = 30, 60, 300
_CHUNK_BYTES = 1 << 20
_MAX_LISTING_BYTES = 16 << 20

_RANGE = re.compile(r"bytes (?:(?P<first>[0-9]+)-(?P<last>[0-9]+)|\*)/(?P<size>[0-9]+)")
# How servers say what a page is that lists a directory. An index.html is none, whatever it links.
_LISTING_TITLE = re.compile(r"\s*(index of|directory listing for|directory:)\s", re.IGNORECASE)


class WebObject(Object):
    """An object at a web server."""

    @classmethod
    def open(cls, url: str, may_download: bool) -> WebObject:
        """Open an object, by asking for its first block.

        Parameters
        ----------
        url : str
            Where it lies.
        may_download : bool
            Whether all of it may be transferred, where the server gives no parts.

        Returns
        -------
        source : WebObject

        Raises
        ------
        RemoteError
            If it cannot be read, or the server gives no parts of it and it may not be transferred.
        """
        answer = _ask(url, (0, BLOCK_BYTES))
        if answer.url == _with_slash(url) != url:
            raise RemoteError(f"{url!r} is a directory: write {_with_slash(url)!r}")
        source = cls(url, State(answer.size or 0, answer.version))
        if answer.is_whole:
            source.have_whole(io.BytesIO(answer.data))
        elif answer.is_part:
            source._check_part(answer, 0, min(BLOCK_BYTES, source.state.size))
            source.keep(0, answer.data)
        elif answer.size is None:
            raise source.error("the server gives no parts of it, and does not say how large it is")
        elif may_download:
            source.take_whole()
        else:
            raise source.error(
                f"the server gives no parts of it, and all of it is {answer.size:,} bytes to "
                "transfer: --download does that, or in Python tvm_model_hash.downloading()"
            )
        return source

    def fetch(self, start: int, end: int) -> bytes:  # noqa: D102
        answer = _ask(self.url, (start, end))
        found = State(self.state.size if answer.size is None else answer.size, answer.version)
        if found != self.state:
            raise self.changed(found)
        self._check_part(answer, start, end)
        return answer.data

    def stream(self) -> Iterator[bytes]:  # noqa: D102
        loop = _file_system(self.url).loop
        with _talking_to(self.url):
            response = sync(loop, _request, self.url, None)
            try:
                answer = _Answer.of(self.url, response)
                size = self.state.size if answer.size is None else answer.size
                found = State(size, answer.version)
                if found != self.state:
                    raise self.changed(found)
                while data := sync(loop, response.content.read, _CHUNK_BYTES):
                    yield data
            finally:
                loop.call_soon_threadsafe(response.close)

    def current_state(self) -> State:  # noqa: D102
        return self.state  # each answer was of it

    def _check_part(self, answer: _Answer, start: int, end: int) -> None:
        if (answer.first, answer.end) != (start, end) or len(answer.data) != end - start:
            raise self.error(
                f"the bytes {start} to {end} were asked for, and the server gave {answer.first} "
                f"to {answer.end}, {len(answer.data)} bytes"
            )


class _Answer:
    """What a server says of an object, and what it gives of it."""

    def __init__(self, url: str) -> None:
        #: The URL that was led to.
        self.url = url
        self.size: int | None = None
        self.version: tuple[tuple[str, str], ...] = ()
        self.first, self.end = 0, 0
        #: Whether a part was given, or all there is, or neither.
        self.is_part = self.is_whole = False
        self.data = b""

    @classmethod
    def of(cls, url: str, response: aiohttp.ClientResponse) -> _Answer:
        headers = response.headers
        answer = cls(str(response.url))
        _check_way(url, response)
        _check_status(url, response)
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RemoteError(
                f"cannot read {url!r}: the server sends it encoded as "
                f"{headers['Content-Encoding'][:40]!r}, expected the bytes as they are"
            )
        names = ("ETag", "Last-Modified")
        answer.version = tuple((name, headers[name]) for name in names if name in headers)
        if response.status == 200:
            answer.size = response.content_length
            return answer
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if not found or (found["first"] is None) != (response.status == 416):
            raise RemoteError(
                f"cannot read {url!r}: the server answers with the range "
                f"{headers.get('Content-Range', 'none')[:100]!r}, expected its bytes and the size"
            )
        answer.is_part = True
        answer.size = int(found["size"])
        if found["first"] is not None:
            answer.first, answer.end = int(found["first"]), int(found["last"]) + 1
        return answer


def _ask(url: str, wanted: tuple[int, int]) -> _Answer:
    with _talking_to(url):
        return sync(_file_system(url).loop, _answer, url, wanted)


async def _answer(url: str, wanted: tuple[int, int]) -> _Answer:
    async with await _request(url, wanted) as response:
        answer = _Answer.of(url, response)
        most = wanted[1] - wanted[0]
        if answer.is_part:
            answer.data = await _body(response, most) if answer.end else b""
        elif answer.size is None or answer.size <= most:
            # No more than what was asked for, though it was not asked for like this.
            answer.data = await _body(response, most + 1)
            answer.is_whole = len(answer.data) <= most and wanted[0] == 0
            if answer.is_whole:
                answer.size = len(answer.data)
        return answer


async def _request(url: str, wanted: tuple[int, int] | None) -> aiohttp.ClientResponse:
    file_system = _file_system(url)
    session = await file_system.set_session()
    options = dict(file_system.kwargs)
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    if wanted:
        headers["Range"] = f"bytes={wanted[0]}-{wanted[1] - 1}"
    options["timeout"] = aiohttp.ClientTimeout(
        total=_REQUEST_SECONDS if wanted else None,
        sock_connect=_CONNECT_SECONDS,
        sock_read=_SILENCE_SECONDS,
    )
    response: aiohttp.ClientResponse = await session.get(
        file_system.encode_url(url), headers=headers, **options
    )
    return response


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read to the end, or a byte more than there should be."""
    data = bytearray()
    while len(data) <= most and (more := await response.content.read(most + 1 - len(data))):
        data += more
    return bytes(data)


def _file_system(url: str) -> Any:
    # A proxy and passwords are taken from where other programs look for them, unless fsspec is
    # configured otherwise.
    options: dict[str, Any] = {"trust_env": True}
    for protocol in ("http", "https"):
        options |= fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    return fsspec.filesystem(url.partition("://")[0].lower(), client_kwargs=options)


class _talking_to:  # noqa: N801
    """Turn what goes wrong on the way into an error that names the URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RemoteError) or not isinstance(error, Exception):
            return
        problem = reason_of(error, self._url)
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            problem = "the server does not answer in time"
        # Not "from error": the message of that may have secrets in it.
        raise RemoteError(f"cannot read {self._url!r}: {problem}") from None


def _check_way(url: str, response: aiohttp.ClientResponse) -> None:
    schemes = [step.url.scheme for step in (*response.history, response)]
    if "https" in schemes and schemes[-1] != "https":
        raise RemoteError(
            f"cannot read {url!r}: the server leads to {str(response.url)!r}, where anybody on the "
            "way can change what is read: expected https"
        )


def _check_status(url: str, response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    reasons = {401: "not permitted", 403: "not permitted", 404: "there is nothing", 410: "gone"}
    reason = reasons.get(status, response.reason or "expected 200 or 206")
    raise RemoteError(f"cannot read {url!r}: {reason} (status {status})")


def _with_slash(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(path=parts.path.rstrip("/") + "/").geturl()


def is_directory(url: str) -> bool:
    """Whether a URL is that of a directory: one that ends in ``/``, or of a host alone."""
    path = urllib.parse.urlsplit(url).path
    return not path or path.endswith("/")


def entries(url: str) -> dict[str, bool]:
    """List a directory, where the server has a page for it.

    Parameters
    ----------
    url : str
        Its URL, with a ``/`` at the end.

    Returns
    -------
    entries : dict of str to bool
        What the page links to directly below: for each name whether it is a directory.

    Raises
    ------
    RemoteError
        If there is no such page, or the server has an own page instead of a list.
    """
    with _talking_to(url):
        page, base = sync(_file_system(url).loop, _listing, url)
    if urllib.parse.urlsplit(base)[:2] != urllib.parse.urlsplit(url)[:2]:
        raise RemoteError(f"cannot list {url!r}: the server leads to another one, {base!r}")
    links = _Links()
    links.feed(page)
    links.close()
    if not _LISTING_TITLE.match(links.title + " "):
        raise RemoteError(
            f"cannot list {url!r}: the server has no list of its files there, but the page "
            f"{links.title.strip()[:100]!r}. Check its files one by one, or a copy of it"
        )
    found: dict[str, bool] = {}
    for link in links.targets:
        name = _name_below(base, link)
        if name is not None:
            found[name.rstrip("/")] = name.endswith("/")
    return found


async def _listing(url: str) -> tuple[str, str]:
    async with await _request(url, None) as response:
        _Answer.of(url, response)
        if response.content_type != "text/html":
            raise RemoteError(
                f"cannot list {url!r}: the server answers with {response.content_type[:40]!r}, "
                "expected a page that lists files"
            )
        data = await _body(response, _MAX_LISTING_BYTES)
    if len(data) > _MAX_LISTING_BYTES:
        raise RemoteError(
            f"cannot list {url!r}: the list has over {_MAX_LISTING_BYTES} bytes, which is the limit"
        )
    return data.decode("utf-8", "replace"), str(response.url)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.title = ""
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag == "a":
            self.targets += [value for key, value in attrs if key == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def _name_below(base: str, link: str) -> str | None:
    """The name of what a link leads to; None if that is not directly below, as the way back."""
    try:
        target = urllib.parse.urlsplit(urllib.parse.urljoin(base, link))
    except ValueError:
        return None
    here = urllib.parse.urlsplit(base)
    path = urllib.parse.unquote(target.path)
    above = urllib.parse.unquote(here.path)
    if target[:2] != here[:2] or target.query or not path.startswith(above) or path == above:
        return None
    name = path[len(above) :]
    if name.rstrip("/") in ("", ".", "..") or "/" in name[:-1]:
        return None
    return name


def join(directory: str, name: str) -> str:
    """Make the URL of a file from that of the directory and its name below."""
    parts = urllib.parse.urlsplit(directory)
    path = f"{parts.path.rstrip('/')}/{urllib.parse.quote(name)}"
    return parts._replace(path=path, query="", fragment="").geturl()


def parent(url: str) -> str:
    """Make the URL of the directory that a file lies in."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rpartition("/")[0] + "/"
    return parts._replace(path=path, query="", fragment="").geturl()
