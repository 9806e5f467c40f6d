# SPDX-License-Identifier: Apache-2.0
"""Each limit lets through what is at it, and nothing above it; FORMAT.md has the same ones."""

import gzip
import json
import re
import struct

import hostile
import numpy as np
import pytest
from artifact.test_record_module import RECORD as LIBRARY_RECORD
from binaries import RECORD, archive, library, object_file, universal
from conftest import ROOT
from hostile import external, header, model, shard, string, tar_header_with_pax, text, u64
from onnx import TensorProto, helper

from tvm_model_hash import limits
from tvm_model_hash.artifact.record_io import read_artifact
from tvm_model_hash.artifact.record_module import Engine, c_source, payload
from tvm_model_hash.checking.hash_file import read_hash_file
from tvm_model_hash.checking.manifest import read_seal, seal
from tvm_model_hash.checking.package import unpacked
from tvm_model_hash.checking.parts import file_names, read_parts
from tvm_model_hash.containers.library import open_library
from tvm_model_hash.errors import ModelHashError
from tvm_model_hash.files import file_sha256
from tvm_model_hash.limits import Limit
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.model.file import load_model
from tvm_model_hash.record import Record

LIMITS = {name: value for name, value in vars(limits).items() if isinstance(value, Limit)}
X86_64, MAC_ARM, MAC_X86 = "x86_64-linux-gnu", "aarch64-macos", "x86_64-macos"
WINDOWS, WASM = "x86_64-windows-gnu", "wasm32-wasi"

#: By name: writes below a directory what has so many, and gives what reads it, and how many: None
#: where that is found out.
CASES = {}


def case(*names):
    def add(function):
        CASES.update(dict.fromkeys(names, function))
        return function

    return add


def all_of(path):
    """Read all that the readers find in a library."""
    with open(path, "rb") as file:
        found = open_library(file, path.stat().st_size, "a.lib")
        for binary in found.binaries:
            binary.notes(b"tvm-model-hash", 1)
            binary.symbols(("__tvm_dev_mblob",))
            list(binary.search(("record", "library_bin")))


@case("LIBRARY_BYTES", "LIBRARY_STEPS", "HEADERS", "ELF_SECTIONS", "ELF_NOTES")
def elf_library(directory):
    return lambda: all_of(library(X86_64)), None


@case("ELF_CHAIN")
def chain(directory):
    return lambda: all_of(library(X86_64, RECORD, "-Wl,--hash-style=sysv")), None


@case("FOUND_SYMBOLS", "TABLE_ENTRIES")
def elf_object(directory):
    return lambda: all_of(object_file(X86_64)), None


@case("MACH_O_COMMAND_BYTES", "MACH_O_EXPORT_BYTES", "MACH_O_NAME_BYTES")
def mach_o(directory):
    return lambda: all_of(library(MAC_ARM)), None


@case("COFF_SYMBOLS")
def coff(directory):
    return lambda: all_of(object_file(WINDOWS)), None


@case("WASM_SECTIONS", "WASM_ENTRIES")
def wasm(directory):
    return lambda: all_of(object_file(WASM)), None


@case("SLICES")
def slices(directory):
    path = universal(library(MAC_ARM), library(MAC_X86))
    return lambda: read_artifact(path), 2


@case("BINARIES")
def binaries(directory):
    path = archive(X86_64, "gnu", RECORD, None)
    return lambda: all_of(path), 2


@case("PAYLOADS")
def payloads(directory):
    return lambda: read_artifact(library(X86_64)), 1


@case("PAYLOAD_BYTES")
def payload_bytes(directory):
    return lambda: read_artifact(library(X86_64)), len(RECORD)


@case("PAYLOAD_SECTION_BYTES")
def payload_section(directory):
    return lambda: read_artifact(library(MAC_ARM)), len(RECORD) + 1


@case("SOURCE_BYTES")
def source(directory):
    data = c_source(payload(LIBRARY_RECORD, []), Engine.RELAX).encode()
    entry = header("lib0.c", size=len(data)) + data + bytes(-len(data) % 512)
    path = text(directory, "a.tar", entry + bytes(1024))
    return lambda: read_artifact(path), len(data)


def ar(*members):
    return b"!<arch>\n" + b"".join(hostile.member(name, data) for name, data in members)


@case("NAME_BYTES")
def name_bytes(directory):
    path = text(directory, "a.a", ar((b"#1/20", b"n" * 20)))
    return lambda: all_of(path), 20


@case("NAME_TABLE_BYTES")
def name_table(directory):
    path = text(directory, "a.a", ar((b"//", b"name/\n" * 10)))
    return lambda: all_of(path), 60


@case("MEMBERS")
def members(directory):
    path = text(directory, "a.a", ar((b"a", b""), (b"b", b""), (b"c", b"")))
    return lambda: all_of(path), 3


@case("ARCHIVE_DEPTH")
def archive_depth(directory):
    path = text(directory, "a.a", ar((b"a", ar((b"b", b"")))))
    return lambda: all_of(path), 2


@case("PAX_BYTES")
def pax(directory):
    data = tar_header_with_pax(b"10 path=a\n") + header() + bytes(1024)
    path = text(directory, "a.tar", data)
    return lambda: all_of(path), 10


@case("DECOMPRESSED_BYTES")
def decompressed(directory, monkeypatch):
    monkeypatch.setattr(limits, "DECOMPRESSION", 0)
    path = text(directory, "a.tar.gz", gzip.compress(header() + bytes(1024)))
    return lambda: all_of(path), 1536


@case("DECOMPRESSION")
def decompression(directory, monkeypatch):
    monkeypatch.setattr(limits, "DECOMPRESSED_BYTES", 0)
    path = text(directory, "a.tar.gz", gzip.compress(header() + bytes(1024)))
    return lambda: all_of(path), None


@case("PACKAGE_BYTES")
def package(directory):
    entries = [header(name, size=512) + bytes(512) for name in "ab"]
    path = text(directory, "a.tar", b"".join(entries) + bytes(1024))

    def unpack():
        with unpacked(str(path)) as files:
            assert len(files) == 2

    return unpack, 1024


@case("RECORD_BYTES")
def record(directory):
    line = str(Record("0" * 64))
    return lambda: Record.parse(line), len(line)


@case("HASH_FILE_BYTES")
def hash_file(directory):
    path = text(directory, "hash.txt", b"0" * 64 + b" " * 36)
    return lambda: read_hash_file(path), 100


@case("DIRECTORY_FILES")
def directory_files(directory):
    for name in "abc":
        (directory / name).write_bytes(b"")
    return lambda: list(file_names(str(directory))), 3


@case("DIRECTORY_DEPTH")
def directory_depth(directory):
    (directory / "a/b/c").mkdir(parents=True)
    return lambda: list(file_names(str(directory))), 3


@case("MANIFEST_BYTES")
def manifest(directory):
    (directory / "a").write_bytes(b"")
    path = seal(directory)
    with open(path, "rb") as file:
        return lambda: read_seal(directory), len(file.read())


@case("MANIFEST_PATTERNS", "PATTERN_LENGTH")
def patterns(directory):
    (directory / "a").write_bytes(b"")
    counts = {"MANIFEST_PATTERNS": 2, "PATTERN_LENGTH": 5}
    return lambda: seal(directory, ("*.txt", "b")), counts


@case("FILE_BYTES")
def file_bytes(directory):
    path = text(directory, "a", bytes(1000))
    return lambda: file_sha256(str(path)), 1000


def tensor(*dims):
    shape = struct.pack(f"<{len(dims)}q", *dims)
    kind = struct.pack("<iiiBBH", 1, 0, len(dims), 2, 32, 1)
    return u64(0xDD5E40F096B4A13F, 0) + kind + shape + u64(4) + bytes(4)


def tensor_list(directory, *names, dims=()):
    data = hostile.LIST + u64(len(names)) + b"".join(map(string, names)) + u64(len(names))
    return text(directory, "consts", data + tensor(*dims) * len(names))


@case("TENSORS")
def tensors(directory):
    path = tensor_list(directory, b"a", b"b")
    return lambda: read_artifact(path), 2


@case("STRING_BYTES")
def string_bytes(directory):
    path = tensor_list(directory, b"a" * 10, b"b")
    return lambda: read_artifact(path), 10


@case("TENSOR_DIMENSIONS")
def dimensions(directory):
    path = tensor_list(directory, b"a", dims=(1, 1))
    return lambda: read_artifact(path), 2


@case("PARTS")
def parts(directory):
    path = str(tensor_list(directory, b"a"))
    return lambda: read_parts({"a": path, "b": path}), 2


@case("SERIALIZED_ENTRIES")
def entries(directory):
    path = text(directory, "code.ro", hostile.code_with_late_bound(b"a", b"b", b"c"))
    return lambda: read_artifact(path), 3


@case("DEVICES")
def devices(directory):
    path = text(directory, "code.ro", hostile.code_with_late_bound())
    return lambda: read_artifact(path), 1


@case("SHARDS", "JSON_BYTES")
def shards(directory):
    for name in "ab":
        (directory / name).write_bytes(b"")
    path = hostile.cache(directory, [shard("a"), shard("b")])
    return lambda: read_artifact(path), None


@case("JSON_VALUES", "JSON_DEPTH", "JSON_DIGITS")
def json_values(directory):
    data = {"metadata": {'a,"[': [[12345, -1.5e10], '\\",[[']}, "records": []}
    path = text(directory, "tensor-cache.json", json.dumps(data).encode())
    # Commas and brackets, but for those in strings.
    counts = {"JSON_VALUES": 3 + 10, "JSON_DEPTH": 4, "JSON_DIGITS": 11}
    return lambda: read_artifact(path), counts


@case("ZIP_DIRECTORY_BYTES")
def zip_directory(directory):
    np.savez(directory / "a.npz", a=np.zeros(1))
    return lambda: read_artifact(directory / "a.npz"), None


@case("MODEL_BYTES")
def model_bytes(directory):
    path = model(directory)
    return lambda: load_model(path), path.stat().st_size


def nested(depth):
    """A graph in a graph in a graph, the innermost one with a tensor that is left in the file."""

    def graph(number, nodes, tensor):
        output = helper.make_tensor_value_info(f"y{number}", TensorProto.UINT8, [4096])
        return helper.make_graph(nodes, "g", [], [output], [tensor])

    weight = TensorProto(name="w", dims=[4096], data_type=TensorProto.UINT8, raw_data=bytes(4096))
    inner = graph(0, [helper.make_node("Identity", ["w"], ["y0"])], weight)
    for number in range(1, depth):
        name = f"c{number}"
        condition = TensorProto(name=name, dims=[], data_type=TensorProto.BOOL, int32_data=[1])
        branches = {"then_branch": inner, "else_branch": inner}
        inner = graph(
            number, [helper.make_node("If", [name], [f"y{number}"], **branches)], condition
        )
    return helper.make_model(inner)


@case("MODEL_FIELDS", "MESSAGE_DEPTH")
def left_to_protobuf(directory):
    path = text(directory, "model.onnx", nested(2).SerializeToString())

    def read():
        # Above the limit protobuf reads it all, which is slower or takes more memory.
        if not load_model(path).ranges:
            raise ModelHashError("above the limit")

    # Model, graph, node, attribute, graph, tensor.
    return read, {"MESSAGE_DEPTH": 6}


@case("GRAPH_DEPTH")
def graph_depth(directory):
    path = text(directory, "model.onnx", nested(3).SerializeToString())
    return lambda: model_record(path), 3


@case("EXTERNAL_BYTES", "EXTERNAL_SHARES")
def shared(directory, monkeypatch, name):
    other = {"EXTERNAL_BYTES": "EXTERNAL_SHARES", "EXTERNAL_SHARES": "EXTERNAL_BYTES"}[name]
    monkeypatch.setattr(limits, other, 0)
    (directory / "w.bin").write_bytes(bytes(100))
    path = model(directory, [external([100], n, location="w.bin") for n in range(2)])
    return lambda: model_record(path), {"EXTERNAL_BYTES": 200, "EXTERNAL_SHARES": 2}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_at_a_limit_is_read_and_what_is_above_it_is_not(name, tmp_path, monkeypatch):
    values = {"monkeypatch": monkeypatch, "name": name}
    make = CASES[name]
    wanted = make.__code__.co_varnames[1 : make.__code__.co_argcount]
    read, count = make(tmp_path, **{key: values[key] for key in wanted})
    count = count.get(name) if isinstance(count, dict) else count

    def refused(limit):
        monkeypatch.setattr(limits, name, Limit(limit, "", ""))
        try:
            read()
        except ModelHashError as error:
            return str(error)
        return None

    assert refused(LIMITS[name]) is None
    low, high = 0, int(LIMITS[name]) if count is None else count
    while count is None and high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if refused(middle) else (low, middle)
    assert refused(high) is None
    message = refused(high - 1)
    assert message is not None
    if name not in (
        "SLICES",
        "SOURCE_BYTES",
    ):
        # Above these it is another file, and a source that is not looked at.
        assert re.search(
            "limit|has no end within|more than|expected up to|nested|expected 1 to", message
        )


def test_format_md_has_the_limits():
    table = (ROOT / "FORMAT.md").read_text(encoding="utf-8").split("## Limits\n")[1]
    found = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in table.split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    expected = [(f"{value:,} {value.unit}", value.what) for value in LIMITS.values()]
    assert found[2:] == expected
