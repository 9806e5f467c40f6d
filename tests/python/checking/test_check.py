# SPDX-License-Identifier: Apache-2.0
"""Checking an artifact against a model: from Python, from files, and before anything is loaded."""

import hashlib
import json
import os
import pathlib
import shutil
import tarfile

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import tvm
from conftest import NETWORKS, identity, layer, run_python, sha256
from tvm import relay
from tvm.contrib.utils import tempdir
from tvm.runtime import vm_hash
from tvm.runtime.vm import Executable, VirtualMachine

from tvm_model_hash import (
    ArtifactError,
    ExternalDataError,
    HashConflictError,
    InvalidHashError,
    ModelHashMismatch,
    NoHashError,
    OutputError,
    Record,
    RecordError,
    Status,
    check,
    model_record,
    read_record,
    seal,
    write_record,
)

TARGET = "llvm"
X = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)


def compile_model(model, **kwargs):
    mod, _ = relay.frontend.from_onnx(model, get_hash=True, **kwargs)
    return relay.vm.compile(mod, TARGET)


def reordered(model):
    """The same message with its fields in another order: other bytes that mean the same."""
    data = model.graph.SerializeToString()
    graph = b"\x3a" + _varint(len(data)) + data  # field 7 first
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    return graph + rest.SerializeToString()


def _varint(value):
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def renamed(model):
    """A model that computes the same, under other names inside."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.producer_name = "another"
    copy.graph.initializer[0].name = copy.graph.node[0].input[1] = "weights"
    return copy


def other_input(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input[0].name = copy.graph.node[0].input[0] = "pixels"
    return copy


@pytest.fixture(scope="module")
def vm_exec():
    return compile_model(layer())


@pytest.fixture(params=["whole", "late-bound constants"])
def deployment(request, vm_exec, tmp_path):
    byte_limit = None if request.param == "whole" else 256
    return pathlib.Path(vm_hash.save(vm_exec, tmp_path / "deployment", byte_limit, seal=False))


@pytest.fixture
def model_path(tmp_path):
    onnx.save(layer(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


# --- the verdict ---


def test_a_match(vm_exec, deployment, model_path):
    vm_exec.mod.export_library(str(deployment.parent / "single.so"))
    single = deployment.parent / "single.so"
    for artifact in (vm_exec, vm_exec.mod, deployment, str(deployment), single):
        for model in (layer(), model_path, str(model_path), sha256(layer()), model_record(layer())):
            verdict = check(model, artifact)
            assert (verdict.status, verdict.reason) == (Status.MATCH, "same model")
            assert verdict.ok
            assert verdict.expected.model == sha256(layer())
            assert identity(verdict.found) == model_record(layer())
            assert not verdict.sealed


def test_an_equivalent_model(vm_exec, deployment):
    model = renamed(layer())
    assert sha256(model) != sha256(layer())
    for artifact in (vm_exec, deployment):
        verdict = check(model, artifact)
        assert verdict.status is Status.EQUIVALENT
        assert verdict.ok
        assert verdict.expected == model_record(model)
        assert "same graph and the same weights" in verdict.reason


def test_another_fine_tune(vm_exec):
    verdict = check(layer(2), vm_exec)
    assert (verdict.status, verdict.reason) == (Status.MISMATCH, "same graph, other weights")
    assert not verdict.ok


def test_libraries_of_two_fine_tunes_are_told_apart(tmp_path, vm_exec):
    first = pathlib.Path(vm_hash.save(vm_exec, tmp_path / "first"))
    second = pathlib.Path(vm_hash.save(compile_model(layer(2)), tmp_path / "second"))
    a, b = read_record(first / "lib.so"), read_record(second / "lib.so")
    assert a.graph == b.graph
    assert a.weights != b.weights
    assert a == read_record(first / "code.ro")


def test_another_model(vm_exec, deployment):
    model = layer()
    model.graph.node[0].op_type = "Gemm"
    for artifact in (vm_exec, deployment):
        verdict = check(model, artifact)
        assert (verdict.status, verdict.reason) == (Status.MISMATCH, "other model")


def test_another_interface(vm_exec, deployment, tmp_path):
    model = other_input(layer())
    onnx.save(model, tmp_path / "other.onnx")
    for artifact in (vm_exec, vm_exec.mod, deployment, deployment / "code.ro"):
        for given in (model, tmp_path / "other.onnx", str(tmp_path / "other.onnx")):
            verdict = check(given, artifact)
            assert verdict.status is Status.MISMATCH
            assert verdict.reason == (
                "other interface: input 'pixels' of the model is none of the artifact's; "
                "input 'x' of the artifact is none of the model's"
            )


def test_a_hash_alone_tells_no_more_than_that_it_differs(vm_exec):
    verdict = check("0" * 64, vm_exec)
    assert verdict.status is Status.MISMATCH
    assert verdict.reason == "other model, as far as a hash alone tells"
    assert "sha256sum of a model with external data" in verdict.remarks[-1]
    assert not check(layer(2), vm_exec).remarks
    old = vm_hash.set_record(compile_model(layer()), Record(sha256(layer())))
    verdict = check(renamed(layer()), old)
    assert verdict.status is Status.MISMATCH
    assert "the artifact's record has no digests of graph and weights" in verdict.reason


def test_no_record(model_path):
    mod, _ = relay.frontend.from_onnx(layer())
    stock = relay.vm.compile(mod, TARGET)
    verdict = check(model_path, stock)
    assert (verdict.status, verdict.found) == (Status.NO_RECORD, None)
    with pytest.raises(ModelHashMismatch, match="carries no record") as raised:
        stock.check_hash(model_path)
    assert raised.value.verdict == verdict


def test_check_hash_raises_with_the_verdict(vm_exec):
    vm = VirtualMachine(vm_exec, tvm.cpu())
    for checked in (vm_exec, vm):
        assert checked.check_hash(layer()).status is Status.MATCH
        assert checked.check_hash(renamed(layer())).status is Status.EQUIVALENT
        with pytest.raises(ModelHashMismatch, match="serialized differently"):
            checked.check_hash(renamed(layer()), exact=True)
        with pytest.raises(ModelHashMismatch, match="other weights") as raised:
            checked.check_hash(layer(2))
        assert identity(raised.value.verdict.found) == model_record(layer())
        assert raised.value.verdict.expected == model_record(layer(2))


# --- the model ---


def test_a_file_with_reordered_fields_is_equivalent_and_a_match_once_parsed(vm_exec, tmp_path):
    data = reordered(layer())
    (tmp_path / "reordered.onnx").write_bytes(data)
    assert hashlib.sha256(data).hexdigest() != sha256(layer())
    assert onnx.load(tmp_path / "reordered.onnx") == layer()
    # Its serialized form counts, which is that of the original.
    verdict = check(tmp_path / "reordered.onnx", vm_exec)
    assert verdict.status is Status.MATCH
    assert verdict.reason == "same model, once parsed: the file's own bytes have another hash"


def test_a_file_with_the_hash_is_not_parsed(deployment, model_path):
    # Where onnx can't be imported nothing can be parsed.
    code = """
import sys
sys.modules["onnx"] = sys.modules["tvm"] = None
import tvm_model_hash
print(tvm_model_hash.check(sys.argv[1], sys.argv[2]).status.value)
"""
    assert run_python(code, model_path, deployment).stdout == "match\n"


def test_a_network_with_external_data_is_equivalent(tmp_path):
    inline = onnx.load(NETWORKS["magika"].path)
    vm_exec = compile_model(inline, shape=NETWORKS["magika"].shape)
    model = onnx.load(NETWORKS["magika"].path)
    onnx.save(model, tmp_path / "external.onnx", save_as_external_data=True, location="data")
    assert os.path.getsize(tmp_path / "data") > 1 << 20
    assert check(tmp_path / "external.onnx", vm_exec).status is Status.EQUIVALENT
    with open(tmp_path / "data", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    assert check(tmp_path / "external.onnx", vm_exec).reason == "same graph, other weights"


def test_a_model_that_the_importer_would_change_stays_as_it_was():
    model = layer()
    model.graph.node[0].ClearField("name")
    before = model.SerializeToString()
    vm_exec = compile_model(model)
    assert model.SerializeToString() == before
    assert vm_exec.check_hash(model, exact=True)
    assert compile_model(model).get_hash() == vm_exec.get_hash() == sha256(model)


def test_the_hash_of_a_file_says_nothing_of_the_weights_beside_it(tmp_path):
    model = layer()
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    vm_exec = compile_model(onnx.load(tmp_path / "model.onnx"))
    vm_exec.mod.export_library(str(tmp_path / "single.so"))
    verdict = check(tmp_path / "model.onnx", tmp_path / "single.so")
    assert (verdict.status, verdict.reason) == (
        Status.MATCH,
        "same model, with its external data",
    )
    # A record made by hand, of what sha256sum says of the model's own file.
    own = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    directory = pathlib.Path(vm_hash.save(vm_exec, tmp_path / "deployment", seal=False))
    for name in ("code.ro", "lib.so"):
        assert read_record(directory / name).model != own
    verdict = compare_own_hash(tmp_path / "model.onnx", vm_exec, own)
    assert verdict.status is Status.MISMATCH
    assert "has the SHA-256 of" in verdict.reason
    assert "model.onnx' alone, and the model has external data" in verdict.reason
    # Of another model with external data it says nothing.
    onnx.save(layer(2), tmp_path / "other.onnx")
    assert "SHA-256" not in compare_own_hash(tmp_path / "other.onnx", vm_exec, own).reason
    data = bytearray((tmp_path / "w").read_bytes())
    data[0] ^= 1
    (tmp_path / "w").write_bytes(data)
    assert compare_own_hash(tmp_path / "model.onnx", vm_exec, own).status is Status.MISMATCH
    (tmp_path / "w").unlink()
    with pytest.raises(ExternalDataError):
        compare_own_hash(tmp_path / "model.onnx", vm_exec, own)


def compare_own_hash(path, vm_exec, own):
    return check(path, vm_hash.set_record(vm_exec, Record(own)))


@pytest.mark.parametrize("kind", ["record", "text", "hash.txt with a record"])
def test_a_record_is_expected_where_graphs_differ(kind, vm_exec, tmp_path):
    record = model_record(other_input(layer()))
    (tmp_path / "hash.txt").write_text(str(record))
    given = {"record": record, "text": str(record), "hash.txt with a record": tmp_path / "hash.txt"}
    verdict = check(given[kind], vm_exec)
    assert (verdict.status, verdict.reason) == (Status.MISMATCH, "other model")


HASH = sha256(layer())


@pytest.mark.parametrize(
    "text",
    [
        HASH,
        HASH + "\n",
        f"  {HASH}\r\n",
        HASH.upper(),
        f"{HASH}  model.onnx\n",
        f"{HASH} *a model.onnx\n",
        f"sha256:{HASH}",
        str(Record(HASH)),
        f"{Record(HASH)}\n",
    ],
)
def test_a_hash_txt_is_read_as_people_write_it(text, vm_exec, tmp_path):
    (tmp_path / "hash.txt").write_text(text)
    assert check(tmp_path / "hash.txt", vm_exec).status is Status.MATCH
    assert check(str(tmp_path / "hash.txt"), vm_exec).status is Status.MATCH


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("hello", "is 'hello'"),
        (HASH[1:], f"is '{HASH[1:]}'"),
        (HASH + "0", "64 hexadecimal digits"),
        (f"{HASH}\n{HASH}\n", "64 hexadecimal digits"),
        (f"sha512:{HASH}", "64 hexadecimal digits"),
        ("g" * 64, "64 hexadecimal digits"),
        (f"{HASH} {HASH}  \n" * 200, "more than 8192 bytes"),
    ],
)
def test_another_hash_txt_is_refused(text, found, vm_exec, tmp_path):
    (tmp_path / "hash.txt").write_text(text)
    with pytest.raises(InvalidHashError, match=found):
        check(tmp_path / "hash.txt", vm_exec)


def test_what_is_neither_hash_nor_file_is_refused(vm_exec):
    with pytest.raises(InvalidHashError, match="'nowhere.onnx' is neither a file nor a model hash"):
        check("nowhere.onnx", vm_exec)
    with pytest.raises(ArtifactError, match="'nowhere'"):
        check(pathlib.Path("nowhere"), vm_exec)
    with pytest.raises(RecordError, match="out of order"):
        check(f"model-hash/1 graph=sha256:{HASH} model=sha256:{HASH}", vm_exec)


def test_an_empty_file_that_is_called_a_model_is_no_hash(vm_exec, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="model.onnx") as raised:
        check(tmp_path / "model.onnx", vm_exec)
    assert not isinstance(raised.value, InvalidHashError)


def test_what_is_no_artifact_is_refused():
    with pytest.raises(ArtifactError, match="found int"):
        check(HASH, 7)


# --- a directory ---


def test_save_lays_out_and_seals_a_deployment(vm_exec, tmp_path):
    directory = pathlib.Path(vm_hash.save(vm_exec, tmp_path / "a/b/sealed", library="model.so"))
    assert {path.name for path in directory.iterdir()} == {
        *("model.so", "code.ro", "hash.txt", "SHA256SUMS")
    }
    verdict = check(layer(), directory)
    assert (verdict.status, verdict.sealed) == (Status.MATCH, True)


def test_save_lays_out_a_deployment(deployment):
    names = {path.name for path in deployment.iterdir()}
    assert {"lib.so", "code.ro", "hash.txt"} <= names <= {"lib.so", "code.ro", "hash.txt", "consts"}
    assert (deployment / "hash.txt").read_text() == HASH


def test_save_leaves_the_executable_as_it_was(deployment, vm_exec):
    assert VirtualMachine(vm_exec, tvm.cpu()).run(X).numpy().shape == (1, 32)
    record = vm_hash.get_record(vm_exec)
    assert (record.model, record.build) == (HASH, read_record(deployment / "code.ro").build)
    assert vm_exec.check_hash(layer())


def test_save_is_all_or_nothing(vm_exec, tmp_path):
    mod, _ = relay.frontend.from_onnx(layer())
    with pytest.raises(NoHashError):
        vm_hash.save(relay.vm.compile(mod, TARGET), tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    with pytest.raises(OutputError, match="not empty"):
        vm_hash.save(vm_exec, tmp_path / "full")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="it is not a directory"):
        vm_hash.save(vm_exec, tmp_path / "file")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "file", "full"]
    (tmp_path / "empty").mkdir()
    vm_hash.save(vm_exec, tmp_path / "empty")
    assert (tmp_path / "empty/code.ro").exists()
    temporary = tempdir()
    assert vm_hash.save(vm_exec, temporary) == temporary.temp_dir


def test_the_parts_must_be_of_one_model(deployment):
    (deployment / "hash.txt").write_text("0" * 64)
    verdict = check(layer(), deployment)
    assert verdict.status is Status.MISMATCH
    assert "the parts are of different models" in verdict.reason
    assert f"'code.ro' is of model {HASH}" in verdict.reason
    assert f"'hash.txt' is of model {'0' * 64}" in verdict.reason


def test_constants_of_another_model_are_named(vm_exec, tmp_path):
    first = pathlib.Path(vm_hash.save(vm_exec, tmp_path / "first", byte_limit=256, seal=False))
    second = pathlib.Path(vm_hash.save(compile_model(layer(2)), tmp_path / "second", 256))
    shutil.copy(second / "consts", first / "consts")
    verdict = check(layer(), first)
    assert verdict.status is Status.MISMATCH
    assert f"'consts' is of model {sha256(layer(2))}" in verdict.reason


def test_constants_without_record_are_no_part_of_a_match(vm_exec, tmp_path):
    directory = pathlib.Path(
        vm_hash.save(vm_exec, tmp_path / "deployment", byte_limit=256, seal=False)
    )
    write_record(directory / "consts", None)
    verdict = check(layer(), directory)
    assert verdict.status is Status.NO_RECORD
    assert "nothing says which model 'consts' (TVM parameters) is of" in verdict.reason
    with pytest.raises(ModelHashMismatch, match="which model 'consts'"):
        vm_hash.load(directory, tvm.cpu(), expected=layer())
    write_record(directory / "consts", read_record(directory / "lib.so"))
    assert check(layer(), directory).status is Status.MATCH


def test_a_part_without_a_record_is_covered_by_a_seal_with_one(vm_exec, tmp_path):
    mod, _ = relay.frontend.from_onnx(layer())
    stock = relay.vm.compile(mod, TARGET)
    code, lib = stock.save()
    (tmp_path / "code.ro").write_bytes(code)
    lib.export_library(str(tmp_path / "lib.so"))
    assert check(layer(), tmp_path).status is Status.NO_RECORD
    seal(tmp_path)  # of nothing that is known
    assert check(layer(), tmp_path).status is Status.NO_RECORD
    write_record(tmp_path / "code.ro", model_record(layer()))
    (tmp_path / "SHA256SUMS").unlink()
    verdict = check(layer(), tmp_path)
    assert verdict.status is Status.NO_RECORD
    assert "nothing says which model 'lib.so' (TVM kernel library) is of" in verdict.reason
    seal(tmp_path)
    verdict = check(layer(), tmp_path)
    assert verdict.status is Status.MATCH
    assert verdict.reason == "same model; 'lib.so' carries no record, and is covered by the seal"
    assert vm_hash.load(tmp_path, tvm.cpu(), expected=layer()).run(X).numpy().shape == (1, 32)


def test_a_stock_code_beside_a_hash_txt_has_no_record(deployment):
    write_record(deployment / "code.ro", None)
    verdict = check(layer(), deployment)
    assert verdict.status is Status.NO_RECORD
    assert "'code.ro' (Relay VM executable)" in verdict.reason


def test_a_file_that_needs_others_is_no_match_alone(deployment):
    verdict = check(layer(), deployment / "code.ro")
    assert verdict.status is Status.NO_RECORD
    assert "is of this model, but needs the kernels of a library" in verdict.reason
    assert check(layer(2), deployment / "code.ro").status is Status.MISMATCH
    assert check(layer(), deployment / "lib.so").status is Status.MATCH


def test_a_single_file_deployment(vm_exec, tmp_path):
    vm_exec.mod.export_library(str(tmp_path / "model.so"))
    vm_exec.save_hash(tmp_path)
    assert check(layer(), tmp_path).status is Status.MATCH
    assert vm_hash.load(tmp_path, tvm.cpu(), expected=layer()).run(X).numpy().shape == (1, 32)


def add(name, source):
    def change(directory):
        shutil.copy(directory / source, directory / name)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: (d / "lib.so").unlink(),
            "'code.ro' .* calls the kernels of a library",
        ),
        (lambda d: (d / "code.ro").unlink(), "is no deployment: .* found only 'lib.so'"),
        (lambda d: (d / "code.ro").write_bytes(b""), "calls|found only 'lib.so'"),
        (lambda d: (d / "lib.so").write_bytes(b"x" * 99), "calls the kernels"),
        (lambda d: (d / "hash.txt").write_text(""), "hash.txt' is empty"),
    ],
)
def test_a_directory_that_is_no_deployment_is_refused(change, message, deployment):
    change(deployment)
    with pytest.raises(ValueError, match=message):
        check(layer(), deployment)


def test_files_are_told_by_what_is_in_them(deployment):
    for number, path in enumerate(sorted(deployment.iterdir())):
        if path.name != "hash.txt":
            path.rename(deployment / f"{number}.txt")
    (deployment / "labels.txt").write_text("cat\n")
    np.savez(deployment / "sample.npz", x=X)
    (deployment / "code.ro").write_text("no code")
    verdict = check(layer(), deployment)
    assert verdict.status is Status.MATCH
    assert verdict.deployment.others == ("code.ro", "labels.txt", "sample.npz")


def test_a_copy_of_a_part_is_a_part_that_cannot_be_chosen(deployment):
    add("other.ro", "code.ro")(deployment)
    assert check(layer(), deployment).status is Status.MATCH
    with pytest.raises(ArtifactError, match="'code.ro', 'other.ro'. One of them has to be chosen"):
        vm_hash.load(deployment, tvm.cpu(), expected=layer())


def test_missing_constants_are_named(vm_exec, tmp_path):
    directory = pathlib.Path(
        vm_hash.save(vm_exec, tmp_path / "deployment", byte_limit=256, seal=False)
    )
    (directory / "consts").unlink()
    with pytest.raises(ArtifactError, match=r"'code.ro' .* needs the tensor '.*' from a file of"):
        check(layer(), directory)


def test_a_link_out_of_the_directory_is_refused(deployment, tmp_path):
    (deployment / "lib.so").rename(tmp_path / "elsewhere.so")
    (deployment / "lib.so").symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(ArtifactError, match="'lib.so' .* is a symbolic link to .*elsewhere.so"):
        check(layer(), deployment)
    (deployment / "lib.so").unlink()
    (tmp_path / "elsewhere.so").rename(deployment / "here.so")
    (deployment / "lib.so").symlink_to("here.so")
    assert check(layer(), deployment).status is Status.MATCH


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_of_a_deployment_is_a_deployment(mode, deployment, tmp_path):
    def pack():
        with tarfile.open(tmp_path / "package.tar", mode) as archive:
            for path in sorted(deployment.iterdir()):
                archive.add(path, f"./{path.name}")

    pack()
    verdict = check(layer(), tmp_path / "package.tar")
    assert verdict.status is Status.MATCH
    assert {part.name for part in verdict.deployment.parts} >= {"code.ro", "lib.so"}
    assert check(layer(2), tmp_path / "package.tar").status is Status.MISMATCH
    seal(deployment)
    pack()
    assert check(layer(), tmp_path / "package.tar").sealed
    # Inside of a directory it is as its files are.
    (tmp_path / "outer").mkdir()
    shutil.copy(tmp_path / "package.tar", tmp_path / "outer")
    verdict = check(layer(), tmp_path / "outer")
    assert verdict.status is Status.MATCH
    assert "package.tar/code.ro" in {part.name for part in verdict.deployment.parts}
    vm_hash.save(compile_model(layer(2)), tmp_path / "other", seal=False)
    shutil.copy(tmp_path / "other/lib.so", deployment / "lib.so")
    (deployment / "SHA256SUMS").unlink()
    pack()
    verdict = check(layer(), tmp_path / "package.tar")
    assert verdict.status is Status.MISMATCH
    assert "'lib.so' is of model" in verdict.reason


def test_a_sealed_deployment_is_checked_file_by_file(deployment):
    seal(deployment)
    assert check(layer(), deployment).status is Status.MATCH
    for path in sorted(deployment.iterdir()):
        data = path.read_bytes()
        for position in (0, len(data) // 2, len(data) - 1):
            flipped = bytearray(data)
            flipped[position] ^= 4
            path.write_bytes(flipped)
            try:
                status = check(layer(), deployment).status
            except ValueError as error:
                status = error
            assert status is not Status.MATCH, (path, position)
            path.write_bytes(data)
    (deployment / "notes").write_text("not of a model")
    assert check(layer(), deployment).status is Status.MATCH
    shutil.copy(deployment / "lib.so", deployment / "extra")
    os.unlink(deployment / "hash.txt")
    verdict = check(layer(), deployment)
    assert verdict.status is Status.BROKEN_SEAL
    assert (verdict.missing, verdict.extra, verdict.changed) == (("hash.txt",), ("extra",), ())
    assert "'hash.txt' is missing" in verdict.reason
    assert "'extra' is not in the manifest" in verdict.reason
    assert "notes" not in verdict.reason


# --- load only what was checked ---


def test_load_gives_a_virtual_machine_that_computes_the_same(deployment, vm_exec):
    expected = VirtualMachine(vm_exec, tvm.cpu()).run(X).numpy()
    for model in (layer(), renamed(layer()), HASH, None):
        vm = vm_hash.load(deployment, tvm.cpu(), expected=model)
        np.testing.assert_array_equal(vm.run(X).numpy(), expected)
        assert vm.get_hash() == HASH


def test_load_wants_to_be_told_what_to_expect(deployment):
    with pytest.raises(TypeError, match="expected"):
        vm_hash.load(deployment, tvm.cpu())


# A library that tells when it is loaded.
LOADED = '#include <cstdio>\nstruct S { S() { std::fopen("%s", "w"); } } s;\n'


def test_a_deployment_that_is_refused_is_not_loaded(deployment, vm_exec, tmp_path):
    trace = tmp_path / "loaded"
    source = tmp_path / "trace.cc"
    source.write_text(LOADED % trace)
    vm_exec.lib.export_library(str(deployment / "lib.so"), options=[str(source)])
    for expected in (layer(2), "0" * 64):
        with pytest.raises(ModelHashMismatch):
            vm_hash.load(deployment, tvm.cpu(), expected=expected)
        assert not trace.exists()
    seal(deployment)
    (deployment / "hash.txt").write_text("0" * 64)
    with pytest.raises(ValueError, match="hash.txt"):
        vm_hash.load(deployment, tvm.cpu(), expected=None)
    os.unlink(deployment / "SHA256SUMS")
    with pytest.raises(HashConflictError, match="the parts are of different models"):
        vm_hash.load(deployment, tvm.cpu(), expected=None)
    assert not trace.exists()
    (deployment / "hash.txt").write_text(HASH)
    vm_hash.load(deployment, tvm.cpu(), expected=layer())
    assert trace.exists()  # the trace works


# --- late-bound constants ---


def late_bound(model, directory):
    directory.mkdir()
    vm_exec = compile_model(model)
    vm_exec.move_late_bound_consts(str(directory / "consts"), byte_limit=256)
    code, lib = vm_exec.save()
    return bytes(code), lib


def test_constants_of_another_model_are_refused(tmp_path):
    code, lib = late_bound(layer(), tmp_path / "first")
    late_bound(layer(2), tmp_path / "second")
    des_exec = Executable.load_exec(code, lib)
    with pytest.raises(ModelHashMismatch, match="second/consts' are of two models") as raised:
        des_exec.load_late_bound_consts(str(tmp_path / "second/consts"))
    assert raised.value.verdict.found.model == sha256(layer(2))
    des_exec.load_late_bound_consts(str(tmp_path / "first/consts"))
    reference = VirtualMachine(compile_model(layer()), tvm.cpu()).run(X).numpy()
    np.testing.assert_array_equal(VirtualMachine(des_exec, tvm.cpu()).run(X).numpy(), reference)
    by_force = Executable.load_exec(code, lib)
    by_force.load_late_bound_consts(str(tmp_path / "second/consts"), check_hash=False)
    assert np.abs(VirtualMachine(by_force, tvm.cpu()).run(X).numpy() - reference).max() > 0


def test_constants_without_record_load_as_ever(tmp_path):
    code, lib = late_bound(layer(), tmp_path / "first")
    write_record(tmp_path / "first/consts", None, tmp_path / "stock")
    assert read_record(tmp_path / "stock") is None
    Executable.load_exec(code, lib).load_late_bound_consts(str(tmp_path / "stock"))


def test_the_trailer_is_all_that_is_added_to_constants(tmp_path):
    mod, _ = relay.frontend.from_onnx(layer())
    relay.vm.compile(mod, TARGET).move_late_bound_consts(str(tmp_path / "stock"), 256)
    late_bound(layer(), tmp_path / "hashed")
    stock, hashed = (tmp_path / "stock").read_bytes(), (tmp_path / "hashed/consts").read_bytes()
    record = read_record(tmp_path / "hashed/consts")
    assert record.build
    text = str(record).encode()
    assert hashed == stock + len(text).to_bytes(8, "little") + text
    write_record(tmp_path / "hashed/consts", None)
    assert (tmp_path / "hashed/consts").read_bytes() == stock
    write_record(tmp_path / "stock", record)
    assert (tmp_path / "stock").read_bytes() == hashed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data + b"x", "no record"),
        (lambda data: data[:-1], "no record"),
        (lambda data: data[:1000], "truncated"),
        (lambda data: data.replace(b" weights=sha256:", b" weights=sha255:"), "64 lowercase"),
    ],
)
def test_damaged_constants_are_refused(change, message, tmp_path):
    late_bound(layer(), tmp_path / "first")
    path = tmp_path / "first/consts"
    path.write_bytes(change(path.read_bytes()))
    damaged = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        read_record(path)
    with pytest.raises(ValueError, match=message):
        write_record(path, None)
    assert path.read_bytes() == damaged


def test_a_stock_runtime_loads_constants_with_a_record(tmp_path):
    directory = tmp_path / "first"
    code, lib = late_bound(layer(), directory)
    (directory / "code.ro").write_bytes(code)
    lib.export_library(str(directory / "lib.so"))
    printed = run_python(
        """
import sys, json
sys.modules["tvm_model_hash"] = None
import numpy, tvm
from tvm.runtime.vm import Executable, VirtualMachine
d = sys.argv[1]
lib = tvm.runtime.load_module(d + "/lib.so")
exe = Executable.load_exec(open(d + "/code.ro", "rb").read(), lib)
exe.load_late_bound_consts(d + "/consts")
x = numpy.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
print(json.dumps(VirtualMachine(exe, tvm.cpu()).run(x).numpy().tolist()))
""",
        directory,
        env={"TVM_MODEL_HASH": "0"},
    ).stdout
    expected = VirtualMachine(compile_model(layer()), tvm.cpu()).run(X).numpy()
    assert json.loads(printed) == expected.tolist()
