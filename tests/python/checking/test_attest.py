# SPDX-License-Identifier: Apache-2.0
"""Statements for others to sign: read by the libraries of those who define them."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import onnx
import pytest
from conftest import ROOT, layer, sha256
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from tvm import relay
from tvm.runtime import vm_hash

from tvm_model_hash import (
    ArtifactError,
    AttestationError,
    ModelFileError,
    ModelHashMismatch,
    OutputError,
    Status,
    attest,
    model_record,
    read_record,
    seal,
    write_record,
)
from tvm_model_hash.checking import attestation
from tvm_model_hash.cli import main

SCHEMA = json.loads((ROOT / "docs/output.schema.json").read_text())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("attested")
    onnx.save(layer(), directory / "model.onnx")
    onnx.save(layer(2), directory / "tuned.onnx")
    other = layer()
    other.producer_name = "another"
    onnx.save(other, directory / "same.onnx")
    external = layer()
    tensor = external.graph.initializer[0]
    tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("float_data")
    os.mkdir(directory / "store")
    onnx.save(
        external,
        directory / "store/model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    external = onnx.load(directory / "store/model.onnx")  # save has left it without its data
    for name, model in (("deployment", layer()), ("of_external", external)):
        mod, params = relay.frontend.from_onnx(model, get_hash=True)
        vm_exec = relay.vm.compile(mod, "llvm", params=params)
        vm_hash.save(vm_exec, directory / name, byte_limit=256)
    return directory


@pytest.fixture
def directory(original, tmp_path, monkeypatch):
    copy = shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(copy)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return copy


def file_sum(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def parse(text):
    """Read a statement by the library of in-toto, which knows all fields that there are."""
    message = json_format.Parse(text, statement_pb2.Statement())
    statement = Statement.copy_from_pb(message)
    statement.validate()
    predicate = json_format.MessageToDict(message.predicate)
    provenance = json_format.ParseDict(predicate, Provenance())
    for dependency in provenance.build_definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(dependency).validate()
    return message, provenance


def digests(resources):
    return {resource.name: resource.digest["sha256"] for resource in resources}


def test_the_statement(directory):
    text = attest("deployment", "model.onnx")
    message, provenance = parse(text)
    assert json.loads(text)["_type"] == "https://in-toto.io/Statement/v1"
    assert message.predicate_type == "https://slsa.dev/provenance/v1"
    names = ["SHA256SUMS", "code.ro", "consts", "hash.txt", "lib.so"]
    assert digests(message.subject) == {name: file_sum(f"deployment/{name}") for name in names}
    definition, details = provenance.build_definition, provenance.run_details
    assert digests(definition.resolved_dependencies) == {"model.onnx": file_sum("model.onnx")}
    record = read_record("deployment/lib.so")
    fields = dict(record.extra)
    assert dict(definition.external_parameters) == {
        "model": "model.onnx",
        "target": fields.pop("target"),
        "shapes": fields.pop("shapes"),
    }
    internal = json_format.MessageToDict(definition.internal_parameters)
    records = internal.pop("records")
    common = internal.pop("record")
    assert common == str(record)
    assert internal == fields
    assert records == {
        name: str(read_record(f"deployment/{name}")) for name in ("code.ro", "consts", "lib.so")
    }
    assert records["code.ro"] != common  # it has params besides
    assert details.builder.id == "urn:x-tvm-model-hash:unknown-builder"
    assert dict(details.builder.version) == {"tvm": fields["tvm"]}
    assert details.metadata.invocation_id == fields["build"]
    assert definition.build_type in (ROOT / "docs/signing.md").read_text()


def test_all_files_of_the_model_are_named(directory):
    _, provenance = parse(attest("of_external", "store/model.onnx"))
    dependencies = provenance.build_definition.resolved_dependencies
    assert digests(dependencies) == {
        "model.onnx": file_sum("store/model.onnx"),
        "weights.bin": file_sum("store/weights.bin"),
    }
    assert dependencies[0].name == "model.onnx"
    bill = json.loads(attest("of_external", "store/model.onnx", format="cyclonedx"))
    [weights] = bill["components"][0]["components"]
    assert (weights["name"], weights["hashes"][0]["content"]) == (
        "weights.bin",
        file_sum("store/weights.bin"),
    )


@pytest.mark.parametrize("format", ["in-toto", "cyclonedx"])
def test_the_same_files_give_the_same_bytes(format, directory):
    text = attest("deployment/", "model.onnx", format=format)
    assert text.isascii()
    assert text.endswith("}\n")
    code = "import sys; from tvm_model_hash import attest; "
    code += "print(attest(*sys.argv[1:3], format=sys.argv[3]), end='')"
    shutil.copytree("deployment", "elsewhere/deployment")
    again = subprocess.run(
        [sys.executable, "-c", code, "elsewhere/deployment", "model.onnx", format],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert again.stdout == text
    with open("elsewhere/deployment/hash.txt", "a") as file:
        file.write("\n")
    seal("elsewhere/deployment")
    assert attest("elsewhere/deployment", "model.onnx", format=format) != text


def test_what_the_seal_does_not_list_is_no_subject(directory):
    (directory / "deployment/notes.txt").write_text("")
    message, _ = parse(attest("deployment", "model.onnx"))
    assert "notes.txt" not in digests(message.subject)
    os.unlink("deployment/SHA256SUMS")
    message, _ = parse(attest("deployment", "model.onnx"))
    names = ["code.ro", "consts", "hash.txt", "lib.so", "notes.txt"]
    assert [subject.name for subject in message.subject] == names


def test_a_file_alone(directory):
    message, provenance = parse(attest("deployment/consts", "model.onnx"))
    assert digests(message.subject) == {"consts": file_sum("deployment/consts")}
    internal = json_format.MessageToDict(provenance.build_definition.internal_parameters)
    assert internal["records"] == {"consts": str(read_record("deployment/consts"))}


def test_a_builder_is_who_it_is_said_to_be(directory):
    builder = "https://example.com/builders/1"
    _, provenance = parse(attest("deployment", "model.onnx", builder_id=builder))
    assert provenance.run_details.builder.id == builder
    for wrong in ("nobody", "", "https://a b", "x:\n", "größe:x"):
        with pytest.raises(AttestationError, match="is no URI that names a builder"):
            attest("deployment", "model.onnx", builder_id=wrong)
    with pytest.raises(AttestationError, match="statements of in-toto have"):
        attest("deployment", "model.onnx", builder_id=builder, format="cyclonedx")
    with pytest.raises(AttestationError, match="none of in-toto, cyclonedx"):
        attest("deployment", "model.onnx", format="spdx")


def test_nothing_is_stated_of_what_does_not_match(directory):
    def refuses(path, model, status):
        with pytest.raises(ModelHashMismatch) as caught:
            attest(path, model, output="out.json")
        assert caught.value.verdict.status is status
        assert not os.path.exists("out.json")

    refuses("deployment", "tuned.onnx", Status.MISMATCH)
    refuses("deployment", "same.onnx", Status.EQUIVALENT)
    shutil.copytree("deployment", "unknown", ignore=shutil.ignore_patterns("SHA256SUMS"))
    write_record("unknown/consts", None)
    refuses("unknown", "model.onnx", Status.NO_RECORD)
    refuses("deployment/code.ro", "model.onnx", Status.NO_RECORD)  # which needs others
    with open("deployment/lib.so", "ab") as file:
        file.write(b"\0")
    refuses("deployment", "model.onnx", Status.BROKEN_SEAL)
    for given in (sha256(layer()), "deployment/hash.txt"):
        with pytest.raises(ModelFileError, match="is a hash, and a statement lists the files"):
            attest("deployment", given)


@pytest.mark.parametrize("changed", ["deployment/notes", "model.onnx"])
def test_a_file_that_changes_meanwhile_is_noticed(changed, directory, monkeypatch):
    check = attestation.check

    def check_and_change(*arguments):
        verdict = check(*arguments)
        with open(changed, "ab") as file:
            file.write(b"\0")
        return verdict

    (directory / "deployment/notes").write_text("")
    monkeypatch.setattr(attestation, "check", check_and_change)
    with pytest.raises(ArtifactError, match="was written to meanwhile"):
        attest("deployment", "model.onnx")


def test_a_name_that_is_no_text_is_in_no_statement(directory):
    os.rename("model.onnx", b"\xff.onnx")
    with pytest.raises(AttestationError, match="expected UTF-8"):
        attest("deployment", os.fsdecode(b"\xff.onnx"))


def test_where_it_is_written(directory):
    before = {name: file_sum(f"deployment/{name}") for name in os.listdir("deployment")}
    os.symlink("deployment", "link")
    for output in ("deployment/out.json", "deployment", "link/out.json", "deployment/code.ro"):
        with pytest.raises(OutputError, match="it lies in 'deployment'"):
            attest("deployment", "model.onnx", output=output)
    with pytest.raises(OutputError, match="it is the model"):
        attest("of_external", "store/model.onnx", output="store/weights.bin")
    with pytest.raises(OutputError, match="No such file"):
        attest("deployment", "model.onnx", output="missing/out.json")
    assert {name: file_sum(f"deployment/{name}") for name in os.listdir("deployment")} == before
    text = attest("deployment", "model.onnx", output="out.json")
    with open("out.json") as file:
        assert file.read() == text


def test_the_bill_of_materials(directory, monkeypatch):
    text = attest("deployment/", "model.onnx", format="cyclonedx")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    deployment, [model] = bill["metadata"]["component"], bill["components"]
    assert {deployment["type"], model["type"]} == {"machine-learning-model"}
    assert (deployment["name"], model["name"]) == ("deployment", "model.onnx")
    assert model["hashes"] == [{"alg": "SHA-256", "content": file_sum("model.onnx")}]
    assert {file["name"]: file["hashes"][0]["content"] for file in deployment["components"]} == {
        name: file_sum(f"deployment/{name}") for name in os.listdir("deployment")
    }
    properties = {p["name"]: p["value"] for p in model["properties"] + deployment["properties"]}
    record = read_record("deployment/lib.so")
    assert properties["tvm-model-hash:record"] == str(record)
    assert properties["tvm-model-hash:weights"] == model_record("model.onnx").weights
    assert properties["tvm-model-hash:target"] == record.field("target")
    assert {"ref": "deployment", "dependsOn": ["model"]} in bill["dependencies"]
    assert "timestamp" not in bill["metadata"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    text = attest("deployment", "model.onnx", format="cyclonedx")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["metadata"]["timestamp"] == "1970-01-02T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "now")
    with pytest.raises(AttestationError, match="SOURCE_DATE_EPOCH is 'now'"):
        attest("deployment", "model.onnx", format="cyclonedx")
    monkeypatch.setitem(sys.modules, "cyclonedx.model", None)
    with pytest.raises(AttestationError, match=r"pip install .*\[attest\]"):
        attest("deployment", "model.onnx", format="cyclonedx")


def test_the_command(directory, capsys):
    def run(*arguments):
        status = main(["attest", *arguments])
        return status, capsys.readouterr().out

    text = attest("deployment", "model.onnx")
    assert run("deployment/", "--model", "model.onnx") == (0, text)
    assert run("deployment", "--model", "model.onnx", "-o", "out.json") == (
        0,
        "out.json: written\n",
    )
    with open("out.json") as file:
        assert file.read() == text
    builder = ["--builder-id", "https://example.com/1"]
    assert (
        '"id": "https://example.com/1"' in run("deployment", "--model", "model.onnx", *builder)[1]
    )
    for arguments, status in (
        (["deployment", "--model", "model.onnx"], "done"),
        (["deployment", "--model", "model.onnx", "-o", "out"], "done"),
        (["deployment", "--model", "model.onnx", "--format", "cyclonedx"], "done"),
        (["deployment", "--model", "tuned.onnx"], "mismatch"),
        (["deployment", "--model", "same.onnx"], "equivalent"),
        (["deployment/code.ro", "--model", "model.onnx"], "no_record"),
    ):
        exit_status, shown = run(*arguments, "--json")
        found = json.loads(shown)
        jsonschema.Draft202012Validator(SCHEMA).validate(found)
        [result] = found["results"]
        assert result["status"] == status
        expected = {"done": 0, "mismatch": 1, "equivalent": 1, "no_record": 3}[status]
        assert exit_status == result["exit_status"] == expected
    assert run("deployment", "--model", "model.onnx", "-o", "deployment/x") == (2, "")


# --- docs/signing.md ---


@pytest.fixture
def keyring():
    """A throw-away key of GnuPG; not below tmp_path, whose name is too long for its socket."""
    if not shutil.which("gpg"):
        pytest.skip("there is no gpg")
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "GNUPGHOME": home}
        command = ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Nobody", "ed25519"]
        subprocess.run(command, env=env, check=True, capture_output=True)
        yield env
        subprocess.run(["gpgconf", "--kill", "all"], env=env, check=True)


def sh(code, env):
    bin_directory = os.path.dirname(sys.executable)
    env = {**env, "PATH": f"{bin_directory}{os.pathsep}{env['PATH']}"}
    return subprocess.run(["sh", "-ec", code], env=env, check=False, text=True, capture_output=True)


def blocks(section):
    text = (ROOT / "docs/signing.md").read_text().partition(f"\n## {section}")[2]
    return re.findall("```sh\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)


def test_every_section_with_commands_is_run():
    text = (ROOT / "docs/signing.md").read_text()
    sections = ("The manifest", "The statement", "The directory", "A bill of materials")
    assert sum(len(blocks(section)) for section in sections) == text.count("```sh\n") == 7


def done(code, env):
    result = sh(code, env)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("section", ["The manifest", "The statement"])
def test_what_gpg_signs_is_verified_on_the_other_side(section, keyring, directory):
    signing, verifying = blocks(section)
    done(signing, keyring)
    done(verifying, keyring)
    # Who changes a file breaks the manifest; who mends that breaks the signature.
    with open("deployment/hash.txt", "a") as file:
        file.write("\n")
    assert sh(verifying, keyring).returncode != 0
    seal("deployment")
    done("tvm-model-hash check --sealed model.onnx deployment", keyring)
    assert sh(verifying, keyring).returncode != 0


def test_a_file_that_was_added_is_noticed(keyring, directory):
    signing, verifying = blocks("The statement")
    done(signing, keyring)
    (directory / "deployment/more").write_text("")
    assert sh(verifying, keyring).returncode == 4


def test_what_model_signing_signs_is_verified_on_the_other_side(directory):
    signing, verifying = blocks("The directory")
    done(signing, os.environ)
    done(verifying, os.environ)
    with open("deployment/hash.txt", "a") as file:
        file.write("\n")
    seal("deployment")
    assert sh(verifying, os.environ).returncode != 0


def test_the_bill_of_materials_of_the_page(directory):
    [code] = blocks("A bill of materials")
    done(code, os.environ)
    with open("deployment.cdx.json") as file:
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read()) is None
