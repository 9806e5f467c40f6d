# SPDX-License-Identifier: Apache-2.0
"""The header of a Relay VM executable: in ``code.ro``, or inside a library.

Which sections follow the header is in TVM's src/runtime/vm/executable.cc.
"""

from __future__ import annotations

import re
import struct
from functools import cached_property

from ..errors import DuplicateRecordError, FixedRecordError, RecordError
from ..record import Record
from .carrier import Artifact, Carrier, Patch, Role, Source
from .library_record import agreed, read_carried
from .tvm_library import TvmLibrary
from .tvm_serializer import Reader, damaged, skip_tensor
from .vm_header import MAGIC, VMHeader, read_header

_MAGIC = struct.pack("<Q", MAGIC)
_TYPE_KEY = "VMExecutable"
_IMMEDIATE, _LATE_BOUND = 0, 1
_INDEX_BYTES = 8


class RelayVM(Carrier):
    """A Relay VM executable.

    Parameters
    ----------
    source : Source
        The file.
    reader : Reader
        At the beginning of the executable.
    library : TvmLibrary, optional
        The library that it lies in.
    """

    def __init__(self, source: Source, reader: Reader, library: TvmLibrary | None = None) -> None:
        self._source = source
        self._library = library
        self._header: VMHeader = read_header(reader)
        self._reader = reader

    @classmethod
    def find(cls, source: Source) -> RelayVM | None:
        """Recognize ``code.ro``, and a library whose root module is an executable."""
        if source.head.startswith(_MAGIC):
            return cls(source, Reader(source.file, source.size, source.name))
        library = source.library
        modules = library.root_modules if library else ()
        if not modules or modules[0].type_key != _TYPE_KEY:
            return None
        first, *others = (cls(source, _inner(module.reader), library) for module in modules)
        for other in others:
            first._stand_for(other)
        return first

    @cached_property
    def _record(self) -> Record | None:
        return self._header.record

    def _stand_for(self, other: RelayVM) -> None:
        """Of a universal library's slices, one stands for all; each is a compilation of its own."""
        records = [one._record for one in (self, other)]
        if records[0] != records[1]:
            if records[0] and records[1]:
                self._record = records[0].in_common(records[1])
            records = [record and record.with_fields(None, record.params) for record in records]
        if records[0] != records[1] or self._read_sections() != other._read_sections():
            raise DuplicateRecordError(
                "the library holds several VM executables that differ, with the records "
                f"'{records[0] or 'none'}' and '{records[1] or 'none'}': expected one library of "
                "one model"
            )

    def artifact(self) -> Artifact:
        """Read the record and what the executable needs, to the end of its structure."""
        inputs, late_bound = self._read_sections()
        record = self._record
        if record is not None and record.params > len(late_bound):
            # Who binds constants without comparing them leaves the number there.
            raise RecordError(
                f"the record says that {record.params} constants of the executable are in a file, "
                f"and {len(late_bound)} are: others were bound, and nothing says which model those "
                "are of. Bind them by load_late_bound_consts, which compares their record"
            )
        carried = None if self._library is None else read_carried(self._library.library)
        record = agreed(record, carried)
        return Artifact(
            self._source.path,
            "Relay VM executable",
            self._library.container if self._library else "file",
            self._source.size,
            Role.EXECUTABLE,
            record,
            platform=self._library.platform if self._library else None,
            tvm_version=self._header.version,
            devices=self._header.with_record(None).devices,
            needs_kernels=self._library is None,
            needs=late_bound,
            inputs=inputs,
            kernels_record=carried.record if carried and record is None else None,
        )

    def _read_sections(self) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """Names of the parameters of ``main``, and of the constants that are bound late."""
        header = self._header.size
        outer = self._reader
        reader = Reader(
            outer.file, outer.size - header, outer.source, outer.start + header, "executable"
        )
        _skip_strings(reader, "globals")
        constants = [_constant(reader) for _ in range(reader.entries("constants"))]
        _skip_array(reader, "constants")
        _skip_strings(reader, "names of primitives")
        for _ in range(reader.entries("attributes of primitives")):
            reader.skip(_INDEX_BYTES, "attributes of primitives")
            for _ in range(reader.entries("attributes of primitives")):
                _skip_string(reader, "attributes of primitives")
                _skip_string(reader, "attributes of primitives")
        inputs = None
        for _ in range(reader.entries("code")):
            # The function's name, and the numbers of its registers and of its instructions.
            name, _, instructions = _strings(reader, "code", 3)
            parameters = _strings(reader, "code")
            if name == b"main":
                inputs = tuple(_text(reader, parameter) for parameter in parameters)
            _skip_array(reader, "code")
            for _ in range(reader.expect(_number(reader, instructions), "code")):
                _skip_array(reader, "code")
        if reader.position != reader.size:
            raise damaged(
                reader, f"{reader.size - reader.position} bytes stand behind the executable's end"
            )
        return inputs, tuple(name for name in constants if name is not None)

    def patch(self, record: Record | None) -> Patch:
        """Replace the header of ``code.ro``."""
        if self._library is not None:
            raise FixedRecordError(
                f"the record in {self._source.name} cannot be changed: it lies inside a "
                f"{self._library.container}, where everything behind it has its place. Change it "
                "in code.ro, or set it on the executable and export the library again"
            )
        self.artifact()  # so that nothing is changed in what is not whole
        return Patch(0, self._header.size, self._header.with_record(record).to_bytes())


def _inner(outer: Reader) -> Reader:
    """The executable that a library's module is."""
    size = outer.count("size of the VM executable")
    start = outer.start + outer.position
    outer.skip(size, "VM executable")
    return Reader(outer.file, size, outer.source, start)


def _skip_string(reader: Reader, section: str) -> None:
    reader.skip(reader.count(section), section)


def _skip_strings(reader: Reader, section: str) -> None:
    for _ in range(reader.entries(section)):
        _skip_string(reader, section)


def _skip_array(reader: Reader, section: str) -> None:
    reader.skip(_INDEX_BYTES * reader.count(section), section)


def _constant(reader: Reader) -> str | None:
    """Go over a constant; the name of a late-bound one."""
    section = "constants"
    tag = reader.unpack("<I", section)
    if tag == _LATE_BOUND:
        return _text(reader, reader.string(section))
    if tag != _IMMEDIATE:
        raise damaged(reader, f"a constant has the tag {tag}, expected 0 or 1")
    skip_tensor(reader, section)
    return None


def _strings(reader: Reader, section: str, expected: int | None = None) -> list[bytes]:
    count = reader.entries(section)
    if expected not in (None, count):
        raise damaged(reader, f"a function has {count} fields, expected {expected}")
    return [reader.string(section) for _ in range(count)]


def _text(reader: Reader, name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(reader, f"the name {name[:100]!r} is not UTF-8") from error


def _number(reader: Reader, text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text):
        raise damaged(reader, f"a function has {text[:40]!r} instructions, expected a number")
    return int(text)
