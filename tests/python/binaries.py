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

BLOB = bytes.fromhex("0800000000000000 0000000000000000")
PREFIXED_BLOB = bytes.fromhex("0900000000000000 0000000000000000 ff")

# To be compiled with -DNAME=... for a file's own function, and maybe -DPAYLOAD="...", -DBLOBS.
SOURCE = """
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#define PLACE __attribute__((used, section(".tvmhash")))
#ifdef BLOBS
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
} note __attribute__((used, section(".note.tvm.model_hash"), aligned(4))) = {
    15, sizeof(PAYLOAD) - 1, 1, "tvm-model-hash", PAYLOAD};
#elif defined(__wasm__)
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)
__asm__(".section .custom_section.tvm_model_hash,\\"\\",@\\n.asciz " QUOTED(PAYLOAD) "\\n");
#else
static PLACE const char record[] = PAYLOAD;
#endif
#endif

#ifdef BLOBS
EXPORT const unsigned char __tvm_dev_mblob[] = {8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
EXPORT const unsigned char a___tvm_ffi__library_bin[] = {9, 0, 0, 0, 0, 0, 0, 0, 0,
                                                         0, 0, 0, 0, 0, 0, 0, 0xff};
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
    options: tuple[str, ...] = ()


_WASM = (
    "-Wl,--no-entry",
    "-Wl,--export=__tvm_dev_mblob",
    "-Wl,--export=a___tvm_ffi__library_bin",
    "-Wl,--export=add",
)
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
        Platform("wasm32", "wasm32-wasi", sized=False, options=_WASM),
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
def library(target, payload=RECORD, *options, name="add"):
    """Make a shared library."""
    platform = PLATFORMS[target]
    shared = () if platform.name == "wasm32" else ("-shared", "-fPIC")
    link = (*shared, "-nostdlib", *platform.options, *options)
    return _compile(target, payload, name, link, ".lib")


@functools.cache
def object_file(target, payload=RECORD, *options, name="add"):
    """Make an object file."""
    return _compile(target, payload, name, ("-c", "-fPIC", *options), ".o")


@functools.cache
def archive(target, format_, *payloads):
    """Make a static library of objects with one payload each, or without (None)."""
    objects = []
    for number, payload in enumerate(payloads):
        path = object_file(
            target, payload, name=f"function_of_object_{number}" if number else "add"
        )
        objects.append(_new(f"a_file_with_a_long_name_{number}.o"))
        objects[-1].write_bytes(path.read_bytes())
    path = _new("library.a")
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
    result = _new("universal.lib")
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


def _compile(target, payload, name, options, suffix):
    source = _new("source.c")
    source.write_text(SOURCE.replace("NAME", name))
    text = [] if payload is None else [f'-DPAYLOAD="{payload}"']
    blobs = ["-DBLOBS"] if name == "add" else []
    path = _new(name + suffix)
    zig("cc", "-target", target, "-O1", "-fno-sanitize=all", *text, *blobs, *options, source,
        "-o", path)  # fmt: skip
    return path


@functools.cache
def _directory():
    # A module's global lives as long as the process; the directory goes with it.
    global _temporary
    _temporary = tempfile.TemporaryDirectory()
    return _temporary.name


def _new(name):
    return pathlib.Path(tempfile.mkdtemp(dir=_directory()), name)
