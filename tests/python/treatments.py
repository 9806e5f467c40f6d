# SPDX-License-Identifier: Apache-2.0
"""What builds do to libraries: each row of the table in docs/platforms.md, by its name there."""

import re
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from conftest import ROOT
from cross import PLATFORMS, linker, llvm, run

from tvm_model_hash import ModelHashError, read_record

# Names that either TVM looks up, or that its kernels have; those of this package are not Relay's.
VERSION_SCRIPT = "{ global: __tvm*; __TVM*; vm_mod_*; local: *; };"


class Row(NamedTuple):
    """A row of the table: ``yes``, ``no``, or ``-`` where it can't be tried."""

    file: str  # whether the record is read from the file
    relay: str  # whether stock TVM has it answer
    relax: str


class Export(NamedTuple):
    """One network's kernels, to be exported again and again."""

    engine: str  # "relay" or "relax"
    records: dict  # by platform; "c" is for kernels in C for this machine
    to: Callable  # (platform, path, **options of export_library)


def _linked(*options, platform="linux-x86_64"):
    """Linked with options of the linker's."""

    def treat(export, path):
        export.to(platform, path, fcompile=linker(platform, *options))

    return platform, treat


def _compiled(*options):
    """Compiled from C, with options of the compiler's."""
    return "c", lambda export, path: export.to("c", path, options=list(options))


def _changed(*command, platform="linux-x86_64"):
    """Linked, and then changed in its place."""

    def treat(export, path):
        export.to(platform, path, fcompile=linker(platform))
        tool, *arguments = command
        (llvm if tool.startswith("llvm-") else run)(tool, *arguments, path)

    return platform, treat


def _version_script(export, path):
    script = path.with_suffix(".map")
    script.write_text(VERSION_SCRIPT)
    export.to("linux-x86_64", path, fcompile=linker("linux-x86_64", f"--version-script={script}"))


def _from_archive(*options):
    """Linked from a static library."""

    def treat(export, path):
        objects = _objects(export, path)
        run("ar", "rcs", path.with_suffix(".a"), *objects)
        run(
            "gcc", "-shared", *options, path.with_suffix(".a"), "-Wl,--no-whole-archive", "-o", path
        )

    return "linux-x86_64", treat


def _in_a_program(platform, *options):
    """Linked into a program that asks for nothing of it."""

    def treat(export, path):
        source = path.with_name("main.c")
        source.write_text("int main(void) { return 0; }\n")
        if PLATFORMS[platform].zig:
            link = linker(platform, *options, source, shared=())
            export.to(platform, path, fcompile=link)
        else:
            later = "-Wl,--unresolved-symbols=ignore-all"
            run("gcc", later, *options, source, *_objects(export, path), "-o", path)

    return platform, treat


def _combined(export, path):
    run("ld", "-r", "-o", path.with_suffix(".o"), *_objects(export, path))
    run("gcc", "-shared", path.with_suffix(".o"), "-o", path)


def _objects(export, path):
    export.to("linux-x86_64", path.with_suffix(".tar"))
    with tarfile.open(path.with_suffix(".tar")) as archive:
        archive.extractall(path.with_suffix(".d"))
    return sorted(path.with_suffix(".d").iterdir())


_NAMED = [f"-Wl,-u,{name}" for name in ("__tvm_dev_mblob", "__tvm_ffi__library_bin")]

TREATMENTS = {
    "ELF: `strip`": _changed("strip"),
    "ELF: `llvm-strip`": _changed("llvm-strip"),
    "ELF: the linker's `-s`": _linked("-s"),
    "ELF: `--gc-sections`": _linked("--gc-sections"),
    "ELF: `--gc-sections` in a program": _in_a_program("linux-x86_64", "-Wl,--gc-sections"),
    "ELF: `--gc-sections` and `-s` in a program": _in_a_program(
        "linux-x86_64", "-Wl,--gc-sections", "-Wl,-s"
    ),
    "ELF: `-flto`, kernels in C": _compiled("-O2", "-flto"),
    "ELF: `-fvisibility=hidden`, kernels in C": _compiled("-fvisibility=hidden"),
    "ELF: a version script that keeps TVM's names only": ("linux-x86_64", _version_script),
    "ELF: no section headers": _changed("llvm-objcopy", "--strip-sections"),
    "ELF: one object made of all, `ld -r`": ("linux-x86_64", _combined),
    "ELF: a static library with `--whole-archive`": _from_archive("-Wl,--whole-archive"),
    "ELF: a static library without it": _from_archive(*_NAMED),
    "ELF: `objcopy --remove-section .note.tvm.model_hash`": _changed(
        "objcopy", "--remove-section", ".note.tvm.model_hash"
    ),
    "Mach-O: `llvm-strip -x`": _changed("llvm-strip", "-x", platform="macos-arm64"),
    "Mach-O: `-dead_strip`": _linked("-Wl,-dead_strip", platform="macos-arm64"),
    "Mach-O: `-dead_strip` in a program": _in_a_program("macos-arm64", "-Wl,-dead_strip"),
    "PE: `llvm-strip`": _changed("llvm-strip", platform="windows-x86_64"),
    "PE: `/opt:ref`, `/opt:icf`": _linked("/opt:ref", "/opt:icf", platform="windows-x86_64"),
    "wasm: `llvm-strip`": _changed("llvm-strip", platform="wasm32"),
    "wasm: the linker's `--strip-debug`": _linked("--strip-debug", platform="wasm32"),
    "wasm: the linker's `--strip-all`": _linked("--strip-all", platform="wasm32"),
    "wasm: `llvm-objcopy --remove-section tvm_model_hash`": _changed(
        "llvm-objcopy", "--remove-section", "tvm_model_hash", platform="wasm32"
    ),
    "wasm: `--gc-sections`": _linked("--gc-sections", platform="wasm32"),
}


def table():
    """The rows of the table in the docs, by their names."""
    text = (ROOT / "docs/platforms.md").read_text()
    cells = re.findall(r"^\| ([^|]+: [^|]+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    return {name: Row(*row) for name, *row in cells}


def recorded(path):
    """The record that is read from a file; None if none is."""
    try:
        return read_record(path)
    except ModelHashError:
        return None
