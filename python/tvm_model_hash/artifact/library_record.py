# SPDX-License-Identifier: Apache-2.0
"""The record in a library of either engine: in a note or a section, whatever the file's format.

A small module that was compiled with the kernels has brought it there; :mod:`.record_module` writes
that. In a ``.tar`` it may still be a source in C.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .. import limits
from ..containers.binary import Binary
from ..containers.library import Library
from ..containers.window import Window
from ..errors import DuplicateRecordError, FixedRecordError, RecordError, UnknownArtifactError
from ..record import Record, conflict
from .carrier import Artifact, Carrier, Patch, Role, Source
from .record_module import (
    HASH_FUNCTION,
    MACH_O_SECTION,
    NOTE_OWNER,
    NOTE_TYPE,
    PE_SECTION,
    WASM_SECTION,
    payload,
    payload_in_c,
)
from .tvm_library import OWN_FUNCTIONS, TvmLibrary
from .tvm_serializer import Reader, damaged, skip_tensor

# Where the record lies in the formats that have no notes.
_SECTIONS = {
    "Mach-O": MACH_O_SECTION,
    "PE": PE_SECTION,
    "COFF": PE_SECTION,
    "wasm": WASM_SECTION,
}
_SOURCES = (".c", ".cc")

#: Kinds of libraries.
GRAPH_EXECUTOR = "Relay graph executor"
AOT_EXECUTOR = "Relay AOT executor"
RELAX_VM = "Relax VM executable"
_RELAX = (Role.EXECUTABLE, RELAX_VM)
# What a library is by the type of its root module.
_KINDS = {
    "relax.VMExecutable": _RELAX,
    "GraphExecutorFactory": (Role.EXECUTABLE, GRAPH_EXECUTOR),
    "AotExecutorFactory": (Role.EXECUTABLE, AOT_EXECUTOR),
}
# What the functions of TVM 0.25 and later begin with. There, every library is an executable.
_FFI_PREFIX = "__tvm_ffi_"


class Carried(NamedTuple):
    """What a library carries: its record, and names of tensors that it needs from elsewhere.

    ``places`` is the number of places where it was found, one for each model that was linked in.
    """

    record: Record
    needs: tuple[str, ...]
    places: int = 1


def read_carried(library: Library) -> Carried | None:
    """Read what a library carries.

    Parameters
    ----------
    library : Library
        The library.

    Returns
    -------
    carried : Carried or None
        None if it carries no record. Of records that are of one model and differ beside that, as
        those of two compilations for two machines do, only what they have in common.

    Raises
    ------
    DuplicateRecordError
        If it carries records of two models.
    RecordError
        If a record is malformed, or only some slices of a universal library have one.
    ArtifactError
        If the library is damaged.
    """
    found: list[Carried] = []
    bare = []
    places = 0
    for binaries in library.slices:
        payloads = []
        for data in _payloads(binaries, library):
            payloads.append(data)
            if places + len(payloads) > limits.PAYLOADS:
                raise RecordError(f"it has more records than the limit of {limits.PAYLOADS}")
        places += len(payloads)
        found += [_parse(data) for data in dict.fromkeys(payloads)]
        if not payloads:
            bare.append(binaries[0].platform if binaries else "no machine")
    if not found:
        return None
    if bare:
        raise RecordError(
            f"of the slices of the universal library that for {bare[0]} carries no record, and "
            "others do: expected one library of one model"
        )
    first, *others = found
    for other in others:
        if _identity(other.record) != _identity(first.record):
            raise DuplicateRecordError(
                f"the library carries records of two models, '{first.record}' and "
                f"'{other.record}': expected one library of one model"
            )
        if other.needs != first.needs:
            raise DuplicateRecordError(
                "the library carries two records of one model that differ in the parameters that "
                "it needs: expected one library of one compilation"
            )
    record = functools.reduce(Record.in_common, (other.record for other in others), first.record)
    return first._replace(record=record, places=places)


def agreed(record: Record | None, carried: Carried | None) -> Record | None:
    """Compare the record in a VM executable with that of the library around it.

    Parameters
    ----------
    record : Record, optional
        The executable's.
    carried : Carried, optional
        The library's.

    Returns
    -------
    record : Record or None
        The executable's; that of the library alone says nothing about the weights.

    Raises
    ------
    DuplicateRecordError
        If they are of two models, or of two compilations of one.
    """
    if record is None or carried is None:
        return record
    if _identity(record) != _identity(carried.record) or conflict(record, carried.record):
        raise DuplicateRecordError(
            f"the executable in the library has the record '{record}', and its kernels have "
            f"'{carried.record}': expected both of one compilation. Compile the model again"
        )
    return record


def _identity(record: Record) -> tuple[str, str | None, str | None]:
    return record.model, record.graph, record.weights


def _payloads(binaries: tuple[Binary, ...], library: Library) -> Iterator[bytes]:
    for binary in binaries:
        for note in binary.notes(NOTE_OWNER.encode("ascii"), NOTE_TYPE):
            yield _read(note, limits.PAYLOAD_BYTES)
        for section in binary.sections(_SECTIONS.get(binary.format, "")):
            yield from _split(_read(section, limits.PAYLOAD_SECTION_BYTES), binary.format)
    for member in library.others:
        if member.name.endswith(_SOURCES) and member.data.size <= limits.SOURCE_BYTES:
            text = member.data.read(0, member.data.size, "source")
            data = payload_in_c(text.decode("latin-1"))
            if data is not None:
                yield data


def _read(place: Window, limit: int) -> bytes:
    if place.size > limit:
        raise RecordError(
            f"the place of the record has {place.size} bytes, more than the limit of {limit}"
        )
    return place.read(0, place.size, "record")


def _split(data: bytes, format_: str) -> list[bytes]:
    """The payloads in a section: each has the byte 0 behind it, and there may be more of them."""
    payloads = [piece for piece in data.split(b"\0") if piece]
    # Of a custom section the size is known, so that a linker may have left the last one away.
    if not payloads or (data[-1:] != b"\0" and format_ != "wasm"):
        raise RecordError(f"the section for the record holds {data[:100]!r}, expected a record")
    return payloads


def _parse(data: bytes) -> Carried:
    if len(data) > limits.PAYLOAD_BYTES:
        raise RecordError(
            f"the record with its names is {len(data)} bytes long, more than the limit of "
            f"{limits.PAYLOAD_BYTES}"
        )
    line, *lines = data.split(b"\n")
    record = Record.decode(line)
    try:
        names = [unquote_to_bytes(name).decode("utf-8") for name in lines]
    except UnicodeDecodeError as error:
        raise RecordError(f"a name behind the record is not UTF-8: {error}") from error
    if payload(record, names) != data or not all(names) or len(set(names)) != len(names):
        raise RecordError(
            "the names behind the record are not encoded as they have to be: expected each once, "
            "with %XX for the bytes that are not printable ASCII"
        )
    said = dict(record.extra).get("params", "0")
    if said != str(len(names)):
        raise RecordError(f"the record says params={said}, and {len(names)} names stand behind it")
    return Carried(record, tuple(names))


class TvmLibraryCarrier(Carrier):
    """A library that TVM compiled, with whatever executor, or with kernels alone.

    Parameters
    ----------
    source : Source
        The file.
    library : TvmLibrary
        The file as a library.
    """

    def __init__(self, source: Source, library: TvmLibrary) -> None:
        self._source = source
        self._library = library
        self._carried = read_carried(library.library)

    @classmethod
    def find(cls, source: Source) -> TvmLibraryCarrier | None:
        """Recognize every library; one that is not from TVM is an error."""
        library = source.library
        if library is None:
            return None
        carrier = cls(source, library)
        if carrier._carried is None and not library.is_from_tvm():
            raise UnknownArtifactError(_not_from_tvm(library.library))
        return carrier

    def artifact(self) -> Artifact:
        """Read what the library is, and its record."""
        role, kind = self._role()
        needs = self._carried.needs if self._carried else ()
        count = len(self._library.root_modules)
        if self._carried and count > self._carried.places:
            raise RecordError(
                f"it has the modules of {count} compilations, and {self._carried.places} of them "
                "with a record: nothing says which model the others are of. Compile each with "
                "get_hash=True"
            )
        if needs and kind == GRAPH_EXECUTOR:
            for module in self._library.root_modules:
                own = _tensors_of_graph(module.reader)
                needs = tuple(name for name in needs if name not in own)
        return Artifact(
            self._source.path,
            kind,
            self._library.container,
            self._source.size,
            role,
            self._carried.record if self._carried else None,
            platform=self._library.platform,
            needs=needs,
        )

    def _role(self) -> tuple[Role, str]:
        modules = self._library.root_modules
        if modules:
            key = modules[0].type_key
            if key in _KINDS:
                return _KINDS[key]
            other = f" (of type {key!r})" if key != OWN_FUNCTIONS else ""
            return Role.KERNELS, f"TVM kernel library{other}"
        # Not every format tells where the modules lie. But there are no kernels alone in a
        # library whose functions are Relax's.
        for binary in self._library.library.binaries if self._carried else ():
            for symbol in binary.search((HASH_FUNCTION,)):
                if symbol.name.startswith(_FFI_PREFIX):
                    return _RELAX
        return Role.KERNELS, "TVM kernel library"

    def patch(self, record: Record | None) -> Patch:
        """The record cannot be changed."""
        raise FixedRecordError(
            f"the record in {self._source.name} cannot be changed: it was compiled into the "
            f"{self._library.container}. Import the model with get_hash=True, compile it, and "
            "export the library again"
        )


def _tensors_of_graph(reader: Reader) -> set[str]:
    """Names of the tensors in a module that holds the graph executor's graph and parameters."""
    section = "graph executor"
    reader.skip(reader.count(section), section)  # the graph
    count = reader.entries(section)
    if reader.count(section) != count:
        raise damaged(reader, f"it has {count} parameters, and not as many names")
    names = {reader.string(section).decode("utf-8", "replace") for _ in range(count)}
    for _ in range(count):
        skip_tensor(reader, section)
    return names


def _not_from_tvm(library: Library) -> str:
    if library.container == "tar" and not library.platform:
        names = ", ".join(repr(member.name) for member in library.others[:5]) or "it is empty"
        return (
            f"{library.source} is a tar without an object file ({names}): expected what "
            "export_library writes to a .tar"
        )
    return (
        f"{library.source} ({library.container}) is not from TVM, or was stripped: it has no "
        "record, and none of the symbols that TVM's loader looks for"
    )
