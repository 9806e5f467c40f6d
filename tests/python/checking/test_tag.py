# SPDX-License-Identifier: Apache-2.0
"""Deployments of stock TVM that get the record of the model that they were compiled from."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import safetensors.numpy
import tvm
from conftest import sha256
from tvm import relay
from tvm.contrib import tvmjs

from tvm_model_hash import (
    ArtifactError,
    BrokenSealError,
    FixedRecordError,
    HashConflictError,
    OutputError,
    Record,
    SealError,
    Status,
    UnknownArtifactError,
    check,
    model_record,
    read_record,
    seal,
    tag,
    verify_seal,
    write_record,
)
from tvm_model_hash.checking import tagging
from tvm_model_hash.cli import main


def arrays(head=1.0, table=1.0):
    values = np.linspace(-1, 1, 512, dtype="float32")
    return {
        "table": values.reshape(64, 8) * np.float32(table),
        "w": values[:128].reshape(8, 16) * np.float32(head),
        "b": values[:16] + np.float32(head),
    }


def network(**scales):
    """A table, and a layer behind it; TVM transposes the layer's weights, and no others."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["table", "ids"], ["e"], name="gather"),
            onnx.helper.make_node("MatMul", ["e", "w"], ["y"], name="matmul"),
            onnx.helper.make_node("Add", ["y", "b"], ["z"], name="add"),
        ],
        "network",
        [value("ids", onnx.TensorProto.INT64, [4])],
        [value("z", onnx.TensorProto.FLOAT, [4, 16])],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays(**scales).items()],
    )
    opset = onnx.helper.make_opsetid("", 15)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What stock TVM writes for the VM and the graph executor, and models."""
    directory = tmp_path_factory.mktemp("stock")
    onnx.save(network(), directory / "model.onnx")
    onnx.save(network(head=2), directory / "tuned.onnx")
    onnx.save(
        network(),
        directory / "external.onnx",
        save_as_external_data=True,
        location="external.data",
        size_threshold=0,
    )
    mod, _ = relay.frontend.from_onnx(network(), freeze_params=True)
    vm_exec = relay.vm.compile(mod, "llvm")
    (directory / "vm").mkdir()
    vm_exec.move_late_bound_consts(str(directory / "vm/consts"), byte_limit=16)
    code, library = vm_exec.save()
    (directory / "vm/code.ro").write_bytes(code)
    library.export_library(str(directory / "vm/lib.so"))
    factory = relay.build(mod, "llvm")
    (directory / "graph").mkdir()
    factory.get_lib().export_library(str(directory / "graph/lib.so"))
    (directory / "graph/graph.json").write_text(factory.get_graph_json())
    (directory / "graph/params").write_bytes(relay.save_param_dict(factory.get_params()))
    tensors = {name: array.numpy() for name, array in factory.get_params().items()}
    np.savez_compressed(directory / "params.npz", **tensors)
    factory.export_library(str(directory / "single.so"))
    return directory


@pytest.fixture
def directory(written, tmp_path, monkeypatch):
    copy = shutil.copytree(written, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


def contents(directory):
    return {
        os.path.join(where, name): open(os.path.join(where, name), "rb").read()
        for where, _, names in os.walk(directory)
        for name in names
    }


@pytest.mark.parametrize("model", ["model.onnx", "external.onnx"])
@pytest.mark.parametrize(
    ("deployment", "parts", "weights"),
    [("vm", ("code.ro", "consts"), "consts"), ("graph", ("graph.json", "params"), "params")],
)
def test_a_stock_deployment_becomes_one_of_its_model(model, deployment, parts, weights, directory):
    assert check(model, deployment).status is Status.NO_RECORD
    tagged = tag(deployment, model)
    assert (tagged.path, tagged.record) == (f"{deployment}/SHA256SUMS", model_record(model))
    assert (tagged.parts, tagged.by_seal) == (parts, ("lib.so",))
    assert [read_record(f"{deployment}/{name}") for name in parts] == [tagged.record] * 2
    assert [(w.name, w.tensors, w.unchanged, w.changed) for w in tagged.weights] == [
        (weights, 3, 2, ())
    ]
    assert str(tagged.weights[0]) == "2 of 3 tensors are the model's weights, unchanged"
    verdict = check(model, deployment, sealed=True)
    assert verdict.status is Status.MATCH
    assert check("tuned.onnx", deployment).status is Status.MISMATCH
    before = contents(deployment)
    assert tag(deployment, model) == tagged
    assert contents(deployment) == before


def test_a_tagged_deployment_runs_in_a_stock_tvm(directory):
    tag("graph", "model.onnx")
    code = """
import numpy as np, tvm
from tvm.contrib import graph_executor
library = tvm.runtime.load_module("graph/lib.so")
made = graph_executor.create(open("graph/graph.json").read(), library, tvm.cpu())
made.load_params(open("graph/params", "rb").read())
made.set_input("ids", np.arange(4))
made.run()
print(made.get_output(0).numpy().sum())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TVM_MODEL_HASH": "0"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    found = arrays()
    expected = (found["table"][:4] @ found["w"] + found["b"]).sum()
    assert float(result.stdout) == pytest.approx(expected, rel=1e-5)


def write_npz(path, tensors):
    np.savez(path, **tensors)


def write_compressed(path, tensors):
    np.savez_compressed(path, **tensors)


def write_safetensors(path, tensors):
    safetensors.numpy.save_file(tensors, path)


def write_tvm(path, tensors):
    nd = {name: tvm.nd.array(array) for name, array in tensors.items()}
    path.write_bytes(relay.save_param_dict(nd))


def write_cache(path, tensors):
    path.mkdir()
    tvmjs.dump_ndarray_cache(tensors, str(path), encode_format="raw", show_progress=False)
    return path / "ndarray-cache.json"


WRITERS = [write_npz, write_compressed, write_safetensors, write_tvm, write_cache]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
def test_weights_are_compared_by_content(write, directory):
    tensors = {
        "table": arrays()["table"],
        "other name": arrays()["b"],
        "w": np.ascontiguousarray(arrays()["w"].T),  # another shape: it may be the same
        "b": arrays()["b"].astype("float64"),  # and so may this
    }
    path = directory / "weights.npz"
    path = write(path, tensors) or path
    [weights] = tag(path, "model.onnx").weights
    assert (weights.tensors, weights.unchanged, weights.changed) == (4, 2, ())
    write_record(path, None)
    [weights] = tag(path, onnx.load("tuned.onnx")).weights  # of which only the table is the same
    assert (weights.tensors, weights.unchanged, weights.changed) == (4, 1, ())


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
def test_other_weights_of_the_same_names_are_refused(write, directory):
    path = directory / "weights.npz"
    path = write(path, arrays()) or path
    before = path.read_bytes()
    with pytest.raises(HashConflictError) as caught:
        tag(path, "tuned.onnx")
    assert "'w', 'b' are called as ones of the model's weights" in str(caught.value) or (
        "'b', 'w' are called as ones of the model's weights" in str(caught.value)
    )
    assert "(1 of 3 tensors is the model's weights, unchanged)" in str(caught.value)
    assert path.read_bytes() == before
    [weights] = tag(path, "tuned.onnx", force=True).weights
    assert sorted(weights.changed) == ["b", "w"]
    assert read_record(path) == model_record("tuned.onnx")


def test_nothing_that_could_be_compared_is_said(directory):
    np.savez("weights.npz", a=np.zeros((3, 3), "float32"), b=np.zeros(2, "float32"))
    [weights] = tag("weights.npz", "model.onnx").weights
    assert str(weights) == "none of 2 tensors is one of the model's weights, unchanged"
    # Nor is it known what a hash is of.
    assert tag("weights.npz", sha256(network())).weights == ()


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(arrays()["w"]),
        arrays()["w"].astype(">f4"),
        np.array([object(), None], dtype=object),
        np.array(["a"]),
        np.zeros(3, [("größe 中", "f4")]),
    ],
    ids=["order of the indices", "byte order", "objects", "text", "a header of another version"],
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_arrays_that_are_stored_in_another_way_are_not_compared(array, directory):
    np.savez("weights.npz", w=array)
    [weights] = tag("weights.npz", "model.onnx").weights
    assert (weights.tensors, weights.unchanged, weights.changed) == (1, 0, ())


def test_an_array_that_cannot_be_unpacked_is_an_error(directory):
    np.savez_compressed("weights.npz", table=arrays()["table"])
    with open("weights.npz", "r+b") as file:
        data = file.read()
        file.seek(data.index(b"table.npy") + 60)
        file.write(b"\xff" * 20)
    before = contents(".")
    with pytest.raises(ArtifactError, match="cannot read the arrays in 'weights.npz'"):
        tag("weights.npz", "model.onnx")
    assert contents(".") == before


# --- records that are there ---


def test_what_is_known_of_the_same_model_is_kept(directory):
    fields = (("build", "1" * 32), ("tvm", "0.19.0"))
    record = Record(sha256(network()), "a" * 64, "b" * 64, fields)
    write_record("vm/code.ro", record)
    tag("vm/code.ro", record.model)
    assert read_record("vm/code.ro") == record
    tag("vm", record.model)
    assert read_record("vm/code.ro") == record
    assert read_record("vm/consts") == Record(record.model)
    assert check(record.model, "vm").status is Status.MATCH


@pytest.mark.parametrize("where", ["code.ro", "consts", "hash.txt", "SHA256SUMS"])
def test_the_record_of_another_model_is_not_replaced_unasked(where, directory):
    other = model_record("tuned.onnx")
    if where == "hash.txt":
        (directory / "vm/hash.txt").write_text(other.model)
    elif where == "SHA256SUMS":
        tag("vm", other, force=True)
        write_record("vm/code.ro", None)
        write_record("vm/consts", None)
        text = (directory / "vm/SHA256SUMS").read_text()
        seal("vm")
        new = (directory / "vm/SHA256SUMS").read_text().replace("record: none", f"record: {other}")
        assert f"# record: {other}\n" in text
        body = new.rpartition("# sha256 of")[0]
        digest = hashlib.sha256(body.encode()).hexdigest()
        (directory / "vm/SHA256SUMS").write_text(f"{body}# sha256 of the lines above: {digest}\n")
        assert verify_seal("vm").record == other
    else:
        write_record(f"vm/{where}", other)
        if where == "consts":
            with pytest.raises(HashConflictError, match="another model is in it"):
                tag("vm/consts", "model.onnx")
            with pytest.raises(HashConflictError, match="another model is in it"):
                tag("vm/consts", "model.onnx", output="new")
    before = contents(".")
    with pytest.raises(HashConflictError, match=f"another model is in '{where}'. If it is known"):
        tag("vm", "model.onnx")
    assert contents(".") == before
    tag("vm", "model.onnx", force=True)
    assert check("model.onnx", "vm", sealed=True).status is Status.MATCH


def test_what_a_library_says_is_not_overruled(written, directory):
    mod, _ = relay.frontend.from_onnx(network(head=2), freeze_params=True, get_hash=True)
    relay.build(mod, "llvm").get_lib().export_library("graph/lib.so")
    before = contents(".")
    for force in (False, True):
        with pytest.raises(HashConflictError, match=r"in 'lib.so', where it can't be changed"):
            tag("graph", "model.onnx", force=force)
    assert contents(".") == before
    tag("graph", "tuned.onnx")
    assert check("tuned.onnx", "graph").status is Status.MATCH


def test_parts_of_two_compilations_are_refused_before_anything_is_written(directory):
    record = Record(sha256(network()))  # to which the other digests would be added
    for name, build in (("graph.json", "1"), ("params", "2")):
        write_record(f"graph/{name}", record.with_fields(build * 32))
    before = contents(".")
    with pytest.raises(HashConflictError, match="two compilations"):
        tag("graph", "model.onnx")
    assert contents(".") == before


def test_without_a_place_for_a_record_there_is_nothing_to_tag(directory):
    os.mkdir("lone")
    shutil.copy("single.so", "lone")
    for path in ("lone", "single.so"):
        before = contents(".")
        with pytest.raises(FixedRecordError):
            tag(path, "model.onnx")
        assert contents(".") == before


def test_an_archive_is_to_be_unpacked(directory):
    subprocess.run(["tar", "-czf", "package.tgz", "graph"], check=True)
    with pytest.raises(UnknownArtifactError, match="unpack it into a directory"):
        tag("package.tgz", "model.onnx")
    with pytest.raises(UnknownArtifactError, match="not an artifact"):
        tag("model.onnx", "model.onnx")


# --- the directory ---


def test_what_cannot_be_sealed_is_not_tagged(directory):
    def refuses(error, match):
        before = contents("vm")
        with pytest.raises(error, match=match):
            tag("vm", "model.onnx")
        assert contents("vm") == before

    os.symlink("code.ro", "vm/link")
    refuses(SealError, "symbolic link")
    os.unlink("vm/link")
    (directory / "vm/SHA256SUMS").write_text("0" * 64 + "  a\n")
    refuses(SealError, "did not write")
    os.unlink("vm/SHA256SUMS")
    os.rename("vm/lib.so", "lib.so")
    refuses(ArtifactError, "incomplete")
    with pytest.raises(OutputError, match="is a directory, whose files are replaced"):
        tag("graph", "model.onnx", output="elsewhere")
    with pytest.raises(ArtifactError, match="No such file"):
        tag("missing", "model.onnx")


def test_a_broken_seal_is_only_replaced_when_asked(directory):
    (directory / "vm/notes.log").write_text("")
    seal("vm", ["*.log"])
    with open("vm/lib.so", "ab") as file:
        file.write(b"\0")
    before = contents("vm")
    with pytest.raises(BrokenSealError, match="'tag' that was interrupted, force it") as caught:
        tag("vm", "model.onnx")
    assert caught.value.changed == ("lib.so",)
    assert contents("vm") == before
    tag("vm", "model.onnx", force=True)
    assert verify_seal("vm", strict=True).ignored == ("*.log",)
    (directory / "vm/SHA256SUMS").write_text((directory / "vm/SHA256SUMS").read_text()[:-1])
    tag("vm", "model.onnx", force=True)
    assert verify_seal("vm").ignored == ()
    # What is incomplete can't be sealed again, whoever asks.
    os.unlink("vm/lib.so")
    for name in ("code.ro", "consts"):
        write_record(f"vm/{name}", None)
    before = contents("vm")
    with pytest.raises(ArtifactError, match="incomplete"):
        tag("vm", "model.onnx", force=True)
    assert contents("vm") == before


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_an_interruption_leaves_whole_files_and_no_false_seal(
    survivors, sealed, directory, monkeypatch
):
    if sealed:
        seal("vm")
    before = contents("vm")
    shutil.copytree("vm", "whole")
    tag("whole", "model.onnx")
    after = {name.replace("whole", "vm"): data for name, data in contents("whole").items()}
    steps = iter(range(survivors))
    real_write, real_seal = write_record, seal

    def interrupted(function):
        def run(*arguments):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return function(*arguments)

        return run

    monkeypatch.setattr(tagging, "write_record", interrupted(real_write))
    monkeypatch.setattr(tagging, "seal", interrupted(real_seal))
    with pytest.raises(KeyboardInterrupt):
        tag("vm", "model.onnx")
    monkeypatch.undo()
    monkeypatch.chdir(directory)
    left = contents("vm")
    assert left.keys() == before.keys()
    assert sum(left[name] == after[name] != before[name] for name in left) == survivors
    assert all(left[name] in (before[name], after[name]) for name in left)
    assert check("model.onnx", "vm").status is (
        Status.BROKEN_SEAL if sealed and survivors else Status.NO_RECORD
    )
    tag("vm", "model.onnx", force=sealed)
    assert contents("vm") == after


def test_a_file_that_changes_meanwhile_is_noticed(directory, monkeypatch):
    compare = tagging.Comparison.compare

    def change(*arguments):
        with open("vm/lib.so", "ab") as file:
            file.write(b"\0")
        return compare(*arguments)

    monkeypatch.setattr(tagging.Comparison, "compare", change)
    with pytest.raises(SealError, match="changed meanwhile"):
        tag("vm", "model.onnx")
    assert read_record("vm/code.ro") is None


def test_shards_stay_as_they_are(directory):
    """A shard has no place for a record, whatever it looks like."""
    os.remove("graph/params")
    with np.load("params.npz") as tensors:
        tvmjs.dump_ndarray_cache(dict(tensors), "graph", encode_format="raw", show_progress=False)
    before = contents("graph")
    tagged = tag("graph", "model.onnx")
    assert tagged.by_seal == ("lib.so", "params_shard_0.bin")
    assert tagged.weights[0].unchanged == 2
    assert contents("graph")["graph/params_shard_0.bin"] == before["graph/params_shard_0.bin"]
    assert check("model.onnx", "graph").status is Status.MATCH


def test_a_shard_that_looks_like_parameters_is_a_shard(directory):
    """To put a record behind it would make it larger than its cache says."""
    with np.load("params.npz") as tensors:
        shapes = {name: array.shape for name, array in tensors.items()}
    places = [
        {"name": name, "shape": shape, "dtype": "float32", "byteOffset": 0, "nbytes": 4}
        for name, shape in shapes.items()
    ]
    shard = {
        "dataPath": "params",
        "format": "raw-shard",
        "nbytes": os.path.getsize("graph/params"),
        "records": places,
    }
    cache = {"metadata": {}, "records": [shard]}
    (directory / "graph/tensor-cache.json").write_text(json.dumps(cache))
    before = contents("graph")
    assert "params" in tag("graph", "model.onnx").by_seal
    assert contents("graph")["graph/params"] == before["graph/params"]
    assert check("model.onnx", "graph").status is Status.MATCH


# --- the command ---


def test_the_command(directory, capsys):
    record = model_record("model.onnx")
    digests = f"model    {record.model}\ngraph    {record.graph}\nweights  {record.weights}\n"
    assert main(["tag", "graph", "--model", "model.onnx"]) == 0
    assert capsys.readouterr().out == (
        f"graph/SHA256SUMS:\n{digests}"
        "tagged   graph.json\ntagged   params\nby seal  lib.so: its record can't be changed\n"
        "params: 2 of 3 tensors are the model's weights, unchanged\n"
    )
    assert main(["tag", "params.npz", "--model", "model.onnx"]) == 0
    assert capsys.readouterr().out == (
        f"params.npz:\n{digests}2 of 3 tensors are the model's weights, unchanged\n"
    )
    assert main(["tag", "graph", "--model", "tuned.onnx"]) == 2
    assert "the record of another model is in" in capsys.readouterr().err
    assert main(["tag", "graph", "--model", "tuned.onnx", "--force", "--json"]) == 0
    [result] = json.loads(capsys.readouterr().out)["results"]
    assert result == {
        **{"path": "graph/SHA256SUMS", "status": "done", "exit_status": 0},
        **{"reason": None, "error": None, "record": model_record("tuned.onnx").to_dict()},
        **{"tagged": ["graph.json", "params"], "by_seal": ["lib.so"]},
        "weights": [{"name": "params", "tensors": 3, "unchanged": 1, "changed": []}],
    }
    assert main(["check", "tuned.onnx", "graph"]) == 0
