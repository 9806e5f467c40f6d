# SPDX-License-Identifier: Apache-2.0
"""A store of models in S3: listed, told apart, and read by parts."""

import json
import re
import shlex
import types

import numpy as np
import pytest
import tvm
from conftest import ROOT
from tvm.runtime import vm_hash

from tvm_model_hash import (
    ModelHashMismatch,
    OutputError,
    RemoteError,
    Status,
    check,
    model_record,
    read_artifact,
    verify_seal,
)
from tvm_model_hash.checking.deployment import list_files
from tvm_model_hash.cli import main
from tvm_model_hash.files import expand, one_version, open_regular, state_of


def put_tree(s3, directory, key):
    for path in directory.rglob("*"):
        if path.is_file():
            s3.put(f"{key}/{path.relative_to(directory)}", path)


def test_a_whole_store(s3, stored, capsys):
    def command(*arguments):
        status = main(list(arguments))
        return types.SimpleNamespace(returncode=status, **capsys.readouterr()._asdict())

    put_tree(s3, stored / "models", "models")
    s3.put("good.onnx", stored / "good.onnx")
    done = command("check", "--json", "s3://bucket/good.onnx", "s3://bucket/models/*")
    results = {r["path"]: r["status"] for r in json.loads(done.out)["results"]}
    assert results == {
        "s3://bucket/models/bad": "error",
        "s3://bucket/models/foreign": "mismatch",
        "s3://bucket/models/good": "match",
    }
    assert done.returncode == 1
    done = command("check", "--consistent", "s3://bucket/models/*")
    assert done.returncode == 2
    rows = done.out.splitlines()
    assert [row.split()[0] for row in rows[:3]] == ["error", "match", "match"]
    assert "3 artifacts: 1 error, 2 match" in rows[-1]
    assert command("check", "--consistent", "s3://bucket/models/[fg]*").returncode == 0
    done = command("check", "--consistent", "s3://bucket/none/*")
    assert done.returncode == 2
    assert "there is nothing" in done.out + done.err


def test_the_commands_that_the_documentation_shows(s3, stored, store, monkeypatch, capsys):
    put_tree(s3, stored / "models" / "good", "models/good")
    monkeypatch.chdir(stored)
    text = (ROOT / "docs/urls.md").read_text()
    commands = re.findall(r"^tvm-model-hash (.*://.*?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        here = command.replace("https://models.example/deployment/", store.of("models/good/"))
        here = here.replace("model.onnx", "good.onnx")
        assert main(shlex.split(here)) == 0, capsys.readouterr()


def test_a_library_is_told_of_by_few_requests(s3, stored):
    import artifacts

    s3.put("large.so", artifacts.build() / "big" / "single.so")
    assert read_artifact("s3://bucket/large.so").record
    s3.requests.clear()
    hash_ = read_artifact(stored / "files" / "single.so").record.model
    assert check(hash_, "s3://bucket/large.so").status is Status.MISMATCH
    assert 3 <= len(s3.requests) < 20
    assert len([line for line in s3.requests if '"GET' in line]) <= 4


def test_seals_models_and_archives(s3, stored):
    put_tree(s3, stored / "sealed", "sealed")
    for name in ("external.onnx", "weights of it.bin", "package.tar", "package.tar.gz"):
        s3.put(name, stored / name)
    assert len(verify_seal("s3://bucket/sealed").files) == 3
    assert model_record("s3://bucket/external.onnx") == model_record(stored / "external.onnx")
    for name in ("sealed", "sealed/", "package.tar", "package.tar.gz"):
        verdict = check("s3://bucket/external.onnx", f"s3://bucket/{name}")
        assert verdict.ok, verdict
        assert not any("list" in remark for remark in verdict.remarks)
    s3.put("sealed/lib.so", stored / "files" / "single.so")
    assert check(stored / "good.onnx", "s3://bucket/sealed").status is Status.BROKEN_SEAL


def test_names_are_what_they_are(s3, stored):
    odd = "a b/#c?d%20é&+'[x]/l::ib.so"
    s3.put(f"store/{odd}", stored / "files" / "single.so")
    s3.put("store/", b"")  # what a console makes for a directory
    s3.put("storeroom/lib.so", stored / "files" / "code.ro")
    assert list_files("s3://bucket/store") == {odd: f"s3://bucket/store/{odd}"}
    assert read_artifact(f"s3://bucket/store/{odd}").record
    assert expand("s3://bucket/store*") == ["s3://bucket/store", "s3://bucket/storeroom"]
    assert expand("s3://bucket/store/*/*/l*") == [f"s3://bucket/store/{odd}"]
    assert expand("s3://bucket/st*/lib.so") == ["s3://bucket/storeroom/lib.so"]
    assert expand("s3://bucket/[x]") == ["s3://bucket/[x]"]


@pytest.mark.parametrize("key", ["store//lib.so", "store/../lib.so", "store/a/./lib.so"])
def test_a_name_that_no_file_can_have_is_not_passed_over(s3, stored, key):
    put_tree(s3, stored / "models" / "good", "store")
    s3.put(key, stored / "files" / "single.so")
    with pytest.raises(RemoteError, match="no name of a file"):
        check(stored / "good.onnx", "s3://bucket/store")


def test_an_object_that_is_replaced_while_it_is_read(s3, stored):
    data = (stored / "files" / "single.so").read_bytes()
    s3.put("lib.so", data + b"\0" * (1 << 20))
    with open_regular("s3://bucket/lib.so") as file:
        file.read(10)
        s3.put("lib.so", data + b"\1" * (1 << 20))
        file.seek(1 << 20)
        with pytest.raises(RemoteError, match="changed while it was read, from .* ETag"):
            file.read(10)
    # All that is read is at hand by then, and still it is looked for at the end.
    with pytest.raises(RemoteError, match="changed while it was read"), one_version():  # noqa: PT012
        assert read_artifact("s3://bucket/lib.so").record
        s3.put("lib.so", data)
    with open_regular("s3://bucket/lib.so") as file:
        before = state_of(file)
        s3.put("lib.so", data + b"x")
        with pytest.raises(RemoteError, match="changed"):
            assert state_of(file) == before


def test_errors(s3, stored, monkeypatch):
    for url in ("s3://bucket/none", "s3://none/x", "s3://bucket/none/"):
        with pytest.raises(RemoteError, match=f"cannot read '{url}': there is nothing"):
            read_artifact(url)
    s3.put("x/lib.so", stored / "files" / "single.so")
    with pytest.raises(RemoteError, match="it is a directory"):
        read_artifact("s3://bucket/x")
    with pytest.raises(RemoteError, match="Protocol not known: nothing"):
        read_artifact("nothing://bucket/x")


def test_any_other_file_system_that_fsspec_knows(stored):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in (stored / "sealed").iterdir():
        memory.pipe(f"/d/{path.name}", path.read_bytes())
    memory.pipe("/external.onnx", (stored / "external.onnx").read_bytes())
    memory.pipe("/weights of it.bin", (stored / "weights of it.bin").read_bytes())
    try:
        assert check("memory://external.onnx", "memory://d").ok
        assert expand("memory://*.onnx") == ["memory://*.onnx"]  # there is no directory in it
        assert [url.rsplit("/", 1)[1] for url in expand("memory://d/l*")] == ["lib.so"]
        with pytest.raises(RemoteError, match="changed while it was read"), one_version():  # noqa: PT012
            assert read_artifact("memory://d/lib.so").record
            memory.pipe("/d/lib.so", (stored / "sealed" / "lib.so").read_bytes())
    finally:
        memory.store.clear()


def test_what_lies_there_can_be_loaded(s3, stored):
    put_tree(s3, stored / "sealed", "sealed")
    s3.put("good.onnx", stored / "good.onnx")
    vm = vm_hash.load("s3://bucket/sealed", tvm.cpu(), expected="s3://bucket/good.onnx")
    x, b = np.ones((1, 16), "float32"), np.zeros((1, 32), "float32")
    np.testing.assert_allclose(vm.run(x, b).numpy(), np.full((1, 32), 16, "float32"))
    with pytest.raises(ModelHashMismatch):
        vm_hash.load("s3://bucket/sealed", tvm.cpu(), expected=stored / "foreign.onnx")
    with pytest.raises(OutputError, match="cannot write 's3://bucket/new': it is a URL"):
        vm_hash.save(_executable(), "s3://bucket/new")


def _executable():
    import artifacts

    return artifacts.compile_model(artifacts.dense(np.ones((16, 32))), get_hash=True)
