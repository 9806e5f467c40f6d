# SPDX-License-Identifier: Apache-2.0
"""The command, as a shell and a pipeline see it."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys

import onnx
import pytest
from conftest import NETWORKS, on_a_terminal, sha256
from tvm import relay
from tvm.runtime import vm_hash

from tvm_model_hash import Record, model_record, read_record

MACHINE = platform.machine()
COMMAND = os.path.join(os.path.dirname(sys.executable), "tvm-model-hash")
NETWORK = NETWORKS["magika"]


def run(*arguments, cwd, **env):
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **env},
        check=False,
        text=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A directory with models and what was compiled from the first."""
    directory = tmp_path_factory.mktemp("cli")
    model = onnx.load(NETWORK.path)
    shutil.copy(NETWORK.path, directory / "model.onnx")
    mod, _ = relay.frontend.from_onnx(model, NETWORK.shape, get_hash=True)
    vm_exec = relay.vm.compile(mod, "llvm")
    vm_hash.save(vm_exec, directory / "deployment", byte_limit=1024)
    vm_exec.mod.export_library(str(directory / "single.so"))
    vm_exec.mod.export_library(str(directory / "single.tar"))
    model = onnx.load(NETWORK.path)
    model.producer_name = "another"
    onnx.save(model, directory / "same.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, directory / "tuned.onnx")
    (directory / "big.txt").write_text(weight.name)
    return directory


@pytest.fixture
def directory(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


@pytest.fixture(scope="module")
def record(original):
    return model_record(original / "model.onnx")


def digests(record):
    fields = [("model", record.model), ("graph", record.graph), ("weights", record.weights)]
    return "".join(f"{key:8} {value}\n" for key, value in [*fields, *record.extra])


# What a match of a deployment without a manifest does not say.
NOT_SEALED = "not sealed: whose the files are was checked, not their contents bit by bit\n"


def done(result, output, status=0):
    assert (result.stdout, result.stderr, result.returncode) == (output, "", status)


def printed(result):
    """The one result that was printed as JSON."""
    [found] = json.loads(result.stdout)["results"]
    return found


def failed(result, message):
    assert (result.stdout, result.returncode) == ("", 2)
    assert result.stderr.startswith("tvm-model-hash: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_digest(directory, record):
    done(run("digest", "model.onnx", cwd=directory), digests(record))
    assert record.model == sha256(onnx.load(directory / "model.onnx"))
    assert printed(run("digest", "--json", "model.onnx", cwd=directory))["record"] == {
        "model": record.model,
        "graph": record.graph,
        "weights": record.weights,
        "fields": {},
        "record": str(record),
    }
    failed(run("digest", "deployment/code.ro", cwd=directory), "is not an ONNX model")
    failed(run("digest", "missing.onnx", cwd=directory), "missing.onnx': No such file")


def test_show(directory, record):
    code = directory / "deployment/code.ro"
    size = f"{code.stat().st_size:,}"
    done(
        run("show", "deployment/code.ro", cwd=directory),
        f"deployment/code.ro: Relay VM executable, by TVM 0.19.0, {size} bytes\n"
        f"{digests(read_record(code))}",
    )
    for name, container in (("single.so", "shared library"), ("single.tar", "tar")):
        size = f"{(directory / name).stat().st_size:,}"
        kind = f"Relay VM executable in a {container}, ELF {MACHINE}, by TVM 0.19.0"
        output = f"{name}: {kind}, {size} bytes\n{digests(read_record(directory / name))}"
        done(run("show", name, cwd=directory), output)
    size = f"{(directory / 'deployment/lib.so').stat().st_size:,}"
    kind = f"TVM kernel library in a shared library, ELF {MACHINE}"
    lib = read_record(directory / "deployment/lib.so")
    output = f"deployment/lib.so: {kind}, {size} bytes\n{digests(lib)}"
    done(run("show", "deployment/lib.so", cwd=directory), output)
    shown = printed(run("show", "--json", "single.so", cwd=directory))
    assert shown["record"]["model"] == record.model
    assert (shown["tvm_version"], shown["platform"]) == ("0.19.0", f"ELF {MACHINE}")
    failed(run("show", "model.onnx", cwd=directory), "'model.onnx' is not an artifact")


def test_show_of_a_directory_is_a_table_of_its_parts(directory, record):
    (directory / "deployment/labels.txt").write_text("cat\n")
    code = read_record(directory / "deployment/code.ro")
    platform = f"ELF {MACHINE}"
    width = len(platform)
    done(
        run("show", "deployment", cwd=directory),
        f"deployment: deployment, sealed\n{digests(code)}"
        f"part     what                 {'in':{width}}  model             covered by\n"
        f"code.ro  Relay VM executable  {'file':{width}}  {record.model[:16]}  record and seal\n"
        f"lib.so   TVM kernel library   {platform}  {record.model[:16]}  record and seal\n"
        f"consts   TVM parameters       {'file':{width}}  {record.model[:16]}  record and seal\n"
        f"hash.txt says model {record.model}\n"
        "labels.txt: not of a model\n",
    )
    shown = printed(run("show", "--json", "deployment", cwd=directory))
    assert [part["name"] for part in shown["parts"]] == ["code.ro", "lib.so", "consts"]
    assert shown["others"] == ["labels.txt"]
    assert shown["sealed"] is True


@pytest.mark.parametrize("artifact", ["deployment", "single.so", "deployment/lib.so"])
def test_check(artifact, directory, record):
    note = "" if artifact == "deployment" else NOT_SEALED
    match = "match: same model\n" + note
    done(run("check", "model.onnx", artifact, cwd=directory), match)
    same, tuned = model_record(directory / "same.onnx"), model_record(directory / "tuned.onnx")
    equivalent = (
        "equivalent: serialized differently, with the same graph and the same weights\n"
        f"expected  {same.model}\nfound     {record.model}\n{note}"
    )
    done(run("check", "same.onnx", artifact, cwd=directory), equivalent)
    done(run("check", "--exact", "same.onnx", artifact, cwd=directory), equivalent, 1)
    done(
        run("check", "tuned.onnx", artifact, cwd=directory),
        f"mismatch: same graph, other weights\nexpected  {tuned.model}\nfound     {record.model}\n",
        1,
    )
    done(
        run("check", "0" * 64, artifact, cwd=directory),
        "mismatch: other model, as far as a hash alone tells\n"
        f"expected  {'0' * 64}\nfound     {record.model}\n"
        "if this hash is sha256sum of a model with external data: that is not the model's hash, "
        "which covers the data too; check with the model's file\n",
        1,
    )
    done(run("check", record.model.upper(), artifact, cwd=directory), match)
    shutil.copy(directory / "deployment/hash.txt", directory)
    done(run("check", "hash.txt", artifact, cwd=directory), match)


def test_check_names_what_a_seal_does_not_cover(directory):
    (directory / "deployment/.DS_Store").write_bytes(b"")
    done(
        run("check", "model.onnx", "deployment", cwd=directory),
        "match: same model\nnot covered by the seal: .DS_Store\n",
    )


def test_check_for_machines(directory, record):
    result = run("check", "--json", "tuned.onnx", "deployment", cwd=directory)
    assert result.returncode == 1
    verdict = printed(result)
    assert verdict["status"] == "mismatch"
    assert verdict["reason"] == "same graph, other weights"
    assert verdict["found"]["model"] == record.model
    assert verdict["expected"]["graph"] == record.graph


def test_check_of_what_cannot_be_told(directory, record):
    (directory / "deployment/SHA256SUMS").unlink()
    run("strip", "deployment/code.ro", cwd=directory)
    done(
        run("check", "model.onnx", "deployment", cwd=directory),
        "no record: nothing says which model 'code.ro' (Relay VM executable) is of: it was "
        "compiled by a stock TVM, or of a module without a hash, or its record was stripped. "
        "Import the model with get_hash=True and compile it again; or, where the model is known, "
        "tag it; or seal the directory, so that the record of the others covers it\n",
        3,
    )
    result = run("check", "--json", "model.onnx", "deployment", cwd=directory)
    assert result.returncode == 3
    assert printed(result)["parts"][0]["covered_by"] == []
    result = run("check", record.model, "deployment/consts", cwd=directory)
    done(result, f"match: same model\n{NOT_SEALED}")
    failed(run("check", "missing.onnx", "single.so", cwd=directory), "neither a file nor a model")
    failed(run("check", "model.onnx", "missing", cwd=directory), "missing': No such file")
    (directory / "empty.txt").write_text("")
    failed(run("check", "empty.txt", "single.so", cwd=directory), "'empty.txt' is empty")


def test_explain(directory):
    name = (directory / "big.txt").read_text()
    result = run("explain", "model.onnx", "tuned.onnx", cwd=directory)
    assert (result.returncode, result.stderr) == (1, "")
    assert name in result.stdout
    assert result.stdout.count("\n") == 1
    done(run("explain", "model.onnx", "same.onnx", cwd=directory), "same graph, same weights\n")
    explained = printed(run("explain", "--json", "model.onnx", "tuned.onnx", cwd=directory))
    assert (explained["status"], explained["reason"]) == ("mismatch", result.stdout.strip())


def test_seal(directory, record):
    done(
        run("seal", "deployment", cwd=directory),
        f"deployment/SHA256SUMS: 4 files, model {record.model}\n",
    )
    done(run("check", "model.onnx", "deployment", cwd=directory), "match: same model\n")
    checked = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"],
        cwd=directory / "deployment",
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert checked.stdout == "code.ro: OK\nconsts: OK\nhash.txt: OK\nlib.so: OK\n"
    data = bytearray((directory / "deployment/lib.so").read_bytes())
    data[-1] ^= 1
    (directory / "deployment/lib.so").write_bytes(data)
    done(
        run("check", "model.onnx", "deployment", cwd=directory),
        "broken seal: the files are not the ones that were sealed\nchanged  lib.so\n",
        4,
    )
    failed(run("seal", "missing", cwd=directory), "missing")


@pytest.mark.parametrize("name", ["code.ro", "consts"])
def test_tag_after_strip_gives_the_file_back_to_the_byte(name, directory, record):
    path = directory / "deployment" / name
    # TVM has transposed the others.
    compared = "7 of 9 tensors are the model's weights, unchanged\n" * (name == "consts")
    tagged = f"{path}:\n{digests(record)}{compared}"
    done(run("strip", path, cwd=directory), f"{path}:\nno record\n")
    done(run("tag", path, "--model", "model.onnx", cwd=directory), tagged)
    before = path.read_bytes()
    done(run("strip", path, cwd=directory), f"{path}:\nno record\n")
    assert read_record(path) is None
    assert path.read_bytes() != before
    done(run("tag", path, "--model", "model.onnx", cwd=directory), tagged)
    assert path.read_bytes() == before
    failed(run("tag", path, "--model", "0" * 64, "-o", "other", cwd=directory), "force it")
    assert not (directory / "other").exists()
    done(
        run("tag", path, "--model", "0" * 64, "-o", "other", "--force", cwd=directory),
        f"other:\nmodel    {'0' * 64}\n",
    )
    assert read_record(directory / "other") == Record("0" * 64)
    assert path.read_bytes() == before


def test_tag_of_a_library_is_refused(directory):
    before = (directory / "single.so").read_bytes()
    failed(run("tag", "single.so", "--model", "model.onnx", cwd=directory), "cannot be changed")
    assert (directory / "single.so").read_bytes() == before


def test_every_command_has_help_with_an_example(directory):
    commands = run("--help", cwd=directory).stdout
    for name in ("digest", "show", "check", "explain", "seal", "tag", "attest", "strip"):
        assert f"    {name} " in commands
        text = run(name, "--help", cwd=directory).stdout
        assert re.search(f"Examples?:\n  tvm-model-hash {name} ", text)
    result = run(cwd=directory)
    assert result.returncode == 2
    assert "required: COMMAND" in result.stderr


def test_what_comes_from_a_file_does_not_write_on_the_terminal(directory):
    model = onnx.load(directory / "model.onnx")
    forged = "\r\x1b[2K\x1b[32mmatch: same model\x1b[0m\n\u202e"
    model.graph.input[0].name = model.graph.node[0].input[0] = forged
    model.graph.node[0].op_type = forged
    onnx.save(model, directory / "forged.onnx")
    (directory / f"{forged}.onnx").write_bytes(b"")
    for arguments in (
        ("check", "forged.onnx", "deployment"),
        ("explain", "model.onnx", "forged.onnx"),
        ("digest", f"{forged}.onnx"),
    ):
        result = run(*arguments, cwd=directory)
        assert result.returncode in (1, 2)
        for line in (result.stdout + result.stderr).splitlines():
            assert line.isprintable(), ascii(line)
            assert not line.startswith("match")
        shown = on_a_terminal([COMMAND, *arguments], directory)
        assert "\x1b[32m" not in shown


def test_colour_on_a_terminal_only(directory):
    arguments = ("check", "model.onnx", "deployment")
    command = [COMMAND, *arguments]
    assert on_a_terminal(command, directory) == "\033[32mmatch: same model\033[0m\r\n"
    assert on_a_terminal(command, directory, NO_COLOR="1") == "match: same model\r\n"


def test_a_check_of_a_match_imports_neither_onnx_nor_tvm(directory):
    code = (
        "import sys; from tvm_model_hash.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, sorted({'onnx', 'numpy', 'tvm', 'tqdm'} & set(sys.modules)))"
    )
    for arguments in (("check", "model.onnx", "deployment"), ("show", "single.so")):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=directory,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        assert result.stdout.splitlines()[-1] == "0 []"


def test_a_reader_that_leaves_is_no_error(directory):
    result = subprocess.run(
        f"{COMMAND} show --json deployment | true",
        shell=True,
        cwd=directory,
        check=True,
        text=True,
        capture_output=True,
    )
    assert result.stderr == ""
