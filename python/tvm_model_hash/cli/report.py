# SPDX-License-Identifier: Apache-2.0
"""What the command prints: for people or as JSON, and the exit status that it ends with.

docs/json.md describes the JSON, and docs/command.md the exit status.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..errors import without_secrets
from ..progress import escaped

PROGRAM = "tvm-model-hash"

#: The version of what ``--json`` prints: another one, where a reader would have to be changed.
SCHEMA = 1

_COLORS = {"red": "31", "green": "32", "yellow": "33"}
_GOOD = {"match": "green", "equivalent": "yellow", "done": "green"}
_INDENT = "  "


class Exit(enum.IntEnum):
    """The exit status of the command."""

    OK = 0
    MISMATCH = 1
    ERROR = 2
    UNKNOWN = 3
    BROKEN_SEAL = 4
    INTERRUPTED = 130  # as the shell has it for what was ended by SIGINT


# What is known to be wrong is worse than what went wrong, and that than what is not known.
_WORST_FIRST = (Exit.MISMATCH, Exit.BROKEN_SEAL, Exit.ERROR, Exit.UNKNOWN)


@dataclass
class Result:
    """What there is to say about one artifact, or one model.

    Parameters
    ----------
    status : str
        What came out, as JSON has it: ``done``, ``error``, or the status of a verdict.
    exit : Exit
        The exit status, if there is nothing else.
    path : str, optional
        What it is about, None for a device.
    reason : str, optional
        One sentence.
    fields : dict
        What JSON has besides.
    lines : list of str
        What a person is shown, where it is not one row of many.
    remarks : tuple of str
        What is to be added to the row.
    error : str, optional
        The type of the error, if it is one.
    brief : str, optional
        What the row has in place of the reason, where that is long.
    """

    status: str
    exit: Exit
    path: str | None
    reason: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    remarks: tuple[str, ...] = ()
    error: str | None = None
    brief: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "path": self.path and without_secrets(self.path),
            "status": self.status,
            "exit_status": int(self.exit),
            "reason": self.reason,
            "error": self.error,
            **self.fields,
        }


class Report:
    """Prints results as they come, and knows the exit status in the end.

    Parameters
    ----------
    command : str, optional
        The name of the command, None where none was given.
    form : str
        ``"text"``, ``"rows"`` (a line for each result, and a summary), ``"json"``, or ``"quiet"``.
    noun : str
        What the results are of, for the summary.
    """

    def __init__(self, command: str | None, form: str = "text", noun: str = "artifact") -> None:
        self._command = command
        self._form = form
        self._noun = noun
        self._results: list[Result] = []
        self._failure: tuple[str, str] | None = None

    def add(self, result: Result) -> None:
        """Take a result, and print it unless it has to wait for the others."""
        first = not self._results
        self._results.append(result)
        if self._form == "rows":
            _print_row(result)
        elif result.error:
            complain(result.reason or result.error)
        elif self._form == "text":
            # A paragraph each, where one has several lines.
            if not first and len(result.lines) > 1:
                _write("")
            for line in result.lines:
                _write(line)

    def fail(self, kind: str, message: str) -> None:
        """Take an error that ends the command."""
        self._failure = (kind, message)

    def finish(self) -> Exit:
        """Print what has waited for the others.

        Returns
        -------
        exit : Exit
            The worst of all.
        """
        found = {result.exit for result in self._results}
        if self._failure is not None:
            found.add(Exit.ERROR)
        status = next((status for status in _WORST_FIRST if status in found), Exit.OK)
        if self._form == "rows" and len(self._results) > 1:
            _write(self._summary())
        if self._form == "json":
            _write_json(
                {
                    "schema": SCHEMA,
                    "command": self._command,
                    "exit_status": int(status),
                    "results": [result.to_dict() for result in self._results],
                    "error": self._failure
                    and dict(zip(("type", "message"), self._failure, strict=True)),
                }
            )
        return status

    def _summary(self) -> str:
        counts: dict[str, int] = {}
        for result in self._results:
            label = result.status.replace("_", " ")
            counts[label] = counts.get(label, 0) + 1
        each = ", ".join(f"{count} {label}" for label, count in counts.items())
        return f"{len(self._results)} {self._noun}s: {each}"


def complain(message: str) -> None:
    """Print an error, on one line."""
    if sys.stderr is not None:
        print(f"{PROGRAM}: {printable(message, sys.stderr)}", file=sys.stderr)


def printable(text: str, stream: TextIO) -> str:
    """Escape what could write on a terminal by itself, or what a stream can't encode.

    Parameters
    ----------
    text : str
        A text; names in it may come from files, and write a verdict of their own.
    stream : file object
        Where it is to be written.

    Returns
    -------
    text : str
        One line.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return escaped(without_secrets(text)).encode(encoding, "backslashreplace").decode(encoding)


class Colored(str):
    """A line that is shown in a color, on a terminal."""

    color: str

    def __new__(cls, status: str, text: str) -> Colored:
        """Color a text as a status is."""
        line = super().__new__(cls, text)
        line.color = color_of(status)
        return line


class Verbatim(str):
    """A text that is printed as it is: JSON in ASCII, with its line end."""


def color_of(status: str) -> str:
    """Give the color of a status."""
    return _GOOD.get(status, "red")


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lay out rows in columns.

    Parameters
    ----------
    rows : iterable of tuple of str
        The rows, of the same length each.

    Returns
    -------
    lines : list of str
    """
    # What is escaped is wider than it was.
    shown = [tuple(printable(cell, sys.stdout) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]


def _print_row(result: Result) -> None:
    label = result.status.replace("_", " ")
    text = "; ".join(filter(None, (result.brief or result.reason, *result.remarks)))
    path = result.path or ""
    if text.startswith(f"{path!r}: "):  # an error that begins with it too
        text = text[len(f"{path!r}: ") :]
    lines = _folded(printable(f"{label:11}  {path}: {text}", sys.stdout), " " * 13)
    lines[0] = _in_color(color_of(result.status), lines[0][:11]) + lines[0][11:]
    print(*lines, sep="\n", flush=sys.stdout.isatty())


def _write(line: str) -> None:
    if isinstance(line, Verbatim):
        sys.stdout.write(line)
        return
    lines = _folded(printable(line, sys.stdout), _INDENT)
    if isinstance(line, Colored):
        lines = [_in_color(line.color, piece) for piece in lines]
    print(*lines, sep="\n")


def _write_json(fields: dict[str, Any]) -> None:
    import json

    # In ASCII, so that it can be printed and read whatever the encoding.
    print(json.dumps(fields, indent=2))


def _folded(line: str, indent: str) -> list[str]:
    """Break a sentence between words, where a terminal would break it anywhere."""
    if not sys.stdout.isatty():
        return [line]
    import shutil
    import textwrap

    width = shutil.get_terminal_size().columns
    # Tables and hashes stay as they are.
    if len(line) <= width or "  " in line[len(indent) :].lstrip():
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _in_color(color: str, text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLORS[color]}m{text}\033[0m"
