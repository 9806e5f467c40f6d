# SPDX-License-Identifier: Apache-2.0
"""The record in libraries: of every platform, of both engines, in archives, in several parts."""

import struct
import subprocess
import tarfile

import binaries
import pytest
import tvm
from artifacts import build, models
from binaries import MODEL, OTHER_MODEL, OTHER_RECORD, PLATFORMS, RECORD, library, object_file
from conftest import identity
from tvm import relay

from tvm_model_hash import limits
from tvm_model_hash.artifact.record_io import Role, read_artifact
from tvm_model_hash.artifact.record_module import Engine, c_source, payload
from tvm_model_hash.errors import ArtifactError, DuplicateRecordError, RecordError
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.record import Record

X86_64, MAC_ARM, MAC_X86 = "x86_64-linux-gnu", "aarch64-macos", "x86_64-macos"
NOTHING = ("padding", b"\0")
KINDS = {
    "_lib": (Role.KERNELS, "TVM kernel library"),
    "cuda": (Role.KERNELS, "TVM kernel library (of type 'cuda')"),
    "GraphExecutorFactory": (Role.EXECUTABLE, "Relay graph executor"),
    "AotExecutorFactory": (Role.EXECUTABLE, "Relay AOT executor"),
    "relax.VMExecutable": (Role.EXECUTABLE, "Relax VM executable"),
}


def modules(*type_keys):
    """A tree of modules as TVM 0.19 writes it into a library, without their contents."""
    data = struct.pack("<Q", len(type_keys))
    for key in type_keys:
        data += struct.pack("<Q", len(key)) + key.encode()
    return struct.pack("<Q", len(data)) + data


def ffi_modules(*type_keys):
    """The same as TVM 0.27 writes it: with a tree before the modules."""
    data = struct.pack(f"<Q{len(type_keys) + 1}QQ", len(type_keys) + 1, *[0] * len(type_keys), 0, 0)
    data += modules(*type_keys)[16:]
    return struct.pack("<Q", len(data)) + data


def tar_of(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, source in files.items():
            archive.add(source, name)
    return path


# Every platform


@pytest.mark.parametrize("target", PLATFORMS)
def test_the_record_of_each_platform_is_read(target):
    for make, container in ((library, "shared library"), (object_file, "object file")):
        artifact = read_artifact(make(target))
        assert artifact.record == Record.parse(RECORD)
        assert artifact.container == container
        expected = PLATFORMS[target].name
        assert artifact.platform == (
            expected.replace("PE", "COFF") if make is object_file else expected
        )


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("target", [X86_64, "s390x-linux-gnu", MAC_ARM, "x86_64-windows-gnu"])
def test_what_a_library_is_is_told_by_its_root_module(target, key):
    make = ffi_modules if key.startswith("relax") else modules
    name = "__tvm_ffi__library_bin" if make is ffi_modules else "__tvm_dev_mblob"
    # Of each platform, in another way: of a model alone, with a prefix, and without a record.
    for prefix, record in (("", RECORD), ("my_model_", RECORD), ("", None)):
        symbols = ((prefix + name, make(key, "_lib")), NOTHING)
        artifact = read_artifact(library(target, record, symbols=symbols))
        assert (artifact.role, artifact.kind) == KINDS[key]
        assert artifact.record == (record and Record.parse(record))
        assert not artifact.needs_kernels


@pytest.mark.parametrize("target", [X86_64, MAC_ARM, "wasm32-wasi"])
def test_the_size_of_the_module_blob_is_checked(target):
    blob = modules("GraphExecutorFactory")
    for size in (1 << 40, len(blob) + 100_000):
        data = struct.pack("<Q", size) + blob[8:]
        path = library(target, RECORD, symbols=(("__tvm_dev_mblob", data), NOTHING))
        with pytest.raises(ArtifactError, match=f"says {size} bytes follow"):
            read_artifact(path)
    # Where symbols have a size, it has to be that of the blob.
    data = struct.pack("<Q", 12) + blob[8:]
    message = (
        "says 12 bytes follow" if target == X86_64 else "is truncated in the module's type key"
    )
    with pytest.raises(ArtifactError, match=message):
        read_artifact(library(target, RECORD, symbols=(("__tvm_dev_mblob", data), NOTHING)))


def test_models_of_different_types_in_one_library_are_an_error():
    symbols = (
        ("a___tvm_dev_mblob", modules("GraphExecutorFactory")),
        ("b___tvm_dev_mblob", modules("AotExecutorFactory")),
    )
    with pytest.raises(ArtifactError, match="'AotExecutorFactory', 'GraphExecutorFactory'"):
        read_artifact(library(X86_64, RECORD, symbols=symbols))


def test_a_relax_library_without_its_modules_is_told_by_its_functions():
    # As of wasm, where the modules' symbol is not exported.
    path = library(X86_64, RECORD, name="__tvm_ffi_a_get_model_hash")
    assert read_artifact(path).kind == "Relax VM executable"
    path = library(X86_64, RECORD, name="a_get_model_hash")
    assert read_artifact(path).kind == "TVM kernel library"


# Several records


def linked(target, *records):
    objects = [
        object_file(target, record, name="add" if not number else f"other_{number}")
        for number, record in enumerate(records)
    ]
    path = binaries.new_path("linked.lib")
    binaries.zig("cc", "-target", target, "-shared", "-nostdlib", *objects, "-o", path)
    return path


@pytest.mark.parametrize("target", [X86_64, MAC_ARM])
def test_records_of_two_models_in_a_library_are_an_error_that_names_both(target, tmp_path):
    objects = {
        "a.o": object_file(target, RECORD),
        "b.o": object_file(target, OTHER_RECORD, name="other"),
        "c.o": object_file(target, None, name="third"),
    }
    archive = binaries.archive(target, "gnu", RECORD, None, OTHER_RECORD)
    for path in (linked(target, RECORD, OTHER_RECORD), archive, tar_of(tmp_path / "a", objects)):
        with pytest.raises(DuplicateRecordError, match=f"{MODEL}.*{OTHER_MODEL}") as caught:
            read_artifact(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("target", [X86_64, MAC_ARM])
def test_equal_records_in_a_library_are_one(target):
    for path in (
        linked(target, RECORD, RECORD),
        binaries.archive(target, "gnu", RECORD, None, RECORD),
    ):
        assert read_artifact(path).record == Record.parse(RECORD)


def test_of_two_compilations_of_one_model_only_what_both_say_is_said():
    builds = [f"{RECORD} build={digit * 32} by=me" for digit in "12"]
    path = linked(X86_64, *builds)
    assert read_artifact(path).record == Record.parse(f"{RECORD} by=me")
    assert read_artifact(linked(X86_64, builds[0], builds[0])).record == Record.parse(builds[0])


def test_too_many_records_are_an_error():
    found = "\\0".join(f"{RECORD} n={number}" for number in range(limits.PAYLOADS + 1))
    with pytest.raises(RecordError, match="more records than the limit of 64"):
        read_artifact(library(MAC_ARM, found))


def test_the_slices_of_a_universal_library_have_to_agree():
    same = binaries.universal(library(MAC_ARM), library(MAC_X86))
    artifact = read_artifact(same)
    assert artifact.record == Record.parse(RECORD)
    assert artifact.platform == "Mach-O arm64, Mach-O x86_64"
    different = binaries.universal(library(MAC_ARM), library(MAC_X86, OTHER_RECORD))
    with pytest.raises(DuplicateRecordError, match=f"{MODEL}.*{OTHER_MODEL}"):
        read_artifact(different)
    bare = binaries.universal(library(MAC_ARM), library(MAC_X86, None))
    with pytest.raises(RecordError, match="that for Mach-O x86_64 carries no record"):
        read_artifact(bare)


# What stands behind the record


def test_the_names_of_parameters_are_read():
    names = ["w.0", "a b%", "größe", "x\ny", '"\\?"', "w.1"]
    said = payload(Record.parse(f"{RECORD} params={len(names)}"), names)
    assert b"%C3%B6" in said
    text = said.decode().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    for target in (X86_64, MAC_ARM):
        artifact = read_artifact(library(target, text))
        assert artifact.needs == tuple(names)
        assert artifact.record.model == MODEL


WRONG_PAYLOADS = {
    "says params=0, and 1 names": f"{RECORD}\\nw",
    "says params=2, and 1 names": f"{RECORD} params=2\\nw",
    "expected each once": f"{RECORD} params=2\\nw\\nw",
    "not encoded as": f"{RECORD} params=1\\n%c3%b6",
    "not encoded as they": f"{RECORD} params=1\\n%41",
    "not encoded": f"{RECORD} params=1\\n",
    "is not UTF-8": f"{RECORD} params=1\\n%FF",
    "is not a record": "text",
    "out of order": f"{RECORD} model=sha256:{MODEL}",
    "lowercase hexadecimal": RECORD[:-1],
    "is malformed": f"{RECORD} ",
}


@pytest.mark.parametrize("message", WRONG_PAYLOADS)
@pytest.mark.parametrize("target", [X86_64, MAC_ARM])
def test_a_malformed_payload_is_an_error_that_names_the_file(target, message):
    path = library(target, WRONG_PAYLOADS[message])
    with pytest.raises(RecordError, match=message) as caught:
        read_artifact(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("target", [X86_64, MAC_ARM, "x86_64-windows-gnu", "wasm32-wasi"])
def test_an_empty_place_for_the_record_is_an_error(target):
    with pytest.raises(RecordError, match="record"):
        read_artifact(library(target, ""))


def test_a_place_larger_than_the_limit_is_not_read():
    names = "\\n".join(["a" * 1000] * 1100)
    with pytest.raises(RecordError, match="more than the limit of 1048576"):
        read_artifact(library(X86_64, f"{RECORD}\\n{names}"))


# What TVM makes


@pytest.fixture(scope="module")
def objects():
    """The object files of the executable and of its kernels, as TVM makes them."""
    stock = build() / "stock"
    kernels = stock / "kernels"
    kernels.mkdir()
    with tarfile.open(stock / "lib.tar") as archive:
        archive.extractall(kernels)
    return sorted((stock / "objects").iterdir()), sorted(kernels.iterdir())


def link(path, *parts):
    subprocess.run(["gcc", "-shared", "-o", path, *parts], check=True)
    return path


def test_a_kernel_library_with_a_record_is_read(objects, tmp_path):
    note = object_file(X86_64, RECORD, name="note")
    for path in (
        link(tmp_path / "lib.so", *objects[1], note),
        tar_of(tmp_path / "lib.tar", {part.name: part for part in (*objects[1], note)}),
    ):
        artifact = read_artifact(path)
        assert (artifact.role, artifact.kind) == (Role.KERNELS, "TVM kernel library")
        assert artifact.record == Record.parse(RECORD)
        assert artifact.platform == "ELF x86_64"


def test_an_executable_and_the_kernels_around_it_have_to_agree(tmp_path):
    tagged = sorted((build() / "small/objects").iterdir())
    record = model_record(models()["small"])
    path = link(tmp_path / "same.so", *tagged, object_file(X86_64, str(record), name="note"))
    assert identity(read_artifact(path).record) == record
    note = object_file(X86_64, f"{record} build={'1' * 32}", name="note")
    # Of the two notes, and of the header and what is left of them.
    assert read_artifact(link(tmp_path / "built.so", *tagged, note)).record.model == record.model
    note = object_file(X86_64, OTHER_RECORD, name="note")
    for path in (
        link(tmp_path / "other.so", *tagged, note),
        tar_of(tmp_path / "other.tar", {part.name: part for part in (*tagged, note)}),
    ):
        with pytest.raises(DuplicateRecordError, match=f"{record.model}.*{OTHER_MODEL}"):
            read_artifact(path)


def test_kernels_with_a_record_say_nothing_of_an_executable_without(objects, tmp_path):
    path = link(tmp_path / "a.so", *objects[0], object_file(X86_64, RECORD, name="note"))
    artifact = read_artifact(path)
    assert artifact.kind == "Relay VM executable"
    assert artifact.record is None


def test_the_record_of_a_source_in_c_is_read(objects, tmp_path):
    said = payload(Record.parse(f"{RECORD} params=1"), ["größe"])
    source = tmp_path / "lib1.c"
    source.write_text(c_source(said, Engine.RELAY))
    files = {part.name: part for part in objects[1]}
    artifact = read_artifact(tar_of(tmp_path / "lib.tar", {**files, "lib1.c": source}))
    assert artifact.record == Record.parse(f"{RECORD} params=1")
    assert artifact.needs == ("größe",)
    assert artifact.kind == "TVM kernel library"
    # And what a compiler makes of it.
    path = link(tmp_path / "lib.so", *objects[1], "-fPIC", source)
    assert read_artifact(path).record == artifact.record
    other = object_file(X86_64, OTHER_RECORD, name="note")
    both = {**files, "lib1.c": source, "note.o": other}
    with pytest.raises(DuplicateRecordError, match=f"{OTHER_MODEL}.*{MODEL}"):
        read_artifact(tar_of(tmp_path / "both.tar", both))


@pytest.mark.parametrize("executor", ["graph", "aot"])
def test_the_factories_of_relay_are_executables(executor, tmp_path):
    x = relay.var("x", shape=(2,))
    mod = tvm.IRModule.from_expr(relay.Function([x], x + x))
    options = {"executor": relay.backend.Executor(executor)}
    factory = relay.build(mod, "llvm", **options)
    path = tmp_path / "lib.so"
    factory.export_library(str(path))
    name = {"graph": "Relay graph executor", "aot": "Relay AOT executor"}[executor]
    artifact = read_artifact(path)
    assert (artifact.role, artifact.kind, artifact.record) == (Role.EXECUTABLE, name, None)
    link(tmp_path / "tagged.so", *unpacked(factory, tmp_path), object_file(X86_64, name="note"))
    artifact = read_artifact(tmp_path / "tagged.so")
    assert (artifact.kind, artifact.record) == (name, Record.parse(RECORD))


def unpacked(factory, tmp_path):
    factory.export_library(str(tmp_path / "lib.tar"))
    with tarfile.open(tmp_path / "lib.tar") as archive:
        archive.extractall(tmp_path / "objects")
    return sorted((tmp_path / "objects").iterdir())
