# SPDX-License-Identifier: Apache-2.0
"""Every outcome of the command: its exit status, what it prints, and the JSON of it."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import jsonschema
import onnx
import pytest
from conftest import ROOT, layer, on_a_terminal
from tvm import relay
from tvm.runtime import vm_hash

from tvm_model_hash import check, seal, write_record
from tvm_model_hash.checking import expected as expected_module
from tvm_model_hash.checking.deployment import Deployment
from tvm_model_hash.cli import actions, main
from tvm_model_hash.cli.command import make_parser

SCHEMA = json.loads((ROOT / "docs/output.schema.json").read_text())
COMMAND = os.path.join(os.path.dirname(sys.executable), "tvm-model-hash")
LINE_OF_TEXT = re.compile(r"tvm-model-hash: .+\n")


def save(directory, model, name, **keywords):
    mod, params = relay.frontend.from_onnx(model, get_hash=True)
    vm_exec = relay.vm.compile(mod, "llvm", params=params)
    vm_hash.save(vm_exec, directory / name, byte_limit=256, **keywords)
    return vm_exec


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Models, and what was compiled of them."""
    directory = tmp_path_factory.mktemp("outcomes")
    onnx.save(layer(), directory / "model.onnx")
    onnx.save(layer(2), directory / "tuned.onnx")
    same = layer()
    same.producer_name = "another"
    onnx.save(same, directory / "same.onnx")
    save(directory, layer(), "sealed").mod.export_library(str(directory / "single.so"))
    save(directory, layer(2), "tuned", seal=False)
    shutil.copytree(directory / "sealed", directory / "open")
    (directory / "open/SHA256SUMS").unlink()
    shutil.copytree(directory / "open", directory / "mixed")
    shutil.copy(directory / "tuned/lib.so", directory / "mixed")
    shutil.copytree(directory / "open", directory / "unknown")
    write_record(directory / "unknown/consts", None)
    shutil.copytree(directory / "sealed", directory / "broken")
    data = (directory / "broken/lib.so").read_bytes()
    (directory / "broken/lib.so").write_bytes(data[: len(data) // 2])
    (directory / "broken/hash.txt").unlink()
    shutil.copy(directory / "sealed/code.ro", directory / "broken/old.ro")
    shutil.copytree(directory / "sealed", directory / "noted")
    (directory / "noted/notes.log").write_text("")
    return directory


@pytest.fixture
def directory(original, tmp_path, monkeypatch):
    copy = shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


# What is asked, the exit status, and the status of each result.
OUTCOMES = [
    ("digest model.onnx", 0, ["done"]),
    ("digest --hash-only model.onnx same.onnx", 0, ["done", "done"]),
    ("digest missing.onnx model.onnx", 2, ["error", "done"]),
    ("show single.so", 0, ["done"]),
    ("show sealed", 0, ["done"]),
    ("show mixed", 1, ["mismatch"]),
    ("show broken", 4, ["broken_seal"]),
    ("show model.onnx", 2, ["error"]),
    ("show broken missing single.so", 4, ["broken_seal", "error", "done"]),
    ("check model.onnx sealed", 0, ["match"]),
    ("check model.onnx single.so", 0, ["match"]),
    ("check same.onnx sealed", 0, ["equivalent"]),
    ("check --exact same.onnx sealed", 1, ["equivalent"]),
    ("check tuned.onnx sealed", 1, ["mismatch"]),
    ("check model.onnx mixed", 1, ["mismatch"]),
    ("check model.onnx missing", 2, ["error"]),
    ("check missing.onnx sealed", 2, []),
    ("check sealed/lib.so sealed single.so", 2, []),
    ("check model.onnx unknown", 3, ["no_record"]),
    ("check model.onnx sealed/code.ro", 3, ["no_record"]),
    ("check model.onnx broken", 4, ["broken_seal"]),
    ("check --sealed model.onnx sealed", 0, ["match"]),
    ("check --sealed model.onnx open", 3, ["not_sealed"]),
    ("check --sealed model.onnx single.so", 3, ["not_sealed"]),
    ("check --sealed tuned.onnx open", 1, ["mismatch"]),
    ("check model.onnx noted", 0, ["match"]),
    ("check --sealed model.onnx noted", 4, ["broken_seal"]),
    ("check sealed/hash.txt sealed", 0, ["match"]),
    ("check --consistent sealed tuned single.so", 0, ["match"] * 3),
    ("check --consistent mixed", 1, ["mismatch"]),
    ("check --consistent unknown", 3, ["no_record"]),
    ("check --consistent broken", 4, ["broken_seal"]),
    ("check --consistent --sealed open", 3, ["not_sealed"]),
    # Of several the worst: 1, 4, 2, 3, 0.
    ("check model.onnx sealed unknown", 3, ["match", "no_record"]),
    ("check model.onnx unknown missing sealed", 2, ["no_record", "error", "match"]),
    ("check model.onnx missing broken unknown", 4, ["error", "broken_seal", "no_record"]),
    ("check model.onnx broken tuned missing", 1, ["broken_seal", "mismatch", "error"]),
    ("explain model.onnx same.onnx", 0, ["equivalent"]),
    ("explain model.onnx tuned.onnx", 1, ["mismatch"]),
    ("explain model.onnx missing.onnx", 2, []),
    ("seal sealed", 0, ["done"]),
    ("seal noted --ignore *.log --ignore tmp/*", 0, ["done"]),
    ("seal noted --ignore *.so", 2, []),
    ("seal missing", 2, []),
    ("tag open/code.ro --model tuned.onnx", 2, []),
    ("tag open/code.ro --model tuned.onnx --force", 0, ["done"]),
    ("tag unknown --model model.onnx", 0, ["done"]),
    ("tag broken --model model.onnx", 2, []),
    ("tag single.so --model tuned.onnx", 2, []),
    ("attest sealed --model model.onnx", 0, ["done"]),
    ("attest sealed --model same.onnx", 1, ["equivalent"]),
    ("attest broken --model model.onnx", 4, ["broken_seal"]),
    ("attest unknown --model model.onnx", 3, ["no_record"]),
    ("attest sealed --model sealed/hash.txt", 2, []),
    ("attest missing --model model.onnx", 2, []),
    ("strip open/code.ro -o stock.ro", 0, ["done"]),
    ("strip model.onnx", 2, []),
    ("check", 2, []),
    ("check model.onnx", 2, []),
    ("check --consistent", 2, []),
    ("check --sealed model.onnx --rpc host:1 --remote x", 2, []),
    ("check model.onnx --rpc nowhere --remote x", 2, []),
    ("digest - -", 2, []),
    ("show", 2, []),
    ("show --nothing", 2, []),
    ("nothing", 2, []),
]


@pytest.mark.parametrize(("line", "status", "results"), OUTCOMES, ids=[o[0] for o in OUTCOMES])
def test_an_outcome_in_text_in_json_and_in_silence(line, status, results, directory, capsys):
    arguments = line.split()
    command = arguments[0] if arguments[0] != "nothing" else None
    assert main([*arguments, "--json"]) == status
    said = capsys.readouterr()
    found = json.loads(said.out)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert (found["command"], found["exit_status"]) == (command, status)
    assert [result["status"] for result in found["results"]] == results
    errors = [found["error"]] * (found["error"] is not None)
    errors += [result for result in found["results"] if result["status"] == "error"]
    assert said.err.count("tvm-model-hash: ") == len(errors)
    assert bool(errors) == (status == 2 or "error" in results)
    assert all(result["reason"] for result in found["results"] if result["status"] != "done")
    if arguments[0] in ("seal", "tag", "strip"):
        return  # they have been done

    assert main([*arguments, "--quiet"]) == status
    silent = capsys.readouterr()
    assert (silent.out, silent.err) == ("", said.err)

    assert main(arguments) == status
    shown = capsys.readouterr()
    if errors and len(results) <= 1:
        assert (shown.out, shown.err) == ("", said.err)
    else:
        assert shown.out


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid
    good = {"schema": 1, "command": None, "exit_status": 2, "results": [], "error": None}
    assert valid(good)
    result = {"path": "a", "status": "error", "exit_status": 2, "reason": "b", "error": "C"}
    assert valid({**good, "command": "show", "results": [result]})
    for other in ({**result, "kind": "x"}, {**result, "status": "match"}, {**result, "path": 1}):
        assert not valid({**good, "command": "show", "results": [other]})
    assert not valid({**good, "more": 1})


def test_the_json_of_a_check_is_that_of_the_verdict(directory, capsys):
    for artifact in ("sealed", "single.so", "broken", "unknown"):
        main(["check", "--json", "model.onnx", artifact])
        [result] = json.loads(capsys.readouterr().out)["results"]
        for key in ("path", "exit_status", "error"):
            del result[key]
        assert result == check("model.onnx", artifact).to_dict()


def test_several_have_a_line_each_and_a_summary(directory, capsys):
    assert main(["check", "model.onnx", "sealed", "tuned", "missing", "open"]) == 1
    assert capsys.readouterr() == (
        "match        sealed: same model\n"
        "mismatch     tuned: same graph, other weights\n"
        "error        missing: cannot read 'missing': No such file or directory\n"
        "match        open: same model; not sealed\n"
        "4 artifacts: 2 match, 1 mismatch, 1 error\n",
        "",
    )


@pytest.mark.parametrize("model", ["model.onnx", "same.onnx"])
def test_a_model_is_read_once_for_several(model, directory, capsys, monkeypatch):
    opened, recorded = [], []
    open_regular = expected_module.open_regular
    monkeypatch.setattr(
        expected_module, "open_regular", lambda path: opened.append(path) or open_regular(path)
    )
    from tvm_model_hash.model import digest

    model_record = digest.model_record
    monkeypatch.setattr(
        digest, "model_record", lambda path: recorded.append(path) or model_record(path)
    )
    artifacts = ["sealed", "open", "single.so", "tuned", "unknown"]
    for count in (1, len(artifacts)):
        opened.clear()
        recorded.clear()
        main(["check", model, *artifacts[:count]])
        assert opened == [model, model]  # what it is, and its hash
        assert len(recorded) == (count > 1 or model == "same.onnx")


def test_the_row_of_a_broken_seal_is_brief(directory, capsys):
    main(["check", "--sealed", "model.onnx", "broken", "noted"])
    assert capsys.readouterr().out == (
        "broken seal  broken: missing 'hash.txt'; changed 'lib.so'; extra 'old.ro'\n"
        "broken seal  noted: extra 'notes.log'\n"
        "2 artifacts: 2 broken seal\n"
    )


def test_options_may_stand_between_paths(directory, capsys):
    assert main(["check", "model.onnx", "--exact", "sealed", "-q", "open"]) == 0
    assert main(["digest", "model.onnx", "--hash-only", "same.onnx"]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    assert main(["check", "model.onnx", "--exact", "sealed", "--nothing"]) == 2
    assert "unrecognized arguments: --nothing" in capsys.readouterr().err


def test_consistent_says_which_model(directory, capsys):
    model = Deployment.read("sealed").record.model
    assert main(["check", "--consistent", "sealed"]) == 0
    assert capsys.readouterr().out == f"match: all of it is of model {model}\n"


def test_a_comparison_with_itself_is_told(directory, capsys):
    remark = "'sealed/hash.txt' lies in '{}' itself: this compares the deployment with what it"
    for artifact in ("sealed", "./sealed/", str(directory / "sealed")):
        main(["check", "sealed/hash.txt", artifact])
        assert remark.format(artifact) in capsys.readouterr().out
    os.symlink("sealed", "link")
    main(["check", "sealed/hash.txt", "link"])
    assert remark.format("link") in capsys.readouterr().out
    shutil.copytree("sealed", "sealed2")
    for model, artifact in (
        ("sealed/hash.txt", "sealed2"),
        ("sealed2/hash.txt", "sealed"),
        ("model.onnx", "sealed"),
    ):
        main(["check", model, artifact])
        assert "itself" not in capsys.readouterr().out


def test_what_can_be_shown_of_a_broken_seal(directory, capsys):
    assert main(["show", "broken"]) == 4
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "broken: deployment, broken seal"
    assert any(line.startswith("code.ro  Relay VM executable") for line in shown)
    assert any(line.startswith("lib.so: cannot be read: ") for line in shown)
    assert shown[-4:] == [
        "broken seal: the files are not the ones that were sealed",
        "missing  hash.txt",
        "changed  lib.so",
        "extra    old.ro",
    ]
    # None of what is shown there passes a check.
    for arguments in (["model.onnx", "broken"], ["--consistent", "broken"]):
        assert main(["check", *arguments]) == 4
    text = (directory / "sealed/SHA256SUMS").read_text()
    (directory / "sealed/SHA256SUMS").write_text(text.replace("lib.so", "lib.se"))
    capsys.readouterr()
    for command in (["show"], ["check", "model.onnx"]):
        assert main([*command, "sealed"]) == 4
        assert "it was altered or cut" in capsys.readouterr().out


def test_what_a_seal_ignores(directory, capsys):
    with open("noted/SHA256SUMS") as file:
        before = file.read()
    assert main(["seal", "noted", "--ignore", "*.log"]) == 0
    assert capsys.readouterr().out.endswith("ignored: *.log\n")
    os.makedirs("noted/below")
    for name in ("noted/notes.log", "noted/below/more.log"):
        with open(name, "w") as file:
            file.write("later")
    assert main(["check", "--sealed", "model.onnx", "noted"]) == 0
    assert capsys.readouterr().out == (
        "match: same model\nnot covered by the seal, as it says itself: 2 files (*.log)\n"
    )
    subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd="noted", check=True
    )
    # What is a part is none to ignore, whatever it is called.
    shutil.copy("sealed/code.ro", "noted/code.log")
    assert main(["check", "model.onnx", "noted"]) == 4
    assert main(["seal", "noted", "--ignore", "*.log"]) == 2
    assert "'code.log' is of the deployment (Relay VM executable)" in capsys.readouterr().err
    os.unlink("noted/code.log")
    with open("noted/notes.txt", "w") as file:
        file.write("")
    assert main(["check", "--sealed", "model.onnx", "noted"]) == 4
    assert capsys.readouterr().out.endswith("\nextra    notes.txt\n")
    assert main(["check", "model.onnx", "noted"]) == 0
    assert "not covered by the seal: notes.txt\n" in capsys.readouterr().out
    # Without a pattern the manifest is what it ever was.
    os.unlink("noted/notes.txt")
    shutil.rmtree("noted/below")
    os.unlink("noted/notes.log")
    seal("noted")
    with open("noted/SHA256SUMS") as file:
        assert file.read() == before


@pytest.mark.parametrize("pattern", ["", "a\nb", "\x1b[2J", "a" * 256, "\udcff"])
def test_a_pattern_that_no_manifest_can_hold(pattern, directory, capsys):
    assert main(["seal", "noted", "--ignore", pattern]) == 2
    assert "cannot stand in a manifest" in capsys.readouterr().err


def test_hash_txt_is_never_ignored(directory):
    assert main(["seal", "noted", "--ignore", "*.txt"]) == 0
    with open("noted/hash.txt", "w") as file:
        file.write("0" * 64)
    assert main(["check", "--sealed", "model.onnx", "noted"]) == 4


# --- digest ---


def test_digest_of_standard_input(directory):
    data = (directory / "model.onnx").read_bytes()

    def run(*arguments, data=data):
        return subprocess.run([COMMAND, *arguments], input=data, check=False, capture_output=True)

    result = run("digest", "--hash-only", "-")
    named = run("digest", "--hash-only", "model.onnx", data=b"")
    assert (result.stdout, result.returncode) == (named.stdout, 0)
    result = run("digest", "-", data=b"no model")
    assert (result.stdout, result.returncode) == (b"", 2)
    assert result.stderr.startswith(b"tvm-model-hash: standard input is not an ONNX model")
    model = layer()
    tensor = model.graph.initializer[0]
    tensor.raw_data = bytes(2048)
    tensor.ClearField("float_data")
    onnx.save(model, "external.onnx", save_as_external_data=True, location="w", size_threshold=0)
    result = run("digest", "-", data=(directory / "external.onnx").read_bytes())
    assert (result.stdout, result.returncode) == (b"", 2)
    assert b"name its file instead of '-'" in result.stderr


def test_hashes_only(directory, capsys):
    main(["digest", "--hash-only", "model.onnx", "tuned.onnx"])
    with open("sums", "w") as file:
        file.write(capsys.readouterr().out)
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "sums"], check=True)
    main(["digest", "--hash-only", "model.onnx"])
    assert re.fullmatch("[0-9a-f]{64}\n", capsys.readouterr().out)


# --- how it ends ---


def run(*arguments, **keywords):
    return subprocess.run(
        [COMMAND, *arguments], check=False, text=True, stderr=subprocess.PIPE, **keywords
    )


def test_a_crash_is_status_2_and_one_line(directory, capsys, monkeypatch):
    def crash(*_, **__):
        raise RecursionError("too deep\n\x1b[2J")

    monkeypatch.setattr(actions, "_show", crash)
    for arguments in (["show", "single.so"], ["show", "single.so", "sealed"]):
        assert main(arguments) == 2
        said = capsys.readouterr()
        line = (
            "tvm-model-hash: unexpected RecursionError: too deep\\n\\x1b[2J. --debug shows where\n"
        )
        assert said == ("", line * (len(arguments) - 1))
        assert main([*arguments, "--debug"]) == 2
        assert "in crash" in capsys.readouterr().err
    monkeypatch.setattr(actions, "show", crash)
    assert main(["show", "single.so", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "RecursionError"


def test_interrupted(directory):
    code = (
        "import os, signal, sys\nfrom tvm_model_hash.cli import actions, main\n"
        "actions._show = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(main(['show', 'x']))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"")
    assert signal.SIGINT + 128 == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_output_that_cannot_be_written_is_an_error(directory):
    with open("/dev/full", "w") as full:
        for arguments in (("show", "sealed"), ("check", "--json", "model.onnx", "sealed")):
            result = run(*arguments, stdout=full)
            assert result.returncode == 2
            assert result.stderr == "tvm-model-hash: cannot print: No space left on device\n"
        assert run("check", "-q", "model.onnx", "sealed", stdout=full).returncode == 0


def test_closed_streams(directory):
    for line, status in (
        ("show sealed >&-", 2),
        ("check -q model.onnx sealed >&-", 0),
        ("check -q tuned.onnx sealed >&- 2>&-", 1),
        ("check model.onnx missing 2>&-", 2),
        ("check 2>&-", 2),
    ):
        result = subprocess.run(
            f"{COMMAND} {line}", shell=True, check=False, text=True, capture_output=True
        )
        assert (result.returncode, result.stdout) == (status, ""), line
        assert not result.stderr or LINE_OF_TEXT.fullmatch(result.stderr), line
        if line == "show sealed >&-":
            assert "cannot print: standard output is closed" in result.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_names_that_the_output_cannot_encode(env, directory):
    names = ["größe 中", os.fsdecode(b"\xff\xfe")]
    for name in names:
        os.rename("sealed", name)
        for arguments, status in (
            (["check", "model.onnx", name, name], 0),
            (["show", name + "?"], 2),
            (["check", "--json", "tuned.onnx", name], 1),
        ):
            result = subprocess.run(
                [COMMAND, *arguments],
                env={**os.environ, **env},
                check=False,
                capture_output=True,
            )
            assert result.returncode == status, result.stderr
            assert b"Traceback" not in result.stderr
            if "--json" in arguments:
                assert result.stdout.isascii()
                json.loads(result.stdout)
        os.rename(name, "sealed")


def test_rows_are_folded_on_a_terminal(directory):
    command = [COMMAND, "check", "model.onnx", "unknown", "sealed"]
    shown = on_a_terminal(command, directory, NO_COLOR="1").split("\r\n")
    assert len(shown) > 5
    assert all(len(line) <= 80 for line in shown)
    assert shown[0].startswith("no record    unknown: nothing says which model 'consts'")
    assert shown[1].startswith(" " * 13 + "a stock TVM wrote it")
    assert shown[-3:-1] == ["match        sealed: same model", "2 artifacts: 1 no record, 1 match"]
    assert "\x1b[32mmatch      \x1b[0m  sealed" in on_a_terminal(command, directory)


# --- around it ---


def test_the_version_and_the_module(directory):
    from importlib.metadata import version

    expected = f"tvm-model-hash {version('tvm-model-hash')}\n"
    for command in ([COMMAND], [sys.executable, "-m", "tvm_model_hash"]):
        result = subprocess.run([*command, "--version"], check=True, text=True, capture_output=True)
        assert result.stdout == expected


def complete(line):
    """What a shell would offer."""
    subprocess.run(
        ["sh", "-c", f'exec "{COMMAND}" 8>answer 9>/dev/null'],
        env={
            **os.environ,
            **{"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))},
            **{"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash"},
        },
        check=True,
    )
    with open("answer") as answer:
        return set(answer.read().split())


def test_a_shell_completes(directory):
    assert complete("tvm-model-hash s") == {"show", "seal", "strip"}
    assert complete("tvm-model-hash check --s") == {"--sealed"}
    assert "model.onnx" in complete("tvm-model-hash check mod")
    # What the script of an entry point is asked for first, and no cost where no shell asks.
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "python/tvm_model_hash/cli/__init__.py").read_text()
    code = "import sys; from tvm_model_hash.cli import main; main(['show', 'single.so', '-q'])"
    code += "; print('argcomplete' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert result.stdout == b"False\n"


def test_the_man_page_has_every_command_and_option(tmp_path):
    target = (ROOT / "Makefile").read_text().partition("\nman: ")[2].partition("\n\n")[0]
    arguments = re.search(r"--module \S+ --function \S+", target)[0].split()
    program = os.path.join(os.path.dirname(sys.executable), "argparse-manpage")
    page = tmp_path / "page.1"
    subprocess.run([program, *arguments, "--output", page], check=True)
    text = page.read_text().replace("\\-", "-")
    [commands] = [a for a in make_parser()._actions if a.dest == "command"]
    assert len(commands.choices) == 8
    for name, sub in commands.choices.items():
        section = text.partition(f"COMMAND \\fI\\,'tvm-model-hash {name}'")[2]
        section = section.partition("\n.SH COMMAND ")[0]
        for action in sub._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or option in section, (name, option)
    for status in range(5):
        assert re.search(rf"^ *{status}    ", text, re.MULTILINE)


def test_main_can_be_called_where_streams_are_others(directory, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["digest", "--hash-only", "model.onnx"]) == 0
    assert len(out.getvalue()) == 65
