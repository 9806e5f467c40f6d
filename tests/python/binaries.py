# SPDX-License-Identifier: Apache-2.0
"""Libraries and object files of many platforms, for the tests of what reads them.

They are made by the C compiler and the linkers of the wheel ziglang, from a source with what the
readers look for: a record in its note or section, symbols with bytes and without.
"""

import functools
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import NamedTuple

MODEL = "0123456789abcdef" * 4
OTHER_MODEL = "fedcba9876543210" * 4
RECORD = f"model-hash/1 model=sha256:{MODEL} graph=sha256:{'a' * 64} weights=sha256:{'b' * 64}"
OTHER_RECORD = f"model-hash/1 model=sha256:{OTHER_MODEL}"

# Two symbols with bytes: an empty tree of modules, as TVM 0.19 and as TVM 0.27 write it.
BLOB = struct.pack("<QQ", 8, 0)
PREFIXED_BLOB = struct.pack("<QQQQB", 25, 1, 0, 0, 0xFF)
SYMBOLS = (("__tvm_dev_mblob", BLOB), ("a___tvm_ffi__library_bin", PREFIXED_BLOB))

# NAME is a file's own function; before it, PAYLOAD and SYMBOLS may be defined.
SOURCE = """
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#define PLACE __attribute__((used, section(".tvmhash")))
#ifdef SYMBOLS
int __stdcall DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }
#endif
#elif defined(__APPLE__)
#define EXPORT
#define PLACE __attribute__((used, section("__TEXT,__model_hash")))
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#ifdef PAYLOAD
#if defined(__ELF__)
static const struct {
  unsigned owner_size, size, type;
  char owner[16];
  char payload[(sizeof(PAYLOAD) + 2) / 4 * 4];
} record_note __attribute__((used, section(".note.tvm.model_hash"), aligned(4))) = {
    15, sizeof(PAYLOAD) - 1, 1, "tvm-model-hash", PAYLOAD};
#elif defined(__wasm__)
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)
__asm__(".section .custom_section.tvm_model_hash,\\"\\",@\\n.asciz " QUOTED(PAYLOAD) "\\n");
#else
static PLACE const char record[] = PAYLOAD;
#endif
#endif

#ifdef SYMBOLS
EXPORT const unsigned char FIRST_SYMBOL[] = {FIRST_BYTES};
EXPORT const unsigned char SECOND_SYMBOL[] = {SECOND_BYTES};
#endif
extern int elsewhere(int x);
EXPORT void *__tvm_module_ctx_NAME = 0;
EXPORT int NAME(int x) { return x + 1; }
#ifdef CALLS
EXPORT int caller(int x) { return elsewhere(x); }
#endif
"""


class Platform(NamedTuple):
    """A platform that libraries are made for."""

    name: str  # as the readers give it
    target: str  # as zig wants it
    sized: bool = True  # whether its symbols of data have sizes, in libraries and in objects


PLATFORMS = {
    platform.target: platform
    for platform in (
        Platform("ELF x86_64", "x86_64-linux-gnu"),
        Platform("ELF aarch64", "aarch64-linux-gnu"),
        Platform("ELF arm", "arm-linux-gnueabihf"),
        Platform("ELF i386", "x86-linux-gnu"),
        Platform("ELF riscv64", "riscv64-linux-gnu"),
        Platform("ELF s390x", "s390x-linux-gnu"),
        Platform("ELF ppc64", "powerpc64-linux-musl"),
        Platform("ELF mips", "mips-linux-musl"),
        Platform("Mach-O arm64", "aarch64-macos", sized=False),
        Platform("Mach-O x86_64", "x86_64-macos", sized=False),
        Platform("PE x86_64", "x86_64-windows-gnu", sized=False),
        Platform("PE arm64", "aarch64-windows-gnu", sized=False),
        Platform("PE i686", "x86-windows-gnu", sized=False),
        Platform("wasm32", "wasm32-wasi", sized=False),
    )
}


def zig(*arguments):
    """Run a tool of zig's."""
    cache = os.path.join(_directory(), "cache")
    result = subprocess.run(
        [sys.executable, "-m", "ziglang", *map(str, arguments)],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, result.stdout


@functools.cache
def library(target, payload=RECORD, *options, name="add", symbols=SYMBOLS):
    """Make a shared library."""
    platform = PLATFORMS[target]
    shared = () if platform.name == "wasm32" else ("-shared", "-fPIC")
    exports = [f"-Wl,--export={symbol}" for symbol in (name, *dict(symbols))]
    options += ("-Wl,--no-entry", *exports) if platform.name == "wasm32" else ()
    link = (*shared, "-nostdlib", *options)
    return _compile(target, payload, name, symbols, options=link, suffix=".lib")


@functools.cache
def object_file(target, payload=RECORD, *options, name="add", symbols=SYMBOLS):
    """Make an object file."""
    return _compile(target, payload, name, symbols, options=("-c", "-fPIC", *options), suffix=".o")


@functools.cache
def archive(target, format_, *payloads):
    """Make a static library of objects with one payload each, or without (None)."""
    objects = []
    for number, payload in enumerate(payloads):
        path = object_file(
            target, payload, name=f"function_of_object_{number}" if number else "add"
        )
        objects.append(new_path(f"a_file_with_a_long_name_{number}.o"))
        objects[-1].write_bytes(path.read_bytes())
    path = new_path("library.a")
    zig("ar", f"--format={format_}", "rcs", path, *objects)
    return path


def universal(*paths, wide=False):
    """Put files for several machines into one, as lipo does."""
    place, headers, contents = 4096, [], []
    for path in paths:
        data = pathlib.Path(path).read_bytes()
        order = "<"
        cpu = struct.unpack(order + "II", data[4:12])
        layout = ">IIQQII" if wide else ">IIIII"
        headers.append(struct.pack(layout, *cpu, place, len(data), 12, *((0,) if wide else ())))
        contents.append(data.ljust(-(-len(data) // 4096) * 4096, b"\0"))
        place += len(contents[-1])
    contents[-1] = contents[-1][: len(data)]
    magic = 0xCAFEBABF if wide else 0xCAFEBABE
    head = struct.pack(">II", magic, len(paths)) + b"".join(headers)
    result = new_path("universal.lib")
    result.write_bytes(head.ljust(4096, b"\0") + b"".join(contents))
    return result


def without_sections(data):
    """What remains of a 64-bit little-endian ELF file when its section headers are removed."""
    segments, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    ends = [64 + 56 * count]
    for number in range(count):
        offset, _, _, size = struct.unpack_from("<4Q", data, segments + 56 * number + 8)
        ends.append(offset + size)
    data = bytearray(data[: max(ends)])
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    return bytes(data)


def _compile(target, payload, name, symbols, *, options, suffix):
    source = new_path("source.c")
    text = SOURCE.replace("NAME", name)
    if payload is not None:
        text = f'#define PAYLOAD "{payload}"\n{text}'
    if name == "add":
        text = f"#define SYMBOLS\n{text}"
    for number, (symbol, data) in zip(("FIRST", "SECOND"), symbols, strict=True):
        text = text.replace(f"{number}_SYMBOL", symbol)
        text = text.replace(f"{number}_BYTES", ", ".join(map(str, data)))
    source.write_text(text)
    path = new_path(name + suffix)
    zig("cc", "-target", target, "-O1", "-fno-sanitize=all", *options, source, "-o", path)
    return path


@functools.cache
def _directory():
    # A module's global lives as long as the process; the directory goes with it.
    global _temporary
    _temporary = tempfile.TemporaryDirectory()
    return _temporary.name


def new_path(name):
    """A path in a new directory, which goes with the process."""
    return pathlib.Path(tempfile.mkdtemp(dir=_directory()), name)
