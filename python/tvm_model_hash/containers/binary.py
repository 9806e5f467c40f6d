# SPDX-License-Identifier: Apache-2.0
"""What machine code in a file is to its readers, whatever the format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .. import limits
from .window import Window


class Symbol(NamedTuple):
    """A name that a binary defines.

    Parameters
    ----------
    name : str
        The name as the source has it, without what a format puts before it.
    data : Window or None
        The bytes it stands for; None where no bytes of the file are behind it.
    sized : bool
        Whether ``data`` ends where the symbol does. Where the format has no sizes of symbols, it
        ends with the section.
    """

    name: str
    data: Window | None
    sized: bool


class Dependencies(NamedTuple):
    """What a binary asks the loader to load, and where to look for it."""

    libraries: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class Binary(ABC):
    """Machine code in a file: a shared library, a program or an object file.

    Reading it walks over its headers and tables, and checks that all they speak of is there.

    Parameters
    ----------
    window : Window
        Where it lies.

    Attributes
    ----------
    format : str
        ``"ELF"``, ``"Mach-O"``, ``"PE"``, ``"COFF"`` or ``"wasm"``.
    kind : str
        ``"shared library"``, ``"program"`` or ``"object file"``.
    platform : str
        Format and machine, for example ``"ELF x86_64"``.
    dependencies : Dependencies
        The libraries that the loader is to load with it.

    Raises
    ------
    ArtifactError
        If it is damaged or truncated.
    """

    format: str
    kind: str
    platform: str
    dependencies = Dependencies()

    def __init__(self, window: Window) -> None:
        self.window = window

    def notes(self, owner: bytes, number: int) -> list[Window]:
        """Find the notes of an owner; only ELF has notes.

        Parameters
        ----------
        owner : bytes
            The name in the note, without the byte 0.
        number : int
            The note's type.

        Returns
        -------
        descriptors : list of Window
            What each of them holds.

        Raises
        ------
        ArtifactError
            If the notes are damaged.
        """
        return []

    def sections(self, name: str) -> list[Window]:
        """Find sections by their name.

        Parameters
        ----------
        name : str
            The name; for Mach-O segment and section, with a comma between.

        Returns
        -------
        sections : list of Window
            The content of each of them.

        Raises
        ------
        ArtifactError
            If a section is damaged.
        """
        return []

    def symbols(self, names: Collection[str]) -> dict[str, Symbol]:
        """Find symbols by their names.

        Parameters
        ----------
        names : collection of str
            The names.

        Returns
        -------
        symbols : dict of str to Symbol
            Those that the binary defines.

        Raises
        ------
        ArtifactError
            If the binary is damaged.
        """
        found: dict[str, Symbol] = {}
        for symbol in self.search(tuple(names)):
            if symbol.name in names:
                found.setdefault(symbol.name, symbol)
        return found

    def search(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find symbols by the ends of their names.

        Parameters
        ----------
        endings : collection of str
            What the names end with.

        Yields
        ------
        symbol : Symbol
            A symbol that the binary defines.

        Raises
        ------
        ArtifactError
            If the binary is damaged.
        """
        for count, symbol in enumerate(self._defined(endings), 1):
            self.window.limit(count, limits.FOUND_SYMBOLS, "symbols with a name that is sought")
            yield symbol

    @abstractmethod
    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find symbols in the tables of the format."""
