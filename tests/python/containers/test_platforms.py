# SPDX-License-Identifier: Apache-2.0
"""What the readers find in libraries and object files of each platform."""

import contextlib
import io
import os
import subprocess

import binaries
import pytest
from binaries import BLOB, OTHER_RECORD, PLATFORMS, PREFIXED_BLOB, RECORD, library, object_file

from tvm_model_hash.containers.binary import Dependencies
from tvm_model_hash.containers.library import open_library
from tvm_model_hash.errors import UnknownArtifactError

OWNER, TYPE = b"tvm-model-hash", 1
SECTIONS = {
    "Mach-O": "__TEXT,__model_hash",
    "PE": ".tvmhash",
    "COFF": ".tvmhash",
    "wasm": "tvm_model_hash",
}
KINDS = {library: "shared library", object_file: "object file"}
X86_64 = "x86_64-linux-gnu"


@contextlib.contextmanager
def opened(path_or_data):
    data = path_or_data
    file = io.BytesIO(data) if isinstance(data, bytes) else open(data, "rb")  # noqa: SIM115
    with file:
        yield open_library(file, file.seek(0, os.SEEK_END), "a.lib")


def content(window):
    return window.read(0, window.size, "content")


def payloads(found):
    """The texts in the places of a record."""
    texts = []
    for binary in found.binaries:
        texts += [content(note) for note in binary.notes(OWNER, TYPE)]
        for section in binary.sections(SECTIONS.get(binary.format, "none")):
            texts += [text for text in content(section).split(b"\0") if text]
    return [text.decode("latin-1") for text in texts]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("target", PLATFORMS)
def test_platform_and_kind_are_told(target, make):
    expected = PLATFORMS[target].name
    if make is object_file:
        expected = expected.replace("PE", "COFF")
    with opened(make(target)) as found:
        assert (found.platform, found.container) == (expected, KINDS[make])
        assert len(found.slices) == len(list(found.binaries)) == 1
        assert found.others == ()


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("target", PLATFORMS)
def test_the_payload_is_found_whatever_the_symbols_are(target, make):
    with opened(make(target)) as found:
        assert payloads(found) == [RECORD]
        (binary,) = found.binaries
        assert binary.notes(b"tvm-model-has", TYPE) == binary.notes(OWNER, TYPE + 1) == []
        assert binary.sections(".tvmhas") == []
    with opened(make(target, None)) as found:
        assert payloads(found) == []


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("target", PLATFORMS)
def test_the_bytes_of_a_symbol_are_found(target, make):
    sized = PLATFORMS[target].sized or (make is object_file and target.startswith("wasm"))
    with opened(make(target)) as found:
        (binary,) = found.binaries
        names = ["__tvm_dev_mblob", "add", "tvm_dev_mblob", "elsewhere", "ad"]
        symbols = binary.symbols(names)
        assert set(symbols) == {"__tvm_dev_mblob", "add"}
        blob = symbols["__tvm_dev_mblob"]
        assert blob.name == "__tvm_dev_mblob"
        assert blob.sized == sized
        assert content(blob.data)[: len(BLOB)] == BLOB
        assert not sized or content(blob.data) == BLOB


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("target", PLATFORMS)
def test_symbols_are_found_by_the_end_of_their_names(target, make):
    with opened(make(target)) as found:
        (binary,) = found.binaries
        symbols = {symbol.name: symbol for symbol in binary.search(("__tvm_ffi__library_bin",))}
        assert set(symbols) == {"a___tvm_ffi__library_bin"}
        data = content(symbols["a___tvm_ffi__library_bin"].data)
        assert data[: len(PREFIXED_BLOB)] == PREFIXED_BLOB
        assert list(binary.search(("__tvm_ffi__library_bi",))) == []
        both = {symbol.name for symbol in binary.search(("mblob", "library_bin"))}
        assert both == {"__tvm_dev_mblob", "a___tvm_ffi__library_bin"}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("target", [X86_64, "x86_64-macos", "x86_64-windows-gnu"])
def test_a_symbol_without_bytes_is_defined_all_the_same(target, make):
    with opened(make(target)) as found:
        (binary,) = found.binaries
        assert binary.symbols(["__tvm_module_ctx_add"])["__tvm_module_ctx_add"].data is None


def test_a_wasm_library_that_is_loaded_beside_others_is_read():
    with opened(library("wasm32-wasi", RECORD, "-shared", "-fPIC")) as found:
        (binary,) = found.binaries
        (symbol,) = binary.search(("library_bin",))
        assert content(symbol.data)[: len(PREFIXED_BLOB)] == PREFIXED_BLOB
        assert payloads(found) == [RECORD]


@pytest.mark.parametrize("target", ["aarch64-macos", "x86-windows-gnu"])
def test_what_the_format_puts_before_a_name_is_not_of_the_name(target):
    symbols = (("_tvm_dev_mblob", BLOB), ("other", BLOB))  # in the file, with one _ more
    with opened(object_file(target, symbols=symbols)) as found:
        (binary,) = found.binaries
        assert list(binary.search(("__tvm_dev_mblob",))) == []
        assert [symbol.name for symbol in binary.search(("_tvm_dev_mblob",))] == ["_tvm_dev_mblob"]


# What other tools make of a library


def stripped(data, tmp_path, *options):
    (tmp_path / "a.so").write_bytes(data)
    subprocess.run(["strip", *options, tmp_path / "a.so"], check=True)
    return (tmp_path / "a.so").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("-Wl,-s",),
        ("-Wl,--gc-sections", "-ffunction-sections", "-fdata-sections"),
        ("-Wl,--hash-style=sysv",),
        ("-Wl,--hash-style=gnu",),
        ("-Wl,--hash-style=both",),
        ("-fvisibility=hidden",),
        ("-Wl,--build-id=sha1",),  # another note, in the same segment and in another section
        ("-O2", "-flto"),
        ("-Wl,-z,relro", "-Wl,-z,now"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("target", [X86_64, "s390x-linux-gnu", "arm-linux-gnueabihf"])
def test_options_of_the_linker_do_not_matter(target, options):
    with opened(library(target, RECORD, *options)) as found:
        assert payloads(found) == [RECORD]
        (binary,) = found.binaries
        symbol = binary.symbols(["__tvm_dev_mblob"])["__tvm_dev_mblob"]
        assert content(symbol.data) == BLOB


@pytest.mark.parametrize("style", ["sysv", "gnu"])
def test_an_elf_library_is_read_after_strip_and_without_section_headers(style, tmp_path):
    data = stripped(library(X86_64, RECORD, f"-Wl,--hash-style={style}").read_bytes(), tmp_path)
    for variant in (data, binaries.without_sections(data)):
        with opened(variant) as found:
            assert payloads(found) == [RECORD]
            (binary,) = found.binaries
            symbol = binary.symbols(["__tvm_dev_mblob"])["__tvm_dev_mblob"]
            assert content(symbol.data) == BLOB
            assert [s.name for s in binary.search(("library_bin",))] == ["a___tvm_ffi__library_bin"]
            assert binary.symbols(["elsewhere", "nothing"]) == {}


def test_a_stripped_elf_object_keeps_its_note(tmp_path):
    with opened(stripped(object_file(X86_64).read_bytes(), tmp_path)) as found:
        assert payloads(found) == [RECORD]
        (binary,) = found.binaries
        assert binary.symbols(["__tvm_dev_mblob"]) == {}


@pytest.mark.parametrize("target", [X86_64, "aarch64-macos", "x86_64-windows-gnu"])
def test_programs_are_told_from_libraries(target, tmp_path):
    main, program = tmp_path / "main.c", tmp_path / "program"
    main.write_text(
        "int main(void) { return 0; } void __main(void) {}"
        "int mainCRTStartup(void) { return 0; } int wWinMainCRTStartup(void) { return 0; }"
    )
    entry = ("-Wl,-e,main",) if target == X86_64 else ()
    command = ("cc", "-target", target, "-nostdlib", *entry, main, object_file(target))
    binaries.zig(*command, "-o", program)
    with opened(program) as found:
        assert found.container == "program"
        assert payloads(found) == [RECORD]


@pytest.mark.parametrize("target", [X86_64, "x86_64-macos", "x86_64-windows-gnu", "wasm32-wasi"])
def test_all_records_of_a_library_are_found(target, tmp_path):
    both = (object_file(target), object_file(target, OTHER_RECORD, name="other"))
    result = tmp_path / "two.lib"
    shared = () if target.startswith("wasm") else ("-shared",)
    options = ("-Wl,--no-entry",) if target.startswith("wasm") else ()
    binaries.zig("cc", "-target", target, *shared, "-nostdlib", *options, *both, "-o", result)
    with opened(result) as found:
        assert sorted(payloads(found)) == sorted([RECORD, OTHER_RECORD])


# What a library asks for


def linked(target, tmp_path, *options):
    dependency = tmp_path / ("dependency.dll" if "windows" in target else "libdependency.so")
    source = tmp_path / "dependency.c"
    text = "int elsewhere(int x) { return x; }"
    if "windows" in target:
        text = f"__declspec(dllexport) {text} int DllMainCRTStartup(void) {{ return 1; }}"
    source.write_text(text)
    named = {
        "linux": ["-Wl,-soname,libdependency.so.1"],
        "macos": ["-install_name", "@rpath/lib.1"],
    }
    name = next((value for key, value in named.items() if key in target), [])
    binaries.zig("cc", "-target", target, "-shared", "-nostdlib", *name, source, "-o", dependency)
    if "windows" in target:
        dependency = tmp_path / "dependency.lib"
        assert dependency.exists()
    return library(target, RECORD, "-DCALLS", str(dependency), *options)


def test_the_libraries_that_elf_asks_for_are_named(tmp_path):
    path = linked(X86_64, tmp_path, "-Wl,-rpath,$ORIGIN/a:/b", "-Wl,--enable-new-dtags")
    with opened(path) as found:
        assert found.dependencies == Dependencies(("libdependency.so.1",), ("$ORIGIN/a", "/b"))
    with opened(linked(X86_64, tmp_path, "-Wl,-rpath,/old", "-Wl,--disable-new-dtags")) as found:
        assert found.dependencies == Dependencies(("libdependency.so.1",), ("/old",))
    with opened(library(X86_64)) as found:
        assert found.dependencies == Dependencies()


def test_the_libraries_that_mach_o_asks_for_are_named(tmp_path):
    path = linked("aarch64-macos", tmp_path, "-Wl,-rpath,@loader_path/a")
    with opened(path) as found:
        names, paths = found.dependencies
        assert "@rpath/lib.1" in names
        assert "@loader_path/a" in paths


def test_the_libraries_that_pe_asks_for_are_named(tmp_path):
    with opened(linked("x86_64-windows-gnu", tmp_path)) as found:
        assert found.dependencies == Dependencies(("dependency.dll",), ())


# What is not a library


def test_files_of_other_formats_are_not_libraries():
    others = [b"", b"text", b"\x7fEL", b"d\x86" + bytes(100), b"\xca\xfe\xba\xbe\0\0\0\x41"]
    for data in (*others, b"PK\3\4".ljust(600, b"\0")):
        with opened(data) as found:
            assert found is None


def test_elf_files_that_are_not_libraries_are_named():
    data = bytearray(library(X86_64).read_bytes())
    for number, message in {4: "core dump", 0: "of the type 0", 0xFE00: "type 65024"}.items():
        data[16:18] = number.to_bytes(2, "little")
        with pytest.raises(UnknownArtifactError, match=message), opened(bytes(data)):
            pass
