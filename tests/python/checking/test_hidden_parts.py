# SPDX-License-Identifier: Apache-2.0
"""What runs or holds weights is not hidden from a check: not by a link, an archive, a name, or by
what else a file is."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tvm
from checking.test_coverage import network
from tvm import relay
from tvm.contrib import tvmjs
from tvm.runtime import vm_hash
from tvm.runtime.vm import Executable

from tvm_model_hash import (
    ArtifactError,
    RecordError,
    Status,
    check,
    read_artifact,
    read_record,
    write_record,
)

TARGET = "llvm"


def compile_network(get_hash=True, **variant):
    mod, params = relay.frontend.from_onnx(network(**variant), get_hash=get_hash)
    return relay.vm.compile(mod, TARGET, params=params)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A deployment with constants apart, and beside it a single file of another, stock network."""
    root = tmp_path_factory.mktemp("made")
    vm_hash.save(compile_network(), root / "deployment", 256, seal=False)
    compile_network(False, scale=2.0).mod.export_library(str(root / "stock.so"))
    return root


@pytest.fixture
def deployment(made, tmp_path):
    shutil.copytree(made / "deployment", tmp_path / "deployment")
    assert check(network(), tmp_path / "deployment").status is Status.MATCH
    return tmp_path / "deployment"


def pack(archive, *paths, mode="w"):
    with tarfile.open(archive, mode) as file:
        for path in paths:
            file.add(path, path.name)
    return archive


def foreign_weights(directory):
    return {
        name: np.ones((4, 4), "float32") for name in read_artifact(directory / "consts").tensors
    }


def check_hidden(directory, name):
    verdict = check(network(), directory)
    assert verdict.status is Status.NO_RECORD, verdict
    assert repr(name) in verdict.reason


def test_constants_that_were_bound_uncompared_are_no_match_after_saving(deployment):
    library = tvm.runtime.load_module(str(deployment / "lib.so"))
    exe = Executable.load_exec((deployment / "code.ro").read_bytes(), library)
    constants = compile_network(scale=2.0).get_late_bound_consts(256)
    exe.load_late_bound_consts_from_map(constants)
    assert check(network(), exe).status is Status.NO_RECORD
    (deployment / "code.ro").write_bytes(exe.save()[0])
    (deployment / "consts").unlink()
    for act in (
        lambda: check(network(), deployment),
        lambda: vm_hash.load(deployment, tvm.cpu(), network()),
    ):
        with pytest.raises(RecordError, match=r"1 constants .* and 0 are: others were bound"):
            act()


def test_constants_that_were_bound_uncompared_are_not_saved(tmp_path):
    constants = compile_network(scale=2.0).get_late_bound_consts(256)
    exe = compile_network()
    exe.get_late_bound_consts(256)
    exe.load_late_bound_consts_from_map(constants)
    with pytest.raises(RecordError, match="others were bound"):
        vm_hash.save(exe, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    exe.mod.export_library(str(tmp_path / "single.so"))
    with pytest.raises(RecordError, match="others were bound"):
        check(network(), tmp_path / "single.so")


@pytest.mark.parametrize("what", ["a directory", "an archive", "a damaged part"])
def test_a_link_out_of_the_directory_hides_nothing(what, made, deployment, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(made / "stock.so", elsewhere)
    targets = {
        "a directory": elsewhere,
        "an archive": pack(tmp_path / "package.tar", elsewhere / "stock.so"),
        "a damaged part": tmp_path / "cut.so",
    }
    targets["a damaged part"].write_bytes((made / "stock.so").read_bytes()[:3000])
    (deployment / "link").symlink_to(targets[what])
    expected = "link' is truncated|link' is damaged" if what == "a damaged part" else "a symbolic"
    with pytest.raises(ArtifactError, match=expected):
        check(network(), deployment)


def test_a_link_to_what_is_no_part_is_no_matter(deployment, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\n")
    (deployment / "labels.txt").symlink_to(tmp_path / "labels.txt")
    (deployment / "nowhere").symlink_to(tmp_path / "none")
    assert check(network(), deployment).status is Status.MATCH


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_in_an_archive_hides_nothing(mode, made, deployment, tmp_path):
    inner = pack(tmp_path / "inner.tar", made / "stock.so", mode=mode)
    pack(deployment / "outer.tar", inner)
    with pytest.raises(ArtifactError, match="'outer.tar/inner.tar' is an archive in an archive"):
        check(network(), deployment)


@pytest.mark.parametrize("beside", [True, False])
def test_nothing_is_loaded_from_an_archive(beside, deployment):
    pack(deployment / "package.tar", *sorted(deployment.iterdir()))
    if not beside:
        for name in ("code.ro", "lib.so", "consts"):
            (deployment / name).unlink()
    assert check(network(), deployment).status is Status.MATCH
    with pytest.raises(ArtifactError, match="'package.tar/.*' .* lies in an archive"):
        vm_hash.load(deployment, tvm.cpu(), network())


@pytest.mark.parametrize("first", [True, False])
def test_weights_in_npz_are_not_hidden_by_another_file_in_it(first, deployment):
    weights = foreign_weights(deployment)
    with zipfile.ZipFile(deployment / "w.npz", "w") as archive:
        files = [("readme.txt", b"hello")]
        for name, array in weights.items():
            data = io.BytesIO()
            np.save(data, array)
            files.append((f"{name}.npy", data.getvalue()))
        for name, data in files if first else reversed(files):
            archive.writestr(name, data)
    with np.load(deployment / "w.npz") as arrays:
        assert all((arrays[name] == 1).all() for name in weights)
    check_hidden(deployment, "w.npz")
    write_record(deployment / "w.npz", read_record(deployment / "consts"))
    assert check(network(), deployment).status is Status.MATCH


@pytest.mark.parametrize(
    "change",
    [
        lambda text: " " * 300 + text,
        lambda text: text.replace("{", "{" + " " * 300, 1),
        lambda text: text.replace("{", '{"model": "m", ', 1),
        lambda text: text.replace('"metadata"', '"meta\\u0064ata"', 1),
    ],
    ids=["space before", "space inside", "another key first", "escaped key"],
)
def test_a_tensor_cache_is_not_hidden_by_the_layout_of_its_json(change, deployment):
    weights = foreign_weights(deployment)
    tvmjs.dump_ndarray_cache(weights, str(deployment), show_progress=False)
    (deployment / "ndarray-cache-b16.json").unlink()
    path = deployment / "ndarray-cache.json"
    path.write_text(change(path.read_text()))
    assert set(tvmjs.load_ndarray_cache(str(path), tvm.cpu())[0]) == set(weights)
    check_hidden(deployment, path.name)


def test_a_tensor_cache_behind_a_byte_order_mark_is_an_error(deployment):
    """Browsers drop it, and read what is behind."""
    tvmjs.dump_ndarray_cache(foreign_weights(deployment), str(deployment), show_progress=False)
    path = deployment / "ndarray-cache.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(ArtifactError, match="ndarray-cache.json' is damaged: it is not valid JSON"):
        check(network(), deployment)


def test_other_json_is_no_part(deployment):
    for index, text in enumerate(
        ["{}", "", " " * 300, '{"a": 1}', '{"a": ', json.dumps({"a": 1, "records": []})]
    ):
        (deployment / f"{index}.json").write_text(text)
    assert check(network(), deployment).status is Status.MATCH


def make_tar_of_library(path):
    """Make a library a tar archive too: TVM unpacks it if it is called .tar, or else loads it."""
    data = bytearray(path.read_bytes())
    table, count = int.from_bytes(data[32:40], "little"), int.from_bytes(data[56:58], "little")
    assert table == 64
    assert table + 56 * count >= 512
    # The table of segments, which lies where a tar has its first header, moves to the end.
    data[32:40] = len(data).to_bytes(8, "little")
    data += data[table : table + 56 * count]
    data += bytes(-len(data) % 512)
    header = tarfile.TarInfo("x")
    header.size = len(data) - 512
    block = bytearray(header.tobuf())
    block[:64] = data[:64]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(block + data[512:] + bytes(1024))


def test_a_file_that_is_a_tar_and_a_library_is_refused(deployment):
    path = deployment / "lib.so"
    make_tar_of_library(path)
    tvm.runtime.load_module(str(path))
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 1
    with pytest.raises(ArtifactError, match="is a tar archive and a shared library"):
        check(network(), deployment)


def test_a_tar_in_which_a_file_replaces_another_is_refused(deployment):
    exe = compile_network()
    path = deployment.parent / "single.tar"
    exe.mod.export_library(str(path))
    assert check(network(), path).status is Status.MATCH
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    members_again = [*members.items(), ("lib0.o", members["devc.o"])]
    with tarfile.open(path, "w") as archive:
        for name, data in members_again:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ArtifactError, match="it has two files 'lib0.o'"):
        check(network(), path)


def test_records_of_one_model_with_other_digests_contradict_each_other(deployment):
    record = read_record(deployment / "consts")
    for key in ("graph", "weights"):
        write_record(deployment / "consts", replace(record, **{key: "0" * 64}))
        verdict = check(network(), deployment)
        assert verdict.status is Status.MISMATCH
        assert f"'consts' is of {key} {'0' * 64}" in verdict.reason


def test_parameters_that_are_numbered_are_of_one_compilation_too(deployment):
    """Names that count up are taken in their order; what the record says of them counts."""
    record = read_record(deployment / "consts")
    (deployment / "consts").unlink()
    np.savez(deployment / "w.npz", p_0=np.ones((32, 16), "float32"))
    write_record(deployment / "w.npz", record)
    assert check(network(), deployment).status is Status.MATCH
    write_record(deployment / "w.npz", record.with_fields("0" * 32))
    verdict = check(network(), deployment)
    assert verdict.status is Status.MISMATCH
    assert "two compilations of this model" in verdict.reason


def test_a_named_pipe_does_not_stop_a_check(deployment):
    os.mkfifo(deployment / "more.so")
    assert check(network(), deployment).status is Status.MATCH
