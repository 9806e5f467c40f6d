# SPDX-License-Identifier: Apache-2.0
"""Finding what TVM put into a library, by the symbols of the library and without loading it.

FORMAT.md says what lies where. A shared library is read by way of its dynamic segment, which is
what the loader uses and what ``strip`` leaves; an object file by its symbol table.
"""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import ArtifactError, ModelHashError, UnknownArtifactError
from .tvm_serializer import Reader

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MODULES_SYMBOL = "__tvm_dev_mblob"
#: The same since TVM 0.25, where the tree of the modules stands before them.
FFI_MODULES_SYMBOL = "__tvm_ffi__library_bin"
#: Type key of the entry that stands for the library's own functions.
OWN_FUNCTIONS = "_lib"

# What TVM's loader fills in or looks up (library_module.cc). None of them is in every library.
_TVM_SYMBOLS = (
    MODULES_SYMBOL,
    FFI_MODULES_SYMBOL,
    "__tvm_ffi__library_ctx",
    "__tvm_ffi_main",
    "__tvm_module_ctx",
    "__tvm_main__",
    "__TVMAPISetLastError",
    "__TVMFuncCall",
    "__TVMBackendGetFuncFromEnv",
    "__TVMBackendAllocWorkspace",
    "__TVMBackendFreeWorkspace",
    "__TVMBackendParallelLaunch",
    "__TVMBackendParallelBarrier",
)

_ELF = b"\x7fELF"
_MACH_O = (
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"\xca\xfe\xba\xbf",
)
_GZIP = b"\x1f\x8b"
_TAR_MAGIC = (257, b"ustar")
_TAR_BLOCK = 512
_INDEX_BYTES = 8
#: The file in an archive that brings a record into the library.
RECORD_SOURCE_NAME = "tvm_model_hash.c"
_MAX_SOURCE_BYTES = 16 * 1024

# What is kept of a file inside an archive: the headers and TVM's own are at its beginning, the
# symbols and their names at its end. Elsewhere each step back means to decompress it again.
_KEPT_BEGINNING = 64 * 1024
_KEPT_END = 1024 * 1024


class Symbol(NamedTuple):
    """The bytes that a symbol stands for."""

    file: BinaryIO
    offset: int
    size: int


class Module(NamedTuple):
    """The first of the modules in a library, which TVM's ``load_module`` returns."""

    type_key: str
    reader: Reader  # at the beginning of what the module itself has written


class Library:
    """A shared library, an object file, or a tar of object files.

    Parameters
    ----------
    container : str
        ``"shared library"``, ``"object file"`` or ``"tar"``.
    source : str
        What it is, for the errors' messages.
    """

    def __init__(self, container: str, source: str) -> None:
        self.container = container
        self.source = source

    def symbol(self, name: str) -> Symbol | None:
        """Find the bytes of a symbol.

        Parameters
        ----------
        name : str
            The symbol's name.

        Returns
        -------
        symbol : Symbol or None
            None where the library does not define it.

        Raises
        ------
        ArtifactError
            If the library is damaged.
        """
        raise NotImplementedError

    def defines(self, name: str) -> bool:
        """Whether the library defines a symbol; it need not stand for bytes in the file.

        Parameters
        ----------
        name : str
            The symbol's name.

        Returns
        -------
        defined : bool
        """
        raise NotImplementedError

    def record_source(self) -> bytes | None:
        """Get the source file with the record, which is compiled when the library is loaded.

        Returns
        -------
        text : bytes or None
            None where the library has no such file, as all but archives.

        Raises
        ------
        ArtifactError
            If the library is damaged.
        """
        return None

    def is_from_tvm(self) -> bool:
        """Whether the library has one of the symbols that TVM's loader looks for."""
        return any(self.defines(name) for name in _TVM_SYMBOLS)

    def root_module(self) -> Module | None:
        """Find the module that ``tvm.runtime.load_module`` would return.

        Returns
        -------
        module : Module or None
            None where the library has functions only and no modules beside them.

        Raises
        ------
        ArtifactError
            If the library is damaged.
        """
        name, symbol = MODULES_SYMBOL, self.symbol(MODULES_SYMBOL)
        if symbol is None:
            name, symbol = FFI_MODULES_SYMBOL, self.symbol(FFI_MODULES_SYMBOL)
        if symbol is None:
            return None
        reader = Reader(symbol.file, symbol.size, self.source, symbol.offset, "module blob")
        size = reader.count("size")
        if size != symbol.size - reader.position:
            raise ArtifactError(
                f"{self.source} is damaged: its module blob says {size} bytes follow, and the "
                f"symbol {name} has room for {symbol.size - reader.position}"
            )
        # The modules stand in the order of a walk from the root: it is the first.
        if name == MODULES_SYMBOL:
            count = reader.count("module count")
        else:
            # For each module the beginning of its imports in the list behind, and the list's end.
            count = reader.count("module tree") - 1
            reader.skip(_INDEX_BYTES * (count + 1), "module tree")
            reader.skip(_INDEX_BYTES * reader.count("module tree"), "module tree")
        if count <= 0:
            return None
        return Module(reader.string("module's type key").decode("ascii", "replace"), reader)


def open_library(file: BinaryIO, size: int, source: str) -> Library | None:
    """Open a file as a library of a format that TVM's ``export_library`` writes.

    Parameters
    ----------
    file : file object
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
        If it is a library of a format that is not supported.
    ArtifactError
        If it is damaged.
    """
    file.seek(0)
    head = file.read(_TAR_BLOCK)
    if head.startswith(_ELF):
        return _ElfLibrary(file, size, source)
    unsupported = _unsupported_format(head)
    if unsupported:
        raise UnknownArtifactError(
            f"{source} is {unsupported}, which is not supported: only 64-bit little-endian ELF is"
        )
    offset, magic = _TAR_MAGIC
    if head.startswith(_GZIP) or head[offset:].startswith(magic):
        return _TarLibrary(file, source)
    return None


def _unsupported_format(head: bytes) -> str | None:
    if head.startswith(_MACH_O):
        return "a Mach-O file (of macOS)"
    if head.startswith(b"MZ"):
        return "a PE file (of Windows)"
    return None


class _ElfLibrary(Library):
    def __init__(self, file: BinaryIO, size: int, source: str) -> None:
        self.file = file
        self.size = size
        with self._damage_named(source):
            self.elf = _open_elf(file, size, source)
            relocatable = self.elf["e_type"] == "ET_REL"
            super().__init__("object file" if relocatable else "shared library", source)
            self._find: Any = self._find_in_sections if relocatable else self._find_in_segments
            self._table: Any = self._symbol_table() if relocatable else self._dynamic_segment()

    def defines(self, name: str) -> bool:
        with self._damage_named(self.source):
            return self._find(name) is not None

    def symbol(self, name: str) -> Symbol | None:
        with self._damage_named(self.source):
            found = self._find(name)
            if found is None:
                return None
            offset, size = self._offset(found), found["st_size"]
        if offset is None:
            raise ArtifactError(
                f"{self.source} is damaged: nothing in the file holds the symbol {name}"
            )
        if offset + size > self.size:
            raise ArtifactError(
                f"{self.source} is truncated: the symbol {name} lies at bytes {offset} to "
                f"{offset + size} of the file, which has {self.size}"
            )
        return Symbol(self.file, offset, size)

    def _symbol_table(self) -> Any:
        table = self.elf.get_section_by_name(".symtab")
        if table is None:
            raise _stripped(self.source)
        return table

    def _dynamic_segment(self) -> Any:
        segment: Any = next(self.elf.iter_segments("PT_DYNAMIC"), None)
        if segment is None or segment.get_table_offset("DT_SYMTAB")[1] is None:
            raise _stripped(self.source)
        return segment

    def _find_in_sections(self, name: str) -> Any:
        return self._first_defined(self._table.get_symbol_by_name(name) or [])

    def _find_in_segments(self, name: str) -> Any:
        from elftools.elf.hash import GNUHashTable

        _, hash_offset = self._table.get_table_offset("DT_GNU_HASH")
        if hash_offset is not None:
            symbols = [GNUHashTable(self.elf, hash_offset, self._table).get_symbol(name)]
        else:
            symbols = self._table.get_symbol_by_name(name) or []
        return self._first_defined(symbols)

    @staticmethod
    def _first_defined(symbols: list[Any]) -> Any:
        for symbol in symbols:
            if symbol is not None and symbol["st_shndx"] != "SHN_UNDEF":
                return symbol
        return None

    def _offset(self, symbol: Any) -> int | None:
        if self.container == "object file":
            section = self.elf.get_section(symbol["st_shndx"])
            return section["sh_offset"] + symbol["st_value"]
        # Of the address alone: a range that is longer than the file is told by the caller.
        return next(self.elf.address_offsets(symbol["st_value"]), None)

    @staticmethod
    @contextmanager
    def _damage_named(source: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ModelHashError):
            raise
        except Exception as error:  # of a damaged file pyelftools raises whatever comes
            raise ArtifactError(
                f"{source} is damaged or truncated: its ELF structures cannot be read "
                f"({type(error).__name__}: {error})"
            ) from error


def _open_elf(file: BinaryIO, size: int, source: str) -> ELFFile:
    file.seek(0)
    bits, order = file.read(6).ljust(6, b"\0")[4:]
    if (bits, order) != (2, 1):
        formats = {(1, 1): "32-bit", (1, 2): "32-bit big-endian", (2, 2): "big-endian"}
        raise UnknownArtifactError(
            f"{source} is {formats.get((bits, order), 'unknown')} ELF, which is not supported: "
            "only 64-bit little-endian ELF is"
        )
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(file)
    end = elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]
    if end > size:
        raise ArtifactError(
            f"{source} is truncated: by its ELF header it has at least {end} bytes, found {size}"
        )
    return elf


def _stripped(source: str) -> UnknownArtifactError:
    return UnknownArtifactError(
        f"{source} has no symbol table that TVM could find its modules by: it was stripped, or "
        "is not a library"
    )


class _TarLibrary(Library):
    def __init__(self, file: BinaryIO, source: str) -> None:
        super().__init__("tar", source)
        self._objects: list[_ElfLibrary] = []
        self._skipped: list[str] = []
        self._record_source: bytes | None = None
        self._remaining = self._open_objects(file)

    def defines(self, name: str) -> bool:
        libraries = itertools.chain(self._objects, self._remaining)
        return any(library.defines(name) for library in libraries)

    def symbol(self, name: str) -> Symbol | None:
        for library in itertools.chain(self._objects, self._remaining):
            symbol = library.symbol(name)
            if symbol is not None:
                return symbol
        return None

    def record_source(self) -> bytes | None:
        for _ in self._remaining:
            pass
        return self._record_source

    def _open_objects(self, file: BinaryIO) -> Iterator[_ElfLibrary]:
        with _archive_damage_named(self.source):
            file.seek(0)
            try:
                archive = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115
            except tarfile.TarError as error:
                raise UnknownArtifactError(
                    f"{self.source} is no tar of object files from export_library ({error})"
                ) from error
            for member in archive:
                data = archive.extractfile(member) if member.isreg() else None
                if data is None:
                    continue
                source = f"{member.name!r} in {self.source}"
                contents: Any = io.BufferedReader(_Ends(data, member.size, source))
                head = contents.read(4)
                if head == _ELF:
                    self._objects.append(_ElfLibrary(contents, member.size, source))
                    yield self._objects[-1]
                else:
                    if os.path.basename(member.name) == RECORD_SOURCE_NAME:
                        self._record_source = head + contents.read(_MAX_SOURCE_BYTES)
                    found = _unsupported_format(head) or "not an object file"
                    self._skipped.append(f"{member.name!r} is {found}")
            # Python's reader takes an archive that was cut between two files for a whole one.
            if not self._is_complete(archive):
                raise ArtifactError(
                    f"{self.source} is truncated: the end of the archive is missing"
                )
        if not self._objects and self._record_source is None:
            skipped = "; ".join(self._skipped[:5]) or "it is empty"
            raise UnknownArtifactError(
                f"{self.source} is an archive without an ELF object file ({skipped}): expected "
                "what export_library writes to a .tar"
            )

    @staticmethod
    def _is_complete(archive: tarfile.TarFile) -> bool:
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        return len(archive.fileobj.read(_TAR_BLOCK)) == _TAR_BLOCK


@contextmanager
def _archive_damage_named(source: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, not of the content
            raise
        raise ArtifactError(
            f"{source} is damaged or truncated: the archive cannot be read ({error})"
        ) from error


class _Ends(io.RawIOBase):
    """A file in an archive, of which the beginning and the end are kept in memory."""

    def __init__(self, file: Any, size: int, source: str) -> None:
        self._file = file
        self._size = size
        self._source = source
        self._position = 0
        self._kept = [(0, self._read(0, _KEPT_BEGINNING))]
        end = max(_KEPT_BEGINNING, size - _KEPT_END)
        if end < size:
            self._kept.append((end, self._read(end, size - end)))

    def _read(self, position: int, size: int) -> bytes:
        with _archive_damage_named(self._source):
            self._file.seek(position)
            return self._file.read(size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = origin[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        for start, data in self._kept:
            if start <= self._position < start + len(data):
                found = data[self._position - start :][: len(buffer)]
                break
        else:
            found = self._read(self._position, len(buffer))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)
