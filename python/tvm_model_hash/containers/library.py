# SPDX-License-Identifier: Apache-2.0
"""Libraries and archives of every format, recognized by their content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import limits
from ..errors import ArtifactError, UnknownArtifactError
from . import ar, elf, mach_o, pe, tar, wasm
from .ar import Member
from .binary import Binary, Dependencies
from .window import Budget, Readable, Window


@dataclass(frozen=True)
class Library:
    """What was linked, or is to be linked, to one library.

    Parameters
    ----------
    container : str
        ``"shared library"``, ``"program"``, ``"object file"``, ``"static library"`` or ``"tar"``.
    source : str
        What it is, for the errors' messages; the file's name for example.
    slices : tuple of tuple of Binary
        The machine code in it. A universal file has a slice for each of its machines, any other
        file has one; an archive's has all its object files.
    others : tuple of Member
        The files of an archive that are not machine code.
    """

    container: str
    source: str
    slices: tuple[tuple[Binary, ...], ...]
    others: tuple[Member, ...] = ()

    @property
    def binaries(self) -> Iterator[Binary]:
        """All machine code in it."""
        return (binary for one in self.slices for binary in one)

    @property
    def platform(self) -> str | None:
        """Formats and machines, for example ``"ELF x86_64"``; None without machine code."""
        names = dict.fromkeys(binary.platform for binary in self.binaries)
        return ", ".join(names) or None

    @property
    def dependencies(self) -> Dependencies:
        """The libraries that the loader is to load with it, and where it is to look for them."""
        libraries: dict[str, None] = {}
        paths: dict[str, None] = {}
        for binary in self.binaries:
            libraries.update(dict.fromkeys(binary.dependencies.libraries))
            paths.update(dict.fromkeys(binary.dependencies.paths))
        return Dependencies(tuple(libraries), tuple(paths))


def open_library(file: Readable, size: int, source: str) -> Library | None:
    """Open a file as a library, and walk over its structure to the end.

    Parameters
    ----------
    file : Readable
        The file; the library reads from it later too.
    size : int
        Its size in bytes.
    source : str
        What it is, for the errors' messages.

    Returns
    -------
    library : Library or None
        None if the file's first bytes are those of another format.

    Raises
    ------
    UnknownArtifactError
        If it is of a kind that is not a library, as an archive without machine code.
    ArtifactError
        If it is damaged or truncated, or beyond a limit.
    """
    return _Opener().open(Window(file, size, source, budget=Budget()))


class _Opener:
    """Opens one file, and counts what is in it."""

    def __init__(self) -> None:
        self._count = 0

    def open(self, window: Window, depth: int = 0) -> Library | None:
        if depth > limits.ARCHIVE_DEPTH:
            raise window.damaged(
                f"it lies deeper than the limit of {limits.ARCHIVE_DEPTH} archives"
            )
        head = window.read(0, min(8, window.size), "beginning")
        if head.startswith(mach_o.UNIVERSAL_MAGICS):
            return self._open_universal(window, depth)
        if head in (ar.MAGIC, ar.THIN_MAGIC):
            return self._open_archive("static library", window, ar.members(window), depth)
        if not depth and head.startswith(tar.GZIP_MAGIC):
            return self._open_gzip(window)
        if not depth and tar.is_tar(window):
            _refuse_binary(head, window)
            return self._open_archive("tar", window, tar.members(window), depth)
        binary = _open_binary(head, window)
        if binary is None:
            return None
        self._count += 1
        window.limit(self._count, limits.BINARIES, "object files")
        return Library(binary.kind, window.source, ((binary,),))

    def _open_gzip(self, window: Window) -> Library:
        file = tar.Gunzipped(window)
        inner = Window(file, file.size, window.source, budget=window.budget)
        if not tar.is_tar(inner):
            raise UnknownArtifactError(
                f"{window.source} is compressed with gzip and not a tar of object files: expected "
                "what export_library writes to a .tar"
            )
        return self._open_archive("tar", inner, tar.members(inner), 0)

    def _open_universal(self, window: Window, depth: int) -> Library | None:
        windows = mach_o.slices(window)
        if windows is None:
            return None
        libraries = []
        for part in windows:
            library = self.open(part, depth + 1)
            if library is None or len(library.slices) != 1:
                raise window.damaged(f"{part.source} is not a library")
            libraries.append(library)
        containers = {library.container for library in libraries}
        if len(containers) != 1:
            raise window.damaged(
                f"its slices are not of one kind: {', '.join(sorted(containers)) or 'none'}"
            )
        return Library(
            containers.pop(),
            window.source,
            tuple(library.slices[0] for library in libraries),
            tuple(other for library in libraries for other in library.others),
        )

    def _open_archive(
        self, container: str, window: Window, members: Iterator[Member], depth: int
    ) -> Library:
        binaries: list[Binary] = []
        others: list[Member] = []
        names: set[str] = set()
        for member in members:
            if container == "tar" and member.name in names:
                raise window.damaged(
                    f"it has two files {member.name!r}, of which one is left when it is unpacked"
                )
            names.add(member.name)
            library = self.open(member.data, depth + 1)
            if library is None:
                others.append(member)
                continue
            if library.container not in ("object file", "static library"):
                raise UnknownArtifactError(
                    f"{window.source} is a {container} with a {library.container} in it, "
                    f"{member.name!r}: expected object files. Unpack it, and look at its files"
                )
            binaries.extend(library.binaries)
            others.extend(library.others)
        return Library(container, window.source, (tuple(binaries),), tuple(others))


def _refuse_binary(head: bytes, window: Window) -> None:
    """Refuse a tar that is machine code too: TVM takes it for the one or the other by its name."""
    try:
        binary = _open_binary(head, window)
    except ArtifactError:
        return
    if binary is not None:
        raise window.damaged(f"it is a tar archive and a {binary.kind}, expected one of both")


def _open_binary(head: bytes, window: Window) -> Binary | None:
    if head.startswith(elf.MAGIC):
        return elf.ElfBinary(window)
    if head.startswith(mach_o.MAGICS):
        return mach_o.MachOBinary(window)
    if head.startswith(wasm.MAGIC):
        return wasm.WasmBinary(window)
    if head.startswith(pe.MAGIC):
        return pe.PeBinary(window)
    return pe.CoffBinary(window) if pe.CoffBinary.is_at(window) else None
