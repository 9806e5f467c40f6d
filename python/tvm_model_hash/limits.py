# SPDX-License-Identifier: Apache-2.0
"""What may be read: no file makes a reader work without end, or fills the memory.

Each limit is far above what is found in real files, and low enough that a file at all of them is
still read in seconds. They are checked before the work that they limit. FORMAT.md has this table.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from .errors import ArtifactError, ModelHashError


class Limit(int):
    """A number that is allowed, and what it is a number of.

    Parameters
    ----------
    value : int
        The most that is allowed.
    unit : str
        What is counted; ``"bytes"``, for example.
    what : str
        Where, as FORMAT.md says it.
    """

    unit: str
    what: str

    def __new__(cls, value: int, unit: str, what: str) -> Limit:
        """Make one."""
        limit = super().__new__(cls, value)
        limit.unit, limit.what = unit, what
        return limit


_KIB, _MIB, _GIB, _TIB = (1 << shift for shift in (10, 20, 30, 40))

# Everywhere. A record is read by C++ too, and lies where no artifact has much room.
RECORD_BYTES = Limit(1024, "bytes", "in a record")
# As sha256sum writes it, a file's name stands behind the hash.
HASH_FILE_BYTES = Limit(8 * _KIB, "bytes", "in `hash.txt`")

# Directories. A cache of weights has a few thousand files; systems take paths of 4,096 bytes.
DIRECTORY_FILES = Limit(1 << 17, "files", "in a directory and those below it")
DIRECTORY_DEPTH = Limit(64, "directories", "in each other")
PARTS = Limit(4096, "artifacts", "in a deployment, not counting the shards of tensor caches")
# Of a file there are under 120 bytes beside its name, and in memory ten times of that.
MANIFEST_BYTES = Limit(16 * _MIB, "bytes", "in `SHA256SUMS`")
# Each is compared with each file that is not listed.
MANIFEST_PATTERNS = Limit(64, "patterns", "in `SHA256SUMS`")
PATTERN_LENGTH = Limit(255, "characters", "in such a pattern")

# Packages. They are unpacked before their parts are read, and the disk has to have the room.
PACKAGE_BYTES = Limit(64 * _GIB, "bytes", "in the files of a package")

# Libraries and archives.
# What is read of it: tables of names and of symbols, each as often as it is looked through.
LIBRARY_BYTES = Limit(
    1 * _GIB, "bytes", "of names and tables read of a library, as often as they are"
)
LIBRARY_STEPS = Limit(
    1 << 23,
    "entries",
    "of tables looked at in a library, as often as they are",
)
NAME_BYTES = Limit(
    4096, "bytes", "in the name of a library, file or section; at the end of a symbol's"
)
FOUND_SYMBOLS = Limit(1024, "symbols", "found by one search, and modules found in a library")
TABLE_ENTRIES = Limit(
    1 << 20, "entries", "in a table of symbols, in an ar's table, of hash buckets"
)
HEADERS = Limit(
    4096, "headers", "of ELF segments, of a dynamic segment, load commands, libraries to load"
)
ELF_SECTIONS = Limit(1 << 17, "sections", "in ELF")
ELF_NOTES = Limit(4096, "notes", "in ELF, of all owners")
ELF_CHAIN = Limit(4096, "symbols", "in a chain of an ELF hash table")
MACH_O_COMMAND_BYTES = Limit(1 * _MIB, "bytes", "of Mach-O load commands")
MACH_O_EXPORT_BYTES = Limit(4 * _MIB, "bytes", "in Mach-O's tree of exported names")
# In the tree a name's beginning stands once for all that begin so.
MACH_O_NAME_BYTES = Limit(64 * _MIB, "bytes", "in all names that this tree stands for")
# A class of Java, which begins with the same bytes, has a larger number there.
SLICES = Limit(32, "slices", "in a universal file; one with more is another file")
COFF_SYMBOLS = Limit(1 << 17, "symbols", "in COFF, and exported names in PE")
WASM_SECTIONS = Limit(4096, "sections", "in wasm, and parts of one for the linker")
WASM_ENTRIES = Limit(
    1 << 18,
    "entries",
    "in wasm: imports, globals, exports, segments of data, instructions of constants",
)
MEMBERS = Limit(4096, "files", "in an ar, a tar or a package")
NAME_TABLE_BYTES = Limit(1 * _MIB, "bytes", "in an ar's table of long names")
BINARIES = Limit(4096, "object files", "in a file, of all archives and slices in it")
ARCHIVE_DEPTH = Limit(3, "archives", "in each other")
PAX_BYTES = Limit(64 * _KIB, "bytes", "in a header of pax")
# Weights can be compressed by a factor of two at most, and zeros by 1,000.
DECOMPRESSION = Limit(100, "bytes", "decompressed for each byte of a gzip file, steps back too")
DECOMPRESSED_BYTES = Limit(256 * _MIB, "bytes", "decompressed beside that")
PAYLOAD_BYTES = Limit(1 * _MIB, "bytes", "in a library's record with its names")
PAYLOADS = Limit(64, "records", "in a library")
PAYLOAD_SECTION_BYTES = Limit(8 * _MIB, "bytes", "in a section for the record")
SOURCE_BYTES = Limit(8 * _MIB, "bytes", "in a C source that is looked into")

# What TVM's serializer writes. A large network has a hundred thousand instructions.
SERIALIZED_ENTRIES = Limit(
    1 << 22,
    "entries",
    "in an executable: globals, constants, primitives, their attributes, instructions",
)
STRING_BYTES = Limit(64 * _KIB, "bytes", "in a string that TVM has serialized")
DEVICES = Limit(1024, "devices", "in the table of a VM executable")
TENSOR_DIMENSIONS = Limit(64, "dimensions", "of a tensor")

# Parameters and graphs. Ten times the tensors of a large language model.
TENSORS = Limit(1_000_000, "tensors", "in a file")
SHARDS = Limit(1 << 16, "shards", "in a tensor cache")
ZIP_DIRECTORY_BYTES = Limit(32 * _MIB, "bytes", "in the directory of a zip archive")
# What is written for large networks has a few million bytes, of 20 for a value. In memory a value
# takes up to 150.
JSON_BYTES = Limit(
    32 * _MIB, "bytes", "of JSON (tensor cache, graph, header of safetensors), with its record"
)
JSON_VALUES = Limit(1 << 21, "values", "in JSON")
JSON_DEPTH = Limit(64, "lists and objects", "of JSON in each other")
JSON_DIGITS = Limit(1024, "digits", "in a number of JSON")

# Models. Protobuf reads none that has more bytes, or messages that are nested deeper.
MODEL_BYTES = Limit((2 << 30) - 1, "bytes", "in a model, without the raw data of large tensors")
MODEL_FIELDS = Limit(
    1 << 23,
    "fields",
    "of a model's file looked at one by one; with more, protobuf gets it whole",
)
MESSAGE_DEPTH = Limit(100, "messages", "of a model's file in each other")
GRAPH_DEPTH = Limit(64, "graphs or types", "of a model in each other")
# A model may name the same bytes for several tensors, as for the layers of ALBERT.
EXTERNAL_SHARES = Limit(64, "bytes", "of tensors for each byte of a file of external data")
EXTERNAL_BYTES = Limit(1 * _GIB, "bytes", "of tensors in such a file beside that")

#: A file that is hashed. A disk that has less is the limit for what lies on it.
FILE_BYTES = Limit(8 * _TIB, "bytes", "in a file that is hashed, and no more than its disk has")


def check_file_size(path: str, size: int, error: type[ModelHashError] = ArtifactError) -> None:
    """Check that a file may be read to its end: it may have holes, and then it has any size.

    Parameters
    ----------
    path : str
        The file.
    size : int
        Its size, in bytes.
    error : type
        Of the error.

    Raises
    ------
    ModelHashError
        If no disk, or not the one that it lies on, holds as much.
    """
    allowed, whose = int(FILE_BYTES), "the limit of"
    with suppress(OSError, ValueError):  # on systems, and in places, that do not tell
        disk = shutil.disk_usage(os.path.dirname(path) or os.curdir).total
        if 0 < disk < allowed:
            allowed, whose = disk, "its whole disk, which has"
    if size > allowed:
        raise error(
            f"cannot read {path!r}: it is said to have {size} bytes, more than {whose} {allowed}; "
            "most of it are holes. Copy the content that is meant"
        )
