# SPDX-License-Identifier: Apache-2.0
"""The header of a serialized Relay VM executable, and the record in it.

The layout, up to and including the device table (FORMAT.md has it as a byte table; the
source is ``Executable::Save`` in TVM's src/runtime/vm/executable.cc)::

    u64 magic | string version | u64 count, count * device | i32 host device index | ...

with ``string`` a u64 length and that many bytes, and ``device`` an i32 device type, an i32
device id and a string, the memory scope. Numbers are little-endian. The record is the memory
scope of one more device, of the host's type and id. The VM looks devices up by index, and no
instruction has that one's.

This is the reference that src/runtime/vm/executable_hash.cc has to agree with to the byte.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import NamedTuple

from .. import limits
from ..errors import ArtifactError, DuplicateRecordError, RecordError
from ..record import RECORD_TAG, Record
from ..versions import RELAY_TVM_RELEASES, is_relay_version
from .tvm_serializer import Reader, View

MAGIC = 0xD225DE2F4214151D

_LISTED_DEVICE = re.compile(
    r"VM VirtualDevice\[[0-9]+\]: device type (-?[0-9]+), id (-?[0-9]+) and mem_scope (.*)"
)


class VirtualDevice(NamedTuple):
    """An entry of the device table."""

    device_type: int
    device_id: int
    memory_scope: bytes


@dataclass(frozen=True)
class VMHeader:
    """The parsed header of a serialized executable.

    Parameters
    ----------
    version : str
        The version of the TVM that wrote the executable, which the loader has to have too,
        to the letter.
    devices : tuple of VirtualDevice
        The device table.
    host_device_index : int
        Index of the host's device in the table.
    size : int
        Size of the header in the file, in bytes: where the section of the globals begins.
    """

    version: str
    devices: tuple[VirtualDevice, ...]
    host_device_index: int
    size: int

    @property
    def record(self) -> Record | None:
        """The record in the device table, None where there is none.

        Raises
        ------
        RecordError
            If the record is malformed, or there are several.
        """
        index = self._record_index()
        return None if index is None else Record.decode(self.devices[index].memory_scope)

    def with_record(self, record: Record | None) -> VMHeader:
        """The same header with this record in place of the one it has, or with none.

        Parameters
        ----------
        record : Record, optional
            The record to have; None removes the one there is.

        Raises
        ------
        DuplicateRecordError
            If there are several records, so that none is the one to replace.
        """
        devices = list(self.devices)
        index = self._record_index()
        if record is None:
            if index is not None:
                del devices[index]
        else:
            scope = str(record).encode("ascii")
            if index is None:
                devices.append(devices[self.host_device_index]._replace(memory_scope=scope))
            else:
                devices[index] = devices[index]._replace(memory_scope=scope)
        return replace(self, devices=tuple(devices))

    def to_bytes(self) -> bytes:
        """Serialize the header as TVM does."""
        parts = [struct.pack("<Q", MAGIC), _pack_string(self.version.encode("ascii"))]
        parts.append(struct.pack("<Q", len(self.devices)))
        for device in self.devices:
            parts.append(struct.pack("<ii", device.device_type, device.device_id))
            parts.append(_pack_string(device.memory_scope))
        parts.append(struct.pack("<i", self.host_device_index))
        return b"".join(parts)

    def _record_index(self) -> int | None:
        tag = RECORD_TAG.encode("ascii")
        found = [i for i, device in enumerate(self.devices) if device.memory_scope.startswith(tag)]
        if len(found) > 1:
            raise _several_records(len(found))
        if not found:
            return None
        host, device = self.devices[self.host_device_index], self.devices[found[0]]
        if found[0] == self.host_device_index or device[:2] != host[:2]:
            raise RecordError(
                f"the record is at device {device.device_type}, {device.device_id} of the table, "
                f"expected an entry of its own with the host's device, {host.device_type}, "
                f"{host.device_id}: it was altered by another tool; compile it again"
            )
        return found[0]


def parse_header(code: bytes | bytearray | memoryview, source: str = "the code") -> VMHeader:
    """Parse the header of a serialized Relay VM executable.

    Parameters
    ----------
    code : bytes-like
        The serialized executable (``code.ro``), or as much of its beginning as holds the header.
    source : str
        What the bytes are, for the errors' messages; a file's name for example.

    Returns
    -------
    header : VMHeader

    Raises
    ------
    ArtifactError
        If these are not the bytes of an executable of a supported TVM, or they are truncated.
    """
    view = View(code)
    return read_header(Reader(view, view.size, source))


def read_header(reader: Reader) -> VMHeader:
    """Read the header of a serialized Relay VM executable.

    Parameters
    ----------
    reader : Reader
        At the beginning of the executable; afterwards at the section of the globals.

    Returns
    -------
    header : VMHeader

    Raises
    ------
    ArtifactError
        As :func:`parse_header`.
    """
    source = reader.source
    magic = reader.unpack("<Q", "magic number")
    if magic != MAGIC:
        raise ArtifactError(
            f"{source} is not a Relay VM executable: it begins with {magic:#018x}, expected "
            f"{MAGIC:#018x}"
        )
    # The releases differ in nothing else, and each loads its own version's only.
    version = reader.string("version").decode("ascii", "replace")
    if not is_relay_version(version):
        raise ArtifactError(
            f"{source} was written by TVM {version!r}; the layout is known for TVM "
            f"{RELAY_TVM_RELEASES[0]} to {RELAY_TVM_RELEASES[-1]} only"
        )
    count = reader.count("device table")
    if count > limits.DEVICES:
        raise ArtifactError(
            f"{source} is damaged: its device table has {count} entries, more than the limit of "
            f"{limits.DEVICES}"
        )
    devices = []
    for _ in range(count):
        device_type = reader.unpack("<i", "device table")
        device_id = reader.unpack("<i", "device table")
        devices.append(VirtualDevice(device_type, device_id, reader.string("device table")))
    host = reader.unpack("<i", "host device index")
    if not 0 <= host < count:
        raise ArtifactError(
            f"{source} is damaged: its host device index is {host}, of {count} devices"
        )
    return VMHeader(version, tuple(devices), host, reader.position)


def rewrite_record(
    code: bytes | bytearray | memoryview, record: Record | None, source: str = "the code"
) -> bytearray:
    """Put a record into a serialized executable, replace the one there, or remove it.

    Parameters
    ----------
    code : bytes-like
        The whole serialized executable.
    record : Record, optional
        The record to have; None gives back the bytes that stock TVM writes.
    source : str
        What the bytes are, for the errors' messages.

    Returns
    -------
    code : bytearray
        A copy of the executable; it differs in the header's device table only.

    Raises
    ------
    ArtifactError
        As :func:`parse_header`.
    RecordError
        If the record that is there is not the only one.
    """
    header = parse_header(code, source)
    rewritten = bytearray(header.with_record(record).to_bytes())
    rewritten += memoryview(code)[header.size :]
    return rewritten


def record_from_listing(listing: str) -> Record | None:
    """Find the record in the text that a VM executable's ``get_virtual_devices`` returns.

    This is how any stock runtime shows the device table, a remote one included.

    Parameters
    ----------
    listing : str
        One line for each entry of the device table.

    Returns
    -------
    record : Record or None
        The record, None where there is none.

    Raises
    ------
    RecordError
        If the record is malformed, or there are several.
    """
    matches = (_LISTED_DEVICE.fullmatch(line) for line in listing.split("\n"))
    scopes = [m[3] for m in matches if m and m[3].startswith(RECORD_TAG)]
    if len(scopes) > 1:
        raise _several_records(len(scopes))
    return Record.parse(scopes[0]) if scopes else None


def _several_records(count: int) -> DuplicateRecordError:
    return DuplicateRecordError(
        f"the executable carries {count} records, expected at most one: it was altered by "
        "another tool; compile it again"
    )


def _pack_string(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data
