# SPDX-License-Identifier: Apache-2.0
"""Files that were cut, damaged, or made to mislead: each ends in an error, and soon."""

import gzip
import io
import random
import struct
import tarfile
import tracemalloc

import pytest
from binaries import RECORD, archive, library, object_file, universal
from containers.test_archives import tar_of
from containers.test_platforms import OWNER, TYPE, opened, payloads

from tvm_model_hash import limits
from tvm_model_hash.containers.library import open_library
from tvm_model_hash.containers.tar import members
from tvm_model_hash.containers.window import Window
from tvm_model_hash.errors import ArtifactError, ModelHashError

X86_64, MIPS, S390 = "x86_64-linux-gnu", "mips-linux-musl", "s390x-linux-gnu"
MAC_ARM, MAC_X86, WINDOWS, WASM = (
    "aarch64-macos",
    "x86_64-macos",
    "x86_64-windows-gnu",
    "wasm32-wasi",
)
NAMES = ("__tvm_dev_mblob", "__tvm_module_ctx", "elsewhere", "add")
CUTS = 200


def tar_files():
    return {
        "lib0.o": object_file(X86_64, None).read_bytes(),
        "a" * 120 + ".o": object_file(X86_64).read_bytes(),
    }


FILES = {
    "ELF": lambda: library(X86_64).read_bytes(),
    "ELF object": lambda: object_file(X86_64).read_bytes(),
    "ELF of 32 bits, big-endian": lambda: library(MIPS).read_bytes(),
    "ELF with a hash table of System V": lambda: library(
        S390, RECORD, "-Wl,--hash-style=sysv"
    ).read_bytes(),
    "Mach-O": lambda: library(MAC_ARM).read_bytes(),
    "Mach-O object": lambda: object_file(MAC_X86).read_bytes(),
    "universal": lambda: universal(object_file(MAC_ARM), object_file(MAC_X86)).read_bytes(),
    "PE": lambda: library(WINDOWS).read_bytes(),
    "COFF": lambda: object_file(WINDOWS).read_bytes(),
    "wasm": lambda: library(WASM).read_bytes(),
    "wasm object": lambda: object_file(WASM).read_bytes(),
    "ar": lambda: archive(X86_64, "gnu", RECORD, None).read_bytes(),
    "ar of macOS": lambda: archive(MAC_ARM, "darwin", RECORD, None).read_bytes(),
    "tar": lambda: tar_of(tar_files()),
    "tar of pax": lambda: tar_of(tar_files(), "w", tarfile.PAX_FORMAT),
    "tar.gz": lambda: tar_of(tar_files(), "w:gz"),
}


def read_all(data):
    """All that the readers find in a file."""
    found = open_library(io.BytesIO(data), len(data), "a.lib")
    if found is None:
        return None
    symbols = []
    for binary in found.binaries:
        for symbol in [*binary.symbols(NAMES).values(), *binary.search(("library_bin", "record"))]:
            window = symbol.data
            symbols.append((symbol.name, window and window.read(0, window.size, "symbol")))
    said = (found.container, found.platform, found.dependencies)
    return said, payloads(found), symbols, [member.name for member in found.others]


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_an_error(name):
    data = FILES[name]()
    whole = read_all(data)
    assert whole[1] == [RECORD] * (2 if name == "universal" else 1)
    sizes = {len(data) * number // CUTS for number in range(CUTS)} | {len(data) - 1, 1, 7, 63, 64}
    behind = []
    for size in sorted(sizes):
        try:
            found = read_all(data[:size])
        except ArtifactError:
            assert not behind, f"cut at {size} is an error, and at {behind} is not"
            continue
        # So little that it is of no format, or what is missing is behind the end; and where a
        # module of wasm ends, between two of its sections, nothing tells.
        if name.startswith("wasm") and size in section_ends(data):
            assert found[1] in ([], [RECORD])
        elif found is not None:
            behind.append(size)
            assert found == whole, f"cut at {size} of {len(data)}"
        else:
            assert size < 600
    # At the end of a tar there is padding.
    assert not behind or name in ("tar", "tar of pax")


def section_ends(data):
    """Where the sections of a wasm module end, with their kinds."""
    ends, position = {8: None}, 8
    while position < len(data):
        kind, size, shift = data[position], 0, 0
        while True:
            position += 1
            size |= (data[position] & 0x7F) << shift
            shift += 7
            if data[position] < 0x80:
                break
        position += 1 + size
        ends[position] = kind
    return ends


def test_a_module_of_wasm_cut_before_its_code_is_an_error():
    data = library(WASM).read_bytes()
    ends = section_ends(data)
    (code,) = (end for end, kind in ends.items() if kind == 10)
    before = [end for end in ends if end < code]
    with pytest.raises(ArtifactError, match="it was cut, or put together wrongly"):
        read_all(data[: max(before)])
    assert read_all(data[:code])[1] == []


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(("ar", "wasm"))])
def test_what_stands_behind_a_file_changes_nothing(name):
    data = FILES[name]()
    assert read_all(data + b"what another tool appends") == read_all(data)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_a_typed_error_or_is_read(name):
    data = FILES[name]()
    rng = random.Random(name)
    errors = 0
    # Where headers and tables are: at the beginning, at the end, and in between.
    places = [rng.randrange(min(len(data), 600)) for _ in range(150)]
    places += [rng.randrange(len(data)) for _ in range(150)]
    places += [len(data) - 1 - rng.randrange(min(len(data), 1500)) for _ in range(100)]
    for place in places:
        damaged = bytearray(data)
        size = rng.choice((1, 1, 2, 4, 8))
        value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        damaged[place : place + size] = bytes([value]) * len(damaged[place : place + size])
        message = None
        try:
            read_all(bytes(damaged))
        except ModelHashError as error:
            message = str(error)
        assert message is None or "a.lib" in message
        errors += message is not None
    assert errors > 5


# What is made to mislead


class Counting(io.BytesIO):
    count = 0

    def read(self, *arguments):
        data = super().read(*arguments)
        self.count += len(data)
        return data


def elf(**changes):
    """An ELF library of 64 bits with other values in its header."""
    places = {"shoff": (40, "<Q"), "phnum": (56, "<H"), "shnum": (60, "<H"), "phoff": (32, "<Q")}
    data = bytearray(library(X86_64).read_bytes())
    for name, value in changes.items():
        place, layout = places[name]
        struct.pack_into(layout, data, place, value)
    return bytes(data)


def dynamic(data, tag):
    """Where in an ELF library of 64 bits a value of its dynamic segment stands, and the value."""
    segments, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for number in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<II4Q", data, segments + 56 * number)
        if kind == 2:
            for place in range(offset, offset + size, 16):
                found, value = struct.unpack_from("<2Q", data, place)
                if found == tag:
                    return place + 8, value
    raise AssertionError(tag)


def refused(data, message):
    file = Counting(data)

    def read():
        for binary in open_library(file, len(data), "a.lib").binaries:
            binary.notes(OWNER, TYPE)
            binary.symbols(("nothing", "none", "__tvm_dev_mblob"))
            list(binary.search(("library_bin",)))

    with pytest.raises(ArtifactError, match=message):
        read()
    assert file.count < 4 * 1024 * 1024


def test_tens_of_thousands_of_segments_are_refused():
    refused(elf(phnum=65534) + bytes(65534 * 56), "65534 segments, more than the limit of 4096")


def test_a_section_or_segment_outside_of_the_file_is_an_error():
    data = bytearray(library(X86_64).read_bytes())
    sections, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    for number in range(1, count):
        place = sections + 64 * number
        if struct.unpack_from("<I", data, place + 4)[0] != 8:  # not one without bytes
            damaged = bytearray(data)
            struct.pack_into("<Q", damaged, place + 32, len(data))
            refused(bytes(damaged), f"its section {number} would be the bytes")
    damaged = bytearray(library(MAC_ARM).read_bytes())
    struct.pack_into("<Q", damaged, 32 + 48, len(damaged) + 1)  # of the first segment
    refused(bytes(damaged), "its segment would be the bytes")


def test_too_many_sections_are_refused():
    data = bytearray(elf(shnum=0) + bytes(64 * 1000))
    place = struct.unpack_from("<Q", data, 40)[0]
    struct.pack_into("<Q", data, place + 32, 1 << 40)
    refused(bytes(data), "more than the limit of 131072")


def test_a_chain_without_an_end_is_refused():
    data = bytearray(library(X86_64, RECORD, "-Wl,--hash-style=sysv").read_bytes())
    table = dynamic(data, 4)[1]  # at the same place in the file: it is in the first segment
    buckets, symbols = struct.unpack_from("<2I", data, table)
    first = 1  # the chain of each symbol leads back to the symbol
    for number in range(buckets):
        struct.pack_into("<I", data, table + 8 + 4 * number, first)
    for number in range(symbols):
        struct.pack_into("<I", data, table + 8 + 4 * (buckets + number), number)
    refused(bytes(data), "a chain of its hash table has no end within 4096")


def test_a_dynamic_segment_without_an_end_is_refused():
    data = bytearray(library(X86_64).read_bytes())
    place, _ = dynamic(data, 5)
    while struct.unpack_from("<Q", data, place - 8)[0]:
        place += 16
    struct.pack_into("<Q", data, place - 8, 0x6FFFFFFF)
    refused(bytes(data), "has no end within 4096 entries|rows|section|segment|symbol")


def test_a_note_longer_than_its_segment_is_an_error():
    data = library(X86_64).read_bytes()
    place = data.index(b"tvm-model-hash\0") - 12
    for offset in (0, 4):
        damaged = bytearray(data)
        struct.pack_into("<I", damaged, place + offset, 0xFFFFFFF0)
        refused(bytes(damaged), "its note would be the bytes")


def test_a_tree_of_exports_with_a_circle_is_refused():
    data = bytearray(library(MAC_ARM).read_bytes())
    count = struct.unpack_from("<I", data, 16)[0]
    position = 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, position)
        if command in (0x80000022, 0x80000033):
            place = struct.unpack_from(
                "<I", data, position + (40 if command & 0x22 == 0x22 else 8)
            )[0]
            if command == 0x80000033:
                place = struct.unpack_from("<I", data, position + 8)[0]
        position += size
    # No name here, one child by the letter a, which is this node again.
    data[place : place + 5] = b"\0\1a\0\0"
    refused(bytes(data), "not a tree")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"12 size=abc\n", "gives the size"),
        (b"99 path=a\n", "malformed"),
        (b"x path=a\n", "malformed"),
        (b"22 GNU.sparse.major=1\n", "has holes"),
    ],
)
def test_a_header_of_pax_that_is_not_one_is_refused(record, message):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    data = header.tobuf() + record.ljust(512, b"\0") + tar_of({"a.o": b""})
    refused(data, message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.GNUTYPE_SPARSE, "a file with holes"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.SYMTYPE, "a link"),
        (tarfile.FIFOTYPE, "of the type '6'"),
    ],
)
def test_what_is_no_file_in_a_tar_is_refused(kind, message):
    header = tarfile.TarInfo("a.o")
    header.type = kind
    refused(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024), message)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_long_header_of_a_tar_is_not_read(kind):
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 20_000_000
    refused(header.tobuf(tarfile.GNU_FORMAT) + bytes(20_001_024), "more than the limit of")


def test_a_file_larger_than_the_tar_is_refused():
    header = tarfile.TarInfo("a.o")
    header.size = 1 << 50
    refused(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096), "damaged or truncated: its file 'a.o'")


def test_an_end_of_a_tar_of_one_block_is_an_error():
    data = tar_of({"a.o": object_file(X86_64).read_bytes()}).rstrip(b"\0")
    data = data.ljust(-(-len(data) // 512) * 512 + 512, b"\0")
    refused(data, "its end of the archive would be the bytes")
    refused(data + b"text".ljust(512, b"\0"), "has one empty block, expected two")


def test_a_header_of_a_tar_with_a_wrong_checksum_is_an_error():
    data = bytearray(tar_of({"a.o": object_file(X86_64).read_bytes()}))
    data[0] ^= 1
    refused(bytes(data), "the header at 0 in it has a wrong checksum")


def with_checksum(header):
    return header[:148] + b"%06o\0 " % sum(header[:148], sum(header[156:]) + 256) + header[156:]


def test_what_only_some_readers_take_for_a_directory_of_a_tar_is_refused():
    """GNU tar has other fields at the place of what tarfile puts before the name."""
    header = tarfile.TarInfo("a.o").tobuf(tarfile.GNU_FORMAT)
    header = with_checksum(header[:345] + b"dir" + header[348:])
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").name == "dir/a.o"
    refused(header + bytes(1024), "the header at 0 in it has a name that not all read")


@pytest.mark.parametrize("field", [b"\x0000000000777", b"0000\x000000777"])
def test_a_number_of_a_tar_that_not_all_readers_read_as_the_same_is_refused(field):
    header = tarfile.TarInfo("a.o").tobuf(tarfile.GNU_FORMAT)
    header = with_checksum(header[:124] + field + header[136:])
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 0
    refused(header + bytes(1536), "expected an octal number")


def before_a_file(*headers):
    """A tar with one file, and before it headers of the kinds, with their contents."""
    data = b""
    for kind, content in headers:
        header = tarfile.TarInfo("long")
        header.type, header.size = kind, len(content)
        data += header.tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")
    return data + tarfile.TarInfo("a.o").tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def tarfile_names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


LONG, PAX = (tarfile.GNUTYPE_LONGNAME, b"b.o\0"), (tarfile.XHDTYPE, b"12 path=c.o\n")


@pytest.mark.parametrize(
    "header", [(tarfile.GNUTYPE_LONGNAME, b"a\0b\0"), (tarfile.XHDTYPE, b"12 path=a\0b\n")]
)
def test_a_name_with_a_byte_0_in_a_tar_is_refused(header):
    refused(before_a_file(header), r"the name 'a\\x00b' in it has a byte 0")


@pytest.mark.parametrize(
    ("headers", "name"),
    [((LONG, PAX), "b.o"), ((PAX, LONG), "c.o"), (((tarfile.XGLTYPE, PAX[1]),), "c.o")],
)
def test_names_of_which_readers_take_the_one_or_the_other_are_refused(headers, name):
    assert tarfile_names(before_a_file(*headers)) == [name]
    refused(before_a_file(*headers), "'long' in it says another name or size than one before")


@pytest.mark.parametrize(
    ("headers", "name"),
    [((LONG,), "b.o"), ((PAX,), "c.o"), (((tarfile.XGLTYPE, b"9 a=text\n"), PAX, PAX), "c.o")],
)
def test_names_that_all_read_in_the_same_way_are_read(headers, name):
    data = before_a_file(*headers)
    window = Window(io.BytesIO(data), len(data), "a.tar")
    assert tarfile_names(data) == [name] == [member.name for member in members(window)]


def test_a_long_name_without_an_end_is_refused():
    data = before_a_file((tarfile.GNUTYPE_LONGNAME, b"b.oc"))
    data = with_checksum(data[:124] + b"%011o\0" % 3 + data[136:512]) + data[512:]
    assert tarfile_names(data) == ["b.oc"]
    refused(data, "a long name in it has no byte 0 at its end")


def test_a_pax_header_that_takes_back_a_name_is_refused():
    refused(before_a_file((tarfile.XHDTYPE, b"8 path=\n")), "gives no name")


def test_a_directory_of_a_tar_that_has_bytes_is_refused():
    """For tarfile they are the next header, and here it would be what stands behind them."""
    header = tarfile.TarInfo("d")
    header.type, header.size = tarfile.DIRTYPE, 512
    data = header.tobuf(tarfile.GNU_FORMAT) + before_a_file()
    assert tarfile_names(data) == ["d", "a.o"]
    refused(data, "the directory 'd/' in it has 512 bytes")


def test_too_many_files_in_a_tar_are_refused():
    files = b"".join(tarfile.TarInfo(str(number)).tobuf() for number in range(4097))
    refused(files + bytes(1024), "more than the limit of 4096")


def test_archives_in_archives_are_read_to_a_limit():
    data = object_file(X86_64).read_bytes()
    for _ in range(5):
        header = b"%-16s%-32d%-10d`\n" % (b"a.o/", 0, len(data))
        data = b"!<arch>\n" + header + data + b"\n" * (len(data) % 2)
    refused(data, "deeper than the limit of 3")


def test_a_bomb_is_not_decompressed(monkeypatch):
    monkeypatch.setattr(limits, "DECOMPRESSED_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(1 << 27))
    tracemalloc.start()
    try:
        refused(bomb, "compressed by more than a factor of 100")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_number_of_wasm_without_an_end_is_refused():
    refused(b"\0asm\1\0\0\0\7" + b"\x80" * 20, "a number in its sections has no end")
    section = b"\xff\xff\xff\x7f" + bytes(100)
    refused(b"\0asm\1\0\0\0\7" + bytes([len(section)]) + section, "more than the limit of 262144")


def test_little_of_a_large_library_is_read():
    # The same library with its section headers, and a hole, behind 1 GiB.
    data = library(X86_64).read_bytes()
    begin, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]

    class Sparse(Counting):
        def __init__(self, data, start, tail):
            super().__init__(data)
            self.begin, self.tail, self.place = start, tail, 0

        def seek(self, place, whence=0):
            self.place = place
            return super().seek(min(place, 1 << 20), whence)

        def read(self, size):
            if self.place >= self.begin:
                result = self.tail[self.place - self.begin :][:size]
                self.count += len(result)
                return result
            return super().read(size)

    moved = bytearray(data)
    struct.pack_into("<Q", moved, 40, 1 << 30)
    file = Sparse(bytes(moved), 1 << 30, data[begin : begin + 64 * count])
    found = open_library(file, (1 << 30) + 64 * count, "a.lib")
    assert payloads(found) == [RECORD]
    (binary,) = found.binaries
    assert set(binary.symbols(NAMES)) == {"__tvm_dev_mblob", "add"}
    assert file.count < 64 * 1024


def test_the_errors_name_the_file_and_the_place():
    data = tar_of({"lib0.o": object_file(X86_64).read_bytes()[:-1]})
    message = r"'lib0.o' in a.lib is damaged or truncated: its section headers would be the bytes"
    with pytest.raises(ArtifactError, match=message), opened(data):
        pass
