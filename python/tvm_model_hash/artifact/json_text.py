# SPDX-License-Identifier: Apache-2.0
"""JSON whose record is put in, replaced and taken out as text.

To parse a file and write it again would lay it out anew. So an edit touches the characters of one
member, and taking out what was put in gives the file back to the byte.
"""

from __future__ import annotations

import itertools
import json
import re
import reprlib
from functools import cached_property
from typing import Any, NamedTuple, TypeGuard

from .. import limits
from ..errors import ArtifactError, RecordError
from ..record import Record
from .carrier import Patch, Source

#: The key of the record.
RECORD_KEY = "model_hash_record"

_HEAD_BYTES = 256
_CHUNK_BYTES = 1024 * 1024
# A byte order mark, which some readers drop, is an error that has to be told.
_FIRST_KEY = re.compile(rb'(?:\xef\xbb\xbf)?[ \t\n\r]*\{[ \t\n\r]*"([^"\\]*)"[ \t\n\r]*:')
_BEGINNING = re.compile(rb'[ \t\n\r]*(\{[ \t\n\r]*("|\Z)|\Z)')
# Messages show the beginning of what is long or nested deeply.
_REPR = reprlib.Repr()
_REPR.maxstring = 100
_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"]*"?')
_STEPS = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]
_NO_BRACKETS = bytes(byte for byte in range(256) if not _STEPS[byte])


class Member(NamedTuple):
    """A member of an object: its value, and where in the text it stands."""

    value: Any
    gap: int  # behind the comma or the brace before the key
    start: int
    key_end: int
    value_start: int
    end: int


class Edit(NamedTuple):
    """A change of one range of a text."""

    start: int
    end: int
    text: str


class JsonObject:
    """An object in a text.

    Parameters
    ----------
    text : str
        The whole text.
    source : str
        What it is, for the errors' messages.
    start : int
        Where the object begins, or the white space before it.

    Raises
    ------
    ArtifactError
        If there is no object, or a key stands twice in one, or a number is not one of JSON's.
    """

    def __init__(self, text: str, source: str, start: int = 0) -> None:
        self.text = text
        self.source = source
        self.members: dict[str, Member] = {}
        try:
            #: Behind the brace that opens the object, and behind the one that closes it.
            self.start = _skip(text, start, "{")
            self.end = self._read_members()
        except ValueError as error:
            raise ArtifactError(f"{source} is damaged: it is not valid JSON: {error}") from error

    @classmethod
    def whole(cls, data: bytes, source: str) -> JsonObject:
        """Read a text that is one object.

        Parameters
        ----------
        data : bytes
            The text.
        source : str
            What it is, for the errors' messages.

        Returns
        -------
        found : JsonObject

        Raises
        ------
        ArtifactError
            If it is not one, or is not UTF-8, or more than white space stands behind it.
        """
        _check_structure(data, source)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{source} is damaged: it is not UTF-8: {error}") from error
        found = cls(text, source)
        if _skip(text, found.end) != len(text):
            raise ArtifactError(
                f"{source} is damaged: {len(text) - found.end} characters stand behind the end of "
                "its JSON"
            )
        return found

    def _read_members(self) -> int:
        text, gap = self.text, self.start
        position = _skip(text, gap)
        if text[position : position + 1] == "}":
            return position + 1
        while True:
            start = _skip(text, gap)
            key, key_end = _DECODER.raw_decode(text, start)
            if not isinstance(key, str):
                raise ValueError(f"expected a key at character {start}")
            value_start = _skip(text, _skip(text, key_end, ":"))
            value, end = _DECODER.raw_decode(text, value_start)
            if key in self.members:
                raise _twice(key)
            self.members[key] = Member(value, gap, start, key_end, value_start, end)
            position = _skip(text, end)
            if text[position : position + 1] == "}":
                return position + 1
            gap = _skip(text, end, ",")

    @cached_property
    def value(self) -> dict[str, Any]:
        """The values by their keys."""
        return {key: member.value for key, member in self.members.items()}

    def child(self, key: str) -> JsonObject:
        """The object that is the value of a key."""
        return JsonObject(self.text, self.source, self.members[key].value_start)

    def put(self, key: str, value: str, multiple: int = 1) -> Edit:
        """Put a member behind the last one, or replace the value of the one there is.

        Parameters
        ----------
        key : str
            The key; ASCII.
        value : str
            Its value, as JSON; ASCII.
        multiple : int
            White space is put before the value so that the text gets longer or shorter by a
            multiple of this many characters.

        Returns
        -------
        edit : Edit
            In the layout of the object's last member.
        """
        name = json.dumps(key)
        if key in self.members:
            start, end = self.members[key].key_end, self.members[key].end
            before, colon = "", self._colon(key)
        elif self.members:
            last = list(self.members)[-1]
            start = end = self.members[last].end
            before = "," + self.text[self.members[last].gap : self.members[last].start] + name
            colon = self._colon(last)
        else:
            # A space, so that remove can tell it from a member that an object was made for.
            start = end = self.start
            before, colon = f" {name}", ": "
        if multiple > 1:
            colon = colon.rstrip(" ")
            colon += " " * ((end - start - len(before + colon + value)) % multiple)
        return Edit(start, end, before + colon + value)

    def remove(self, key: str) -> Edit:
        """Take a member out.

        Parameters
        ----------
        key : str
            The key.

        Returns
        -------
        edit : Edit
            That gives back the text as it was before :meth:`put`, or leaves the layout that the
            object's writer would have given it without the member.
        """
        keys = list(self.members)
        member, place = self.members[key], keys.index(key)
        if place:
            return Edit(self.members[keys[place - 1]].end, member.end, "")
        if len(keys) > 1:
            return Edit(member.gap, self.members[keys[1]].gap, "")
        if "\n" in self.text[member.gap : member.start]:
            return Edit(self.start, self.end - 1, "")
        return Edit(member.gap, member.end, "")

    def edited(self, edit: Edit) -> str:
        """The whole text after an edit."""
        return self.text[: edit.start] + edit.text + self.text[edit.end :]

    def _colon(self, key: str) -> str:
        return self.text[self.members[key].key_end : self.members[key].value_start]


def first_key(source: Source) -> str | None:
    """The first key of a file that begins as a JSON object does.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    key : str or None
        None for other files.
    """
    source.file.seek(0)
    match = _FIRST_KEY.match(source.file.read(_HEAD_BYTES))
    return match and match[1].decode("utf-8", "replace")


def begins_as_object(source: Source) -> bool:
    """Whether a file may be a JSON object whose first key is any, or lies far from the beginning.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    begins_so : bool
    """
    source.file.seek(0)
    head = source.file.read(_HEAD_BYTES)
    return _BEGINNING.match(head) is not None


def read_json(source: Source, start: int = 0, end: int | None = None) -> JsonObject:
    """Read JSON that is a file, or a part of one.

    Parameters
    ----------
    source : Source
        The file.
    start, end : int
        Where in it the JSON begins and ends, in bytes.

    Returns
    -------
    found : JsonObject

    Raises
    ------
    ArtifactError
        If it is larger than the limit, or not one object.
    """
    size = (source.size if end is None else end) - start
    check_size(size, source.name)
    source.file.seek(start)
    return JsonObject.whole(source.file.read(size), source.name)


def replaced(source: Source, text: str) -> Patch:
    """Make the patch that gives a file of JSON another text.

    Raises
    ------
    ArtifactError
        If the text is larger than the limit.
    """
    data = text.encode("utf-8")
    check_size(len(data), source.name)
    return Patch(0, source.size, data)


def check_size(size: int, source: str) -> None:
    """Check that JSON is within the limit.

    Parameters
    ----------
    size : int
        Its size in bytes.
    source : str
        What it is, for the error's message.

    Raises
    ------
    ArtifactError
        If it is not.
    """
    if size > limits.JSON_BYTES:
        raise ArtifactError(
            f"{source} has {size} bytes of JSON, more than the limit of {limits.JSON_BYTES}"
        )


def record_in(members: dict[str, Any]) -> Record | None:
    """Read the record among the members of an object.

    Parameters
    ----------
    members : dict
        The object.

    Returns
    -------
    record : Record or None
        None where there is none.

    Raises
    ------
    RecordError
        If it is malformed.
    """
    if RECORD_KEY not in members:
        return None
    text = members[RECORD_KEY]
    if not isinstance(text, str):
        raise RecordError(f"{RECORD_KEY!r} is {short(text)}, expected a record, which is a string")
    return Record.parse(text)


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a size or an offset in a file; true and false are not."""
    return type(value) is int and 0 <= value < 2**63


def short(value: object) -> str:
    """Show a value in an error's message."""
    return _REPR.repr(value)


def _check_structure(data: bytes, source: str) -> None:
    """Check how much JSON there is before memory is filled with it."""
    # What is left without the strings, where brackets, commas and digits are of the structure.
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    pieces, before = [], b""
    for start in range(0, len(unescaped), _CHUNK_BYTES):  # of all at once it would take much memory
        piece = before + unescaped[start : start + _CHUNK_BYTES]
        before = b'"' * (piece.count(b'"') % 2)  # inside of a string
        pieces.append(_STRING.sub(b"", piece))
    bare = b"".join(pieces)
    brackets = bare.translate(None, _NO_BRACKETS)
    values = bare.count(b",") + len(brackets)
    if values > limits.JSON_VALUES:
        raise ArtifactError(
            f"{source} has {values} values of JSON, more than the limit of {limits.JSON_VALUES}"
        )
    depth = max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)
    if depth > limits.JSON_DEPTH:
        raise ArtifactError(
            f"{source} is damaged: its JSON is nested {depth} deep, more than the limit of "
            f"{limits.JSON_DEPTH}"
        )
    if re.search(rb"[0-9]{%d}" % (limits.JSON_DIGITS + 1), bare):
        raise ArtifactError(
            f"{source} is damaged: a number in its JSON has more digits than the limit of "
            f"{limits.JSON_DIGITS}"
        )


def _skip(text: str, position: int, expected: str = "") -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    if not text.startswith(expected, match.end()):
        raise ValueError(f"expected {expected!r} at character {match.end()}")
    return match.end() + len(expected)


def _twice(key: str) -> ValueError:
    return ValueError(f"the key {short(key)} stands twice in one object")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _twice(key)
            seen.add(key)
    return members


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_number)
