# SPDX-License-Identifier: Apache-2.0
"""The header of a VM executable: the writer in Python is the reference for the one in C++."""

import dataclasses
import hashlib
import struct

import formats_reference
import numpy as np
import pytest
import tvm
from conftest import identity, layer, sha256
from tvm import relay
from tvm.runtime import relay_vm_hash as vm_hash
from tvm.runtime.vm import Executable, VirtualMachine

from tvm_model_hash import (
    ArtifactError,
    BuildMismatchError,
    DuplicateRecordError,
    Record,
    RecordError,
)
from tvm_model_hash.artifact.vm_header import (
    VirtualDevice,
    parse_header,
    record_from_listing,
    rewrite_record,
)
from tvm_model_hash.model.digest import model_record

FIRST, SECOND = Record("1" * 64), Record("2" * 64, "3" * 64, "4" * 64, (("n", "1"),))


@pytest.fixture
def vm_exec():
    mod, _ = relay.frontend.from_onnx(layer())
    return relay.vm.compile(mod, "llvm")


@pytest.fixture
def code(vm_exec):
    return bytes(vm_exec.save()[0])


def test_the_header_of_stock_code(code):
    header = parse_header(code)
    assert header.version == "0.19.0"
    assert header.devices == (VirtualDevice(1, 0, b""),)
    assert header.host_device_index == 0
    assert header.record is None
    assert header.to_bytes() == code[: header.size]


def test_the_reference_reads_what_tvm_writes_and_nothing_less(vm_exec, code):
    fields = formats_reference.record(str(FIRST).encode())
    says = formats_reference.executable(rewrite_record(code, FIRST))
    assert says == {**formats_reference.executable(code), "record": fields}
    assert (says["record"], says["parameters"], says["late-bound"]) == (fields, ["x"], [])
    assert says["stock"] == hashlib.sha256(code).hexdigest()
    for size in range(len(code)):
        with pytest.raises(formats_reference.FormatError):
            formats_reference.executable(code[:size])


def test_the_reference_reads_late_bound_constants(vm_exec, tmp_path):
    path = tmp_path / "consts"
    vm_exec.move_late_bound_consts(str(path), 64)
    names = formats_reference.executable(bytes(vm_exec.save()[0]))["late-bound"]
    assert names
    assert formats_reference.tensor_list(path.read_bytes()) == {"record": None, "names": names}


def test_cpp_writes_the_same_bytes_as_python(vm_exec, code):
    assert vm_hash._writer() is not None
    for record in (FIRST, SECOND, FIRST):  # the second time it replaces
        vm_hash.set_record(vm_exec, record)
        assert vm_exec.save()[0] == rewrite_record(code, record)
        code = bytes(vm_exec.save()[0])


def test_rewriting_replaces_and_removes(code):
    tagged = rewrite_record(code, FIRST)
    assert parse_header(tagged).record == FIRST
    assert rewrite_record(tagged, SECOND) == rewrite_record(code, SECOND)
    assert rewrite_record(tagged, None) == code
    assert rewrite_record(code, None) == code


def test_rewriting_leaves_other_devices_where_they_are(code):
    header = parse_header(code)
    devices = (*header.devices, VirtualDevice(2, 1, b"global.texture"))
    several = header.__class__("0.19.0", devices, 0, 0).to_bytes() + code[header.size :]
    tagged = parse_header(rewrite_record(several, FIRST))
    assert tagged.devices == (*devices, VirtualDevice(1, 0, str(FIRST).encode()))
    assert rewrite_record(rewrite_record(several, FIRST), None) == several


def test_where_the_cpp_library_is_missing_python_writes(vm_exec, code, monkeypatch):
    monkeypatch.setattr(vm_hash, "_writer", lambda: None)
    mod, _ = relay.frontend.from_onnx(layer(), get_hash=True)
    written = relay.vm.compile(mod, "llvm")
    assert written.get_hash() == sha256(layer())
    # The header only: what follows holds heap pointers of the executable.
    record = vm_hash.get_record(written)
    assert identity(record) == model_record(layer())
    expected = rewrite_record(code, record)
    assert parse_header(written.save()[0]) == parse_header(expected)
    assert written.globals == vm_exec.globals
    assert written.primitive_ops == vm_exec.primitive_ops
    x = np.ones((1, 16), "float32")
    outputs = [VirtualMachine(exe, tvm.cpu()).run(x).numpy() for exe in (written, vm_exec)]
    np.testing.assert_array_equal(*outputs)


def test_a_cpp_library_that_does_not_load_is_replaced_by_python(vm_exec, monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(vm_hash, "_library_path", lambda: str(tmp_path / "broken.so"))
    monkeypatch.setattr(vm_hash, "get_global_func", lambda *_, **__: None)
    with pytest.warns(RuntimeWarning, match="broken.so does not fit the running TVM.*--no-binary"):
        assert vm_hash._writer.__wrapped__() is None


def test_a_record_that_tvm_does_not_see_is_an_error(vm_exec, monkeypatch):
    # As if the library had written by the layout of another TVM.
    monkeypatch.setattr(vm_hash, "_writer", lambda: lambda mod, record: None)
    with pytest.raises(BuildMismatchError, match="built for another TVM.*--no-binary"):
        vm_hash.set_record(vm_exec, FIRST)


def test_every_truncated_header_is_refused(code):
    tagged = rewrite_record(code, FIRST)
    for size in range(parse_header(tagged).size):
        with pytest.raises(ArtifactError, match=r"^code.ro is truncated in the .*, found \d+$"):
            parse_header(tagged[:size], "code.ro")
    parse_header(tagged[: parse_header(tagged).size])


@pytest.mark.parametrize(
    "version", ["0.14.0", "0.15.dev12+g0123abc", "0.16.dev0", "0.17.0rc1", "0.18.0", "0.19.0.post1"]
)
def test_the_version_is_kept_to_the_letter(code, version):
    """The layout is the same in all of these; the loader takes its own version's only."""
    header = dataclasses.replace(parse_header(code), version=version)
    other = header.to_bytes() + code[parse_header(code).size :]
    assert parse_header(other).version == version
    tagged = rewrite_record(other, FIRST)
    assert parse_header(tagged) == dataclasses.replace(
        header.with_record(FIRST), size=len(tagged) - len(code) + parse_header(code).size
    )
    assert rewrite_record(tagged, None) == other


def patched(code, offset, layout, value):
    return code[:offset] + struct.pack(layout, value) + code[offset + struct.calcsize(layout) :]


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "<Q", 0x464C457F, "not a Relay VM executable: it begins with 0x00000000464c457f"),
        (8, "<Q", 1 << 40, "string in the version.* is 1099511627776 bytes"),
        (16, "<6s", b"0.13.0", "written by TVM '0.13.0'.* TVM 0.14 to 0.19 only"),
        (16, "<6s", b"0.20.0", "written by TVM '0.20.0'.* TVM 0.14 to 0.19 only"),
        (16, "<6s", b"0.190.", "written by TVM '0.190.'"),
        (16, "<6s", b"0.18.\r", "written by TVM '0.18...'"),
        (16, "<6s", b"\xff.19.0", "written by TVM"),
        (22, "<Q", 1 << 60, "device table has 1152921504606846976 entries"),
        (38, "<Q", 1 << 60, "string in the device table.* is 1152921504606846976 bytes"),
        (46, "<i", 1, "host device index is 1, of 1 devices"),
        (46, "<i", -1, "host device index is -1, of 1 devices"),
    ],
)
def test_a_damaged_header_is_refused(code, offset, layout, value, message):
    with pytest.raises(ArtifactError, match=message):
        parse_header(patched(code, offset, layout, value))


def with_scopes(code, *scopes):
    header = parse_header(code)
    devices = (*header.devices, *(VirtualDevice(1, 0, scope) for scope in scopes))
    return header.__class__("0.19.0", devices, 0, 0).to_bytes() + code[header.size :]


@pytest.mark.parametrize(
    ("scopes", "error", "message"),
    [
        ([b"model-hash/1 model=sha256:"], RecordError, "key 'model'"),
        ([b"model-hash/1 model=sha256:" + b"A" * 64], RecordError, "64 lowercase"),
        ([str(FIRST).encode() + b" n=" + b"x" * 1000], RecordError, "more than the limit of 1024"),
        ([str(FIRST).encode()] * 2, DuplicateRecordError, "2 records"),
        ([str(FIRST).encode(), b"model-hash/9"], DuplicateRecordError, "2 records"),
    ],
)
def test_a_wrong_record_in_an_executable_is_refused(vm_exec, code, scopes, error, message):
    wrong = with_scopes(code, *scopes)
    with pytest.raises(error, match=message):
        parse_header(wrong).record  # noqa: B018
    with pytest.raises(error, match=message):
        Executable.load_exec(wrong, vm_exec.lib)
    loaded = Executable(vm_hash._load_exec(wrong, vm_exec.lib).mod)
    with pytest.raises(error, match=message):
        loaded.get_hash()
    if error is DuplicateRecordError:
        with pytest.raises(error, match=message):
            rewrite_record(wrong, FIRST)
        with pytest.raises(ValueError, match="more than one record"):
            vm_hash.set_record(loaded, FIRST)


def test_a_record_that_is_not_ascii_is_refused(code):
    wrong = with_scopes(code, "model-hash/1 model=é".encode())
    with pytest.raises(RecordError, match="not ASCII"):
        parse_header(wrong).record  # noqa: B018


def test_a_listing_without_record_has_none(vm_exec):
    assert record_from_listing(vm_exec.virtual_devices) is None
    assert record_from_listing("") is None
