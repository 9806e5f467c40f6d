# SPDX-License-Identifier: Apache-2.0
"""Writes the corpus: real artifacts, and beside them what long runs have found that leads further.

    python tests/fuzz/seeds.py              from real artifacts, and from what run.py left in build/

Binaries are made by the linkers of the wheel ziglang and by TVM, parameters by their own tools.
"""

import paths  # which says where all else is

# isort: split

import io
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from unittest import mock

import binaries
import corpus
import numpy as np
import parameter_files
import targets
from artifacts import compile_model, dense
from containers.test_archives import tar_of
from containers.test_damage import LONG, PAX, before_a_file

import tvm_model_hash
from tvm_model_hash import ModelHashError, seal
from tvm_model_hash.artifact.record_module import Engine, c_source, payload
from tvm_model_hash.checking.hash_file import write_hash_file
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.record import Record

#: The most that what was found may have of a target, as it is committed.
MAX_BYTES = 7_000
MAX_INPUT_BYTES = 24_000
ROOM = 1024  # for the modules in a library

X86_64, MIPS, I386 = "x86_64-linux-gnu", "mips-linux-musl", "x86-linux-gnu"
MAC_ARM, MAC_X86 = "aarch64-macos", "x86_64-macos"
WINDOWS, WINDOWS_32 = "x86_64-windows-gnu", "x86-windows-gnu"
WASM = "wasm32-wasi"


def content(path):
    return pathlib.Path(path).read_bytes()


def binary_seeds():
    library, object_file, archive = (
        lambda *a, **k: content(binaries.library(*a, **k)),
        lambda *a, **k: content(binaries.object_file(*a, **k)),
        lambda *a, **k: content(binaries.archive(*a, **k)),
    )
    record = binaries.RECORD
    tar_files = {"lib0.o": object_file(X86_64, None), "devc.c": c_text(), "a" * 120: b"text"}
    package = {"mod.json": b"{}", "./d/params": b"parameters", "lib.so": library(I386)}
    return {
        "elf": [
            *(library(target) for target in (X86_64, MIPS, I386)),
            library("s390x-linux-gnu", record, "-Wl,--hash-style=sysv"),
            binaries.without_sections(library(X86_64)),
            library(X86_64, None, "-Wl,-rpath,$ORIGIN"),
            *(object_file(target) for target in (X86_64, MIPS, I386)),
        ],
        "mach_o": [
            library(MAC_X86),
            object_file(MAC_ARM),
            object_file(MAC_X86),
            content(
                binaries.universal(
                    binaries.object_file(MAC_ARM), binaries.object_file(MAC_X86), wide=True
                )
            ),
        ],
        "pe": [
            library(WINDOWS),
            library(WINDOWS_32),
            library("aarch64-windows-gnu"),
            object_file(WINDOWS, None, "-g0"),
        ],
        "wasm": [library(WASM), object_file(WASM)],
        "ar": [
            archive(X86_64, "gnu", record, None),
            archive(MAC_X86, "darwin", record, None),
            archive(WINDOWS, "gnu", None),
        ],
        "tar_archive": [
            tar_of(tar_files),
            tar_of(tar_files, "w", tarfile.PAX_FORMAT),
            tar_of(package, "w", tarfile.USTAR_FORMAT),
            tar_of(package, "w:gz"),
            before_a_file(LONG),
            before_a_file(PAX),
            before_a_file((tarfile.XGLTYPE, b"9 a=text\n"), PAX),
            directory_header() + before_a_file(),
        ],
        "gzip": [
            b"\0" * 8 + b"\1\6" + b"\0" + tar_of({"lib0.o": object_file(I386)}),
            b"\0" * 8 + b"\0" + tar_of({"lib0.o": object_file(I386)}, "w:gz"),
        ],
    }


def directory_header():
    header = tarfile.TarInfo("d")
    header.type = tarfile.DIRTYPE
    return header.tobuf(tarfile.GNU_FORMAT)


def c_text():
    record = Record.parse(binaries.RECORD).with_fields("1" * 16, 2)
    return c_source(payload(record, ["w", "größe"]), Engine.RELAY).encode()


def text_seeds():
    record = Record.parse(binaries.RECORD).with_fields("1" * 16, 2)
    listing = "\n".join(
        f"VM VirtualDevice[{number}]: device type 1, id 0 and mem_scope {scope}"
        for number, scope in enumerate(("", "global", binaries.RECORD))
    )
    return {
        "payload": [payload(record, ["w", "größe"]), c_text()],
        "devices": [listing.encode()],
    }


def parameter_seeds(directory):
    arrays = {
        "w": np.arange(8, dtype="float32").reshape(2, 4),
        "größe": np.arange(3, dtype="int8"),
        "scalar": np.array(7, "int64"),
    }
    parameter_files.write_parameters(directory, arrays)
    names = parameter_files.PARAMETERS
    cache = content(directory / names["tensor cache"])
    return {
        "tensor_list": [content(directory / names["tvm"])],
        "npz": [
            *(content(directory / names[name]) for name in ("npz", "compressed npz")),
            large_npz(content(directory / names["npz"])),
        ],
        "safetensors_file": [
            content(directory / names[name])
            for name in ("safetensors", "safetensors with metadata")
        ],
        "tensor_cache": [cache],
        "graph_json": [parameter_files.factory().get_graph_json().encode()],
    }


def large_npz(data):
    """The same arrays behind another file, as zipfile writes sizes and numbers above 4 GiB."""
    written = io.BytesIO()
    with (
        mock.patch.multiple(zipfile, ZIP64_LIMIT=100, ZIP_FILECOUNT_LIMIT=2),
        zipfile.ZipFile(io.BytesIO(data)) as arrays,
        zipfile.ZipFile(written, "w") as archive,
    ):
        archive.writestr("README", "text")
        for name in arrays.namelist():
            archive.writestr(name, arrays.read(name))
    return written.getvalue()


def deployed_model():
    return dense(np.arange(64).reshape(16, 4))


def deployment(directory):
    """A real deployment, small: code, kernels, a constant in a file, and its seal."""
    model = deployed_model()
    executable = compile_model(model, get_hash=True)
    executable.move_late_bound_consts(str(directory / "consts"), byte_limit=64)
    code, library = executable.save()
    (directory / "code.ro").write_bytes(code)
    library.export_library(str(directory / "lib.so"))
    subprocess.run(["strip", str(directory / "lib.so")], check=True)
    write_hash_file(directory, model_record(model).model)
    seal(directory)
    return {path.name: content(path) for path in sorted(directory.iterdir())}


def libraries():
    """Libraries with room behind a symbol of TVM's: their bytes, where the room is, its size."""
    room = bytes(range(1, 9)) + bytes(ROOM - 8)
    found = []
    for name in ("__tvm_dev_mblob", "__tvm_ffi__library_bin"):
        symbols = ((name, room), ("unused", b"1"))
        data = content(binaries.library(X86_64, None, symbols=symbols))
        found.append([data, data.index(room), len(room)])
    return found


def tree(number, code):
    """The modules of a library with an executable, as TVM 0.19 writes them, and as TVM 0.27."""
    key = b"VMExecutable"
    module = struct.pack("<Q", len(key)) + key + struct.pack("<Q", len(code)) + code
    beginning = struct.pack("<5Q", 2, 0, 0, 0, 0)[: 8 * 4] if number else struct.pack("<Q", 1)
    return beginning + module


def main():
    with tempfile.TemporaryDirectory() as temporary:
        parameters, deployed = (pathlib.Path(temporary, name) for name in ("p", "d"))
        parameters.mkdir()
        deployed.mkdir()
        real = {**binary_seeds(), **text_seeds(), **parameter_seeds(parameters)}
        corpus.save("template_deployment", deployment(deployed))
        corpus.save("template_libraries", libraries())
        code = content(deployed / "code.ro")
        consts = content(deployed / "consts")
        real["code_ro"] = [code]
        real["modules"] = [bytes([number]) + tree(number, code) for number in (0, 1)]
        real["directory"] = [
            b"".join(
                bytes([number]) + struct.pack("<H", len(data)) + data
                for number, data in ((0, code), (2, consts), (5, package))
            )
            for package in (tar_of({"m/code.ro": code}), tar_of({"a": tar_of({"b": code})}))
        ]
        real["expected"] = [
            deployed_model().SerializeToString(),
            deployed_model().SerializeToString() + b"\x08\x08",  # the same in another encoding
            deployed_model().SerializeToString() + b"\x12\x01x",  # an equivalent one
            content(deployed / "hash.txt"),
        ]
    # Changes of what is real: which ones, is for the fuzzer to find.
    for name in ("deployment_sealed", "deployment_unsealed", "external_data", "model_structure"):
        real[name] = [bytes(range(number, number + 24)) for number in (0, 100, 200)]
    for name in targets.TARGETS:
        write(name, real.get(name, []))


def write(name, real):
    """Write what is real of a target's inputs, and of the rest what leads to lines of its own."""
    chosen = list(dict.fromkeys(real))
    reached = Lines(targets.TARGETS[name])
    for data in [*chosen, *corpus.vectors(name)]:
        reached.by(data)
    room = MAX_BYTES
    kept = paths.FOUND / name / "corpus"
    found = {*corpus.committed(name), *map(content, kept.iterdir() if kept.is_dir() else ())}
    # Those that can be read easily first.
    for data in sorted(found - {*chosen}, key=lambda data: (len(corpus.encode(data)), data)):
        size = len(corpus.encode(data))
        if size <= room and reached.by(data):
            chosen.append(data)
            room -= size
    corpus.save(name, chosen)
    print(f"{name}: {len(chosen)} inputs, {len(reached.lines)} lines", flush=True)


class Lines:
    """The lines of the package that inputs lead to, and from where to where."""

    def __init__(self, function):
        self._function = function
        self._package = os.path.dirname(tvm_model_hash.__file__)
        self.lines = set()

    def by(self, data):
        """Whether an input leads to another one."""
        before = len(self.lines)
        sys.settrace(self._enter)
        try:
            self._function(data)
        except ModelHashError:
            pass
        finally:
            sys.settrace(None)
        return len(self.lines) > before

    def _enter(self, frame, *_):
        if not frame.f_code.co_filename.startswith(self._package):
            return None
        last = frame.f_lineno

        def step(frame, *_):
            nonlocal last
            self.lines.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step


if __name__ == "__main__":
    main()
