# SPDX-License-Identifier: Apache-2.0
import contextlib
import gzip
import importlib.util
import io
import json
import os
import pathlib
import random
import shutil
import stat
import struct
import tarfile
import tracemalloc

import make_artifacts
import numpy as np
import onnx
import pytest
import tvm
from artifacts import BIG, build, compile_model, dense, models, run, run_python, sha256, write_all
from conftest import identity
from tvm.runtime.vm_hash import set_record

from tvm_model_hash.artifact import record_io
from tvm_model_hash.artifact.record_io import Carrier, Patch, RelayVM
from tvm_model_hash.artifact.vm_header import parse_header
from tvm_model_hash.errors import (
    ArtifactError,
    DuplicateRecordError,
    FixedRecordError,
    ModelHashError,
    OutputError,
    RecordError,
    UnknownArtifactError,
)
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.record import Record

RECORD = Record("0123456789abcdef" * 4, "a" * 64, "b" * 64)
EXECUTABLES = {
    "code.ro": "file",
    "late.ro": "file",
    "single.so": "shared library",
    "stripped.so": "shared library",
    "sysv.so": "shared library",
    "single.tar": "tar",
    "plain.tar": "tar",
    "objects/devc.o": "object file",
}
LIBRARIES = {"lib.so": "shared library", "lib.tar": "tar", "objects/lib0.o": "object file"}


@pytest.fixture(scope="session")
def built():
    return build()


@pytest.fixture
def code(built, tmp_path):
    return pathlib.Path(shutil.copy(built / "small/code.ro", tmp_path))


# Reading


@pytest.mark.parametrize("name", EXECUTABLES)
def test_an_executable_is_read(built, name):
    path = built / "small" / name
    artifact = record_io.read_artifact(path)
    assert artifact.record == record_io.read_record(path)
    assert identity(artifact.record) == model_record(models()["small"])
    assert artifact.path == str(path)
    assert artifact.kind == "Relay VM executable"
    assert artifact.container == EXECUTABLES[name]
    assert artifact.platform == (None if name.endswith(".ro") else "ELF x86_64")
    assert artifact.needs_kernels == name.endswith(".ro")
    assert artifact.size == path.stat().st_size
    assert artifact.tvm_version == tvm.__version__ == "0.19.0"
    stock = record_io.read_artifact(built / "stock" / name)
    assert stock.record is None
    assert artifact.devices == stock.devices
    assert [device.device_type for device in stock.devices] == [tvm.cpu().device_type]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_kernel_library_is_read(built, name):
    artifact = record_io.read_artifact(built / "stock" / name)
    assert artifact.kind == "TVM kernel library"
    assert artifact.role is record_io.Role.KERNELS
    assert artifact.container == LIBRARIES[name]
    assert artifact.platform == "ELF x86_64"
    assert artifact.record is None
    assert record_io.read_interface(built / "stock" / name) is None


def test_reading_imports_no_tvm(built):
    paths = [built / "small" / name for name in (*EXECUTABLES, *LIBRARIES)]
    code = """
import json
import tvm_model_hash
paths = sys.argv[1:]
records = [tvm_model_hash.read_record(path) for path in paths]
print(json.dumps([[record and record.model for record in records],
                  [tvm_model_hash.read_interface(path) for path in paths]]))
"""
    records, interfaces = json.loads(run_python(code, *paths))
    model = sha256(models()["small"])
    # Of the objects in an archive, one carries it.
    assert dict(zip([*EXECUTABLES, *LIBRARIES], records, strict=True)) == {
        name: None if name == "objects/lib0.o" else model for name in (*EXECUTABLES, *LIBRARIES)
    }
    assert [found and found[0] for found in interfaces] == [["x", "b"]] * len(EXECUTABLES) + [
        None
    ] * len(LIBRARIES)


def test_the_name_does_not_matter(built, tmp_path):
    for name, other in {"code.ro": "lib.so", "single.so": "a.tar", "single.tar": "x.ro"}.items():
        shutil.copy(built / "small" / name, tmp_path / other)
        assert record_io.read_record(tmp_path / other).model == sha256(models()["small"])


class _Counting(io.FileIO):
    count = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        _Counting.count += count
        return count


@pytest.mark.parametrize("read", [record_io.read_artifact, record_io.read_interface])
@pytest.mark.parametrize("name", ["code.ro", "single.so", "stripped.so", "lib.so"])
def test_the_size_of_constants_does_not_matter(built, monkeypatch, read, name):
    monkeypatch.setattr(
        record_io, "open_regular", lambda path: io.BufferedReader(_Counting(path), 1024)
    )
    counts = []
    for size in ("small", "big"):
        _Counting.count = 0
        read(built / size / name)
        counts.append(_Counting.count)
    if name != "lib.so":
        assert (built / "big" / name).stat().st_size > 16 * 4 * BIG
    assert 0 < counts[0] < 64 * 1024
    assert counts[1] < counts[0] + 4096


def test_an_archive_is_decompressed_once(built, monkeypatch):
    monkeypatch.setattr(record_io, "open_regular", lambda path: io.BufferedReader(_Counting(path)))
    _Counting.count = 0
    path = built / "big/single.tar"
    record_io.read_record(path)
    assert _Counting.count < 1.1 * path.stat().st_size


def test_an_archive_is_not_unpacked(built):
    tracemalloc.start()
    try:
        record = record_io.read_record(built / "big/single.tar")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record.model == sha256(models()["big"])
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("decoy", ["code.ro", "single.so"])
def test_a_weight_is_not_taken_for_a_record(built, tmp_path, decoy):
    data = (built / "small" / decoy).read_bytes()
    data = (data + b"__tvm_dev_mblob\0" + data).ljust(2**17, b"\0")
    weights = np.frombuffer(data, "int8").astype("float32").reshape(16, -1)
    weights[0] = np.frombuffer(data[: weights.shape[1] * 4], "float32")  # as they are, too
    model = dense(weights)
    write_all(compile_model(model, get_hash=True), tmp_path / "decoy")
    for name in EXECUTABLES:
        assert record_io.read_record(tmp_path / "decoy" / name).model == sha256(model)


@pytest.mark.parametrize("size", ["small", "big"])
@pytest.mark.parametrize("name", EXECUTABLES)
def test_the_interface_is_read(built, size, name):
    assert record_io.read_interface(built / size / name).parameters == ("x", "b")


def test_the_interface_of_a_real_network_is_what_tvm_says(tmp_path):
    package = pathlib.Path(importlib.util.find_spec("magika").origin).parent
    model = onnx.load(package / "models/standard_v3_3/model.onnx")
    exe = compile_model(model, get_hash=True, shape={"bytes": (1, 2048)}, dtype={"bytes": "int32"})
    write_all(exe, tmp_path / "magika")
    parameters = tvm.runtime.vm.Executable.get_function_params(exe, "main")
    for name in EXECUTABLES:
        interface = record_io.read_interface(tmp_path / "magika" / name)
        assert interface.parameters == tuple(parameters)


def test_the_interface_of_several_functions_is_that_of_main(tmp_path):
    # A closure and recursion leave functions beside main, and a branch more than one exit.
    mod = tvm.relay.fromtext("""
#[version = "0.0.5"]
def @helper(%n: int32, %v: Tensor[(2), float32]) -> Tensor[(2), float32] {
  if (%n == 0) { %v } else { @helper(%n - 1, add(%v, %v)) }
}
def @main(%steps: int32, %start: Tensor[(2), float32]) -> Tensor[(2), float32] {
  @helper(%steps, %start)
}
""")
    exe = tvm.relay.vm.compile(mod, "llvm")
    assert len(exe.globals) > 1
    (tmp_path / "code.ro").write_bytes(exe.save()[0])
    assert record_io.read_interface(tmp_path / "code.ro").parameters == ("steps", "start")


# What is not readable


NO_ARTIFACTS = {
    "is empty": b"",
    "is an ELF file that is a core dump": b"\x7fELF\2\1\1".ljust(16, b"\0")
    + b"\4".ljust(48, b"\0"),
    "is a Mach-O file of the type 10": b"\xcf\xfa\xed\xfe".ljust(12, b"\0")
    + b"\n".ljust(20, b"\0"),
    "is not an artifact: it begins with 74 65 78 74": b"text",
    "is a Relay VM executable in big-endian byte order": bytes.fromhex("d225de2f4214151d00"),
    "not a tar of object files": gzip.compress(b"text"),
}


@pytest.mark.parametrize("message", NO_ARTIFACTS)
def test_what_is_no_artifact_is_named(tmp_path, message):
    path = tmp_path / "lib.so"
    path.write_bytes(NO_ARTIFACTS[message])
    with pytest.raises(UnknownArtifactError) as caught:
        record_io.read_record(path)
    assert message in str(caught.value)
    assert repr(str(path)) in str(caught.value)


def test_late_bound_constants_are_named(built):
    artifact = record_io.read_artifact(built / "small/consts")
    assert artifact.kind == "TVM parameters"
    assert artifact.role is record_io.Role.PARAMETERS
    assert identity(artifact.record) == model_record(models()["small"])
    assert record_io.read_interface(built / "small/consts") is None


def test_a_library_of_others_is_no_kernel_library(tmp_path):
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    # It refers to TVM's symbol, and does not define it.
    source.write_text("extern char __tvm_dev_mblob[]; char *f(void) { return __tvm_dev_mblob; }")
    for style in ("gnu", "sysv"):
        run("gcc", "-shared", "-fPIC", f"-Wl,--hash-style={style}", "-o", library, source)
        with pytest.raises(UnknownArtifactError, match=r"\(shared library\) is not from TVM"):
            record_io.read_record(library)
    run("gcc", "-c", "-o", tmp_path / "a.o", source)
    with pytest.raises(UnknownArtifactError, match=r"\(object file\) is not from TVM"):
        record_io.read_record(tmp_path / "a.o")


def test_a_stripped_object_file_is_named(built, tmp_path):
    run("strip", "-o", tmp_path / "devc.o", built / "small/objects/devc.o")
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.add(tmp_path / "devc.o", "devc.o")
    for name in ("devc.o", "a.tar"):
        with pytest.raises(UnknownArtifactError, match=f"{name}' .* or was stripped"):
            record_io.read_record(tmp_path / name)


def test_an_archive_without_objects_is_named(tmp_path):
    path = tmp_path / "lib.tar"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"lib0.c": b"int x;", "devc.o": b"text"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    message = r"is a tar without an object file \('lib0.c', 'devc.o'\)"
    with pytest.raises(UnknownArtifactError, match=message):
        record_io.read_record(path)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    found = {
        tmp_path: "it is a directory",
        tmp_path / "fifo": "it is a named pipe",
        "/dev/zero": "it is a device",
        tmp_path / "none": "No such file",
    }
    for path, message in found.items():
        with pytest.raises(ArtifactError, match=message):
            record_io.read_record(path)


@pytest.mark.parametrize("name", ["single.so", "stripped.so", "lib.so", "objects/devc.o"])
def test_a_truncated_library_is_an_error(built, tmp_path, name):
    data = (built / "small" / name).read_bytes()
    path = tmp_path / "lib.so"
    for size in {4, 63, 64, 200, *range(500, len(data), 997), len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            record_io.read_record(path)


def test_an_archive_cut_between_two_files_is_an_error(built, tmp_path):
    path = tmp_path / "lib.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("lib0.o", "devc.o"):
            if name == "devc.o":
                end = archive.offset
            archive.add(built / "small/objects" / name, name)
    assert record_io.read_record(path) is not None
    os.truncate(path, end)
    with pytest.raises(ArtifactError, match="the end of the archive is missing"):
        record_io.read_record(path)


@pytest.mark.parametrize("name", ["lib.tar", "single.tar", "plain.tar"])
def test_a_truncated_archive_is_an_error(built, tmp_path, name):
    data = (built / "small" / name).read_bytes()
    if name == "plain.tar":
        data = data.rstrip(b"\0")  # of the padding behind the last file, and its end
    path = tmp_path / "lib.tar"
    for size in {300, *range(512, len(data), 512)}:
        path.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            record_io.read_record(path)


def test_a_truncated_executable_is_an_error(code):
    data = code.read_bytes()
    end = data.rindex(struct.pack("<Q", 1) + b"b") + 9  # of the last parameter's name
    for size in [*range(8, end, 7), end - 1]:
        code.write_bytes(data[:size])
        for read in (record_io.read_interface, record_io.read_record):
            with pytest.raises(ArtifactError, match="is truncated in the"):
                read(code)


@pytest.mark.parametrize("name", ["single.so", "sysv.so", "objects/devc.o", "code.ro", "plain.tar"])
def test_a_damaged_file_is_a_typed_error(built, tmp_path, name):
    data = (built / "small" / name).read_bytes()
    path = tmp_path / "lib.so"
    rng = random.Random(0)
    errors = 0
    for position in [*range(0, 0x400, 5), *(rng.randrange(len(data)) for _ in range(200))]:
        damaged = bytearray(data)
        damaged[position] ^= rng.choice((1, 0x80, 0xFF))
        path.write_bytes(damaged)
        for read in (record_io.read_record, record_io.read_interface):
            with contextlib.suppress(ModelHashError):
                read(path)
                continue
            errors += 1
    assert errors > 10


def _edited(data, *edits):
    for old, new in edits:
        assert old in data
        data = data.replace(old, new, 1)
    return data


def test_a_blob_of_another_size_than_its_symbol_is_an_error(built, tmp_path):
    data = (built / "small/single.so").read_bytes()
    start = data.index(struct.pack("<Q", len("VMExecutable")) + b"VMExecutable") - 16
    size = int.from_bytes(data[start : start + 8], "little")
    damaged = data[:start] + (size + 1).to_bytes(8, "little") + data[start + 8 :]
    (tmp_path / "lib.so").write_bytes(damaged)
    with pytest.raises(ArtifactError, match=f"says {size + 1} bytes follow.* has room for {size}"):
        record_io.read_record(tmp_path / "lib.so")
    # And an executable that would end behind the blob.
    start = data.index(b"VMExecutable") + 12
    (tmp_path / "lib.so").write_bytes(data[:start] + struct.pack("<Q", size) + data[start + 8 :])
    with pytest.raises(ArtifactError, match="truncated in the VM executable of the module blob"):
        record_io.read_record(tmp_path / "lib.so")


def test_a_string_of_any_size_is_not_read(code):
    data = code.read_bytes()
    position = data.rindex(struct.pack("<Q", 1) + b"b")
    code.write_bytes(data[:position] + struct.pack("<Q", 65537) + data[position + 8 :])
    os.truncate(code, 100_000)
    message = "a string in the code of the executable is 65537 bytes long, more than the limit"
    with pytest.raises(ArtifactError, match=message):
        record_io.read_interface(code)


def test_an_error_in_a_record_names_the_file(code):
    data = code.read_bytes()
    code.write_bytes(data.replace(b"model=sha256:", b"model=sha512:"))
    with pytest.raises(RecordError, match=r"code\.ro': key 'model'"):
        record_io.read_record(code)
    header = parse_header(data)
    devices = (*header.devices, header.devices[-1])
    changed = type(header)(header.version, devices, header.host_device_index, 0)
    code.write_bytes(changed.to_bytes() + data[header.size :])
    for read in (record_io.read_record, lambda path: record_io.write_record(path, RECORD)):
        with pytest.raises(DuplicateRecordError, match=r"code\.ro': the executable carries 2"):
            read(code)


def test_damaged_sections_are_named(code):
    data = code.read_bytes()
    tensor = struct.pack("<Q", 0xDD5E40F096B4A13F)
    tag = struct.pack("<I", 0) + tensor
    damages = {
        "a constant has the tag 7": _edited(data, (tag, struct.pack("<I", 7) + tensor)),
        "a tensor begins with 0x": _edited(data, (tag, tag[:-1] + b"\0")),
        "a tensor has -1 dimensions": _edited(
            data,
            (
                tensor + struct.pack("<Qiii", 0, 1, 0, 2),
                tensor + struct.pack("<Qiii", 0, 1, 0, -1),
            ),
        ),
        "a function has 4 fields": _edited(
            data,
            (struct.pack("<QQ", 3, 4) + b"main", struct.pack("<QQ", 4, 4) + b"main"),
        ),
    }
    for message, damaged in damages.items():
        code.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=message):
            record_io.read_interface(code)


# Writing


def test_tagging_gives_what_the_compiler_gives(tmp_path):
    exe = compile_model(models()["small"])
    stock = bytes(exe.save()[0])
    tagged = bytes(set_record(exe, RECORD).save()[0])
    path = tmp_path / "code.ro"
    path.write_bytes(stock)
    assert record_io.write_record(path, RECORD) == str(path)
    assert path.read_bytes() == tagged
    record_io.write_record(path, None)
    assert path.read_bytes() == stock


def test_tvm_loads_what_was_tagged(built, tmp_path):
    path = tmp_path / "code.ro"
    record_io.write_record(built / "stock/code.ro", RECORD, path)
    lib = tvm.runtime.load_module(str(built / "stock/lib.so"))
    exe = tvm.runtime.vm.Executable.load_exec(bytearray(path.read_bytes()), lib)
    assert exe.get_hash() == RECORD.model
    vm = tvm.runtime.vm.VirtualMachine(exe, tvm.cpu())
    x, b = np.ones((1, 16), "float32"), np.zeros((1, 32), "float32")
    expected = np.arange(512, dtype="float32").reshape(16, 32).sum(0)
    assert np.allclose(vm.run(x, b).numpy(), expected)


@pytest.mark.parametrize("size", ["small", "big"])
def test_tagging_after_stripping_gives_back_the_file(built, tmp_path, size):
    original = built / size / "code.ro"
    record = record_io.read_record(original)
    stripped, tagged = tmp_path / "stripped.ro", tmp_path / "tagged.ro"
    record_io.write_record(original, None, stripped)
    assert record_io.read_record(stripped) is None
    record_io.write_record(stripped, RECORD)
    assert record_io.read_record(stripped) == RECORD
    record_io.write_record(stripped, record, tagged)
    assert tagged.read_bytes() == original.read_bytes()
    record_io.write_record(tagged, record)
    assert tagged.read_bytes() == original.read_bytes()


def test_the_rest_is_not_held_in_memory(built, tmp_path):
    tracemalloc.start()
    try:
        record_io.write_record(built / "big/code.ro", RECORD, tmp_path / "code.ro")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_permissions_are_kept(code, tmp_path):
    code.chmod(0o640)
    record_io.write_record(code, RECORD)
    assert stat.S_IMODE(code.stat().st_mode) == 0o640
    record_io.write_record(code, None, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_an_output_leaves_the_input(code, tmp_path):
    before = code.read_bytes()
    assert record_io.write_record(code, RECORD, tmp_path / "out") == str(tmp_path / "out")
    assert code.read_bytes() == before
    assert record_io.read_record(tmp_path / "out") == RECORD


def test_a_symbolic_link_is_not_replaced(code, tmp_path):
    before = code.read_bytes()
    link = tmp_path / "link.ro"
    link.symlink_to(code)
    for path, output in ((link, None), (code, link)):
        with pytest.raises(OutputError, match=r"is a symbolic link.*code\.ro"):
            record_io.write_record(path, RECORD, output)
    assert link.is_symlink()
    assert code.read_bytes() == before
    assert record_io.read_record(link) is not None


@pytest.mark.parametrize("name", ["single.so", "single.tar", "objects/devc.o"])
def test_a_record_in_a_library_is_not_changed(built, name):
    path = built / "small" / name
    before = path.read_bytes()
    with pytest.raises(FixedRecordError, match=f"inside a {EXECUTABLES[name]}.*code.ro"):
        record_io.write_record(path, RECORD)
    assert path.read_bytes() == before


def test_a_kernel_library_is_not_changed(built):
    path = built / "small/lib.so"
    before = path.read_bytes()
    with pytest.raises(FixedRecordError, match="was compiled into the shared library"):
        record_io.write_record(path, RECORD)
    assert path.read_bytes() == before


def test_what_is_not_whole_is_not_rewritten(code, tmp_path):
    whole = code.read_bytes()
    for data in (whole[:-1], whole + b"\0"):
        code.write_bytes(data)
        for record in (RECORD, None):
            with pytest.raises(ArtifactError, match=r"code\.ro' is (truncated|damaged)"):
                record_io.write_record(code, record, tmp_path / "output")
    assert list(tmp_path.iterdir()) == [code]


def test_only_a_record_is_written(code):
    before = code.read_bytes()
    for wrong in (str(RECORD), RECORD.model, 1):
        with pytest.raises(RecordError, match="expected a Record to write"):
            record_io.write_record(code, wrong)
    assert code.read_bytes() == before


def test_a_failure_leaves_nothing(code, tmp_path, monkeypatch):
    before = code.read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        record_io.write_record(code, RECORD, tmp_path / "none" / "out")
    with pytest.raises(OutputError, match="cannot write"):
        record_io.write_record(code, RECORD, tmp_path)
    assert code.read_bytes() == before

    @contextlib.contextmanager
    def shortening(path, mode):
        with replacing(path, mode) as file:
            os.truncate(code, 8000)
            yield file

    constant = make_artifacts.here(shape=(25_000,), data=bytes(100_000))
    code.write_bytes(make_artifacts.executable(constants=(constant,)))
    replacing = record_io.replacing
    monkeypatch.setattr(record_io, "replacing", shortening)
    with pytest.raises(ArtifactError, match="has become shorter"):
        record_io.write_record(code, RECORD, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [code]


# A further carrier


class _Signed(Carrier):
    """A file with a record behind a mark of its own."""

    mark = b"signed:"

    @classmethod
    def find(cls, source):
        carrier = cls()
        carrier.source = source
        return carrier if source.head.startswith(cls.mark) else None

    def artifact(self):
        self.source.file.seek(len(self.mark))
        text = self.source.file.read()
        record = Record.decode(text) if text else None
        role = record_io.Role.PARAMETERS
        return record_io.Artifact(
            self.source.path, "signed", "file", self.source.size, role, record
        )

    def patch(self, record):
        data = b"" if record is None else str(record).encode()
        return Patch(len(self.mark), self.source.size, data)


def test_a_further_carrier_touches_nothing_else(built, tmp_path, monkeypatch):
    monkeypatch.setattr(record_io, "_CARRIERS", (RelayVM, _Signed))
    path = tmp_path / "signed"
    path.write_bytes(_Signed.mark)
    assert record_io.read_record(path) is None
    record_io.write_record(path, RECORD)
    assert record_io.read_record(path) == RECORD
    record_io.write_record(path, None)
    assert path.read_bytes() == _Signed.mark
    assert record_io.read_record(built / "small/code.ro") is not None
