# SPDX-License-Identifier: Apache-2.0
"""The vectors: the package and the reference implementation, on good ones and on bad ones."""

import json

import canonical_reference
import formats_reference
import make_artifacts
import make_models
import onnx
import pytest

from tvm_model_hash import (
    ArtifactError,
    ExternalDataError,
    InvalidHashError,
    InvalidModelError,
    ModelFileError,
    Record,
    RecordError,
    SealError,
    model_record,
    read_artifact,
    write_record,
)
from tvm_model_hash.checking.hash_file import read_hash_file
from tvm_model_hash.checking.manifest import read_seal

KEYS = ("model", "graph", "weights")
MODELS = json.loads(make_models.PATH.read_text(encoding="utf-8"))
INVALID = json.loads(make_models.INVALID_PATH.read_text(encoding="utf-8"))["models"]
ARTIFACTS = json.loads(make_artifacts.PATH.read_text(encoding="utf-8"))
REFUSED = (InvalidModelError, ExternalDataError, ModelFileError)

GOOD = MODELS["models"] + MODELS["models with files"]


def digests(model):
    record = model_record(model)
    return {key: getattr(record, key) for key in KEYS}


def expected(entry):
    return {key: entry[key] for key in KEYS}


def name_of(entry):
    return f"{entry.get('format', '')} {entry.get('wrong', '')} {entry.get('name', '')}".strip()


def fields(record):
    return record and formats_reference.record(str(record).encode())


# Models.


def test_the_vectors_are_the_references():
    assert make_models.make() == MODELS
    assert make_models.make_invalid()["models"] == INVALID
    assert make_artifacts.make() == ARTIFACTS


def test_there_are_enough_invalid_vectors_of_each_kind():
    assert len(INVALID) >= 80
    assert len(ARTIFACTS["bad"]) >= 40
    assert {entry["format"] for entry in ARTIFACTS["bad"]} == set(make_artifacts.READERS)


def test_vectors_are_the_same_only_where_they_are_meant_to_be():
    groups = {}
    for entry in GOOD:
        groups.setdefault((entry["graph"], entry["weights"]), set()).add(entry["name"])
    found = [group for group in groups.values() if len(group) > 1]
    assert sorted(map(sorted, found)) == sorted(map(sorted, make_models.SAME))
    assert len(groups) >= 150
    assert sum(map(len, groups.values())) == len(GOOD)  # each has a name of its own


@pytest.mark.parametrize("entry", MODELS["models"], ids=name_of)
def test_a_model_in_memory_has_its_digests(entry):
    model = make_models.parse(entry)
    assert canonical_reference.digests(model) == expected(entry)
    assert digests(model) == expected(entry)


@pytest.mark.parametrize("entry", GOOD, ids=name_of)
def test_a_model_in_a_file_has_its_digests(entry, tmp_path):
    assert digests(make_models.write(entry, tmp_path)) == expected(entry)


@pytest.mark.parametrize("entry", MODELS["models with files"], ids=name_of)
def test_a_model_in_memory_without_its_files_has_no_digests(entry):
    model = make_models.parse(entry)
    with pytest.raises(canonical_reference.InvalidModelError, match="not loaded"):
        canonical_reference.digests(model)
    with pytest.raises(REFUSED):
        model_record(model)


@pytest.mark.parametrize("entry", INVALID, ids=name_of)
def test_an_invalid_model_in_a_file_is_refused(entry, tmp_path):
    path = make_models.write(entry, tmp_path)
    with pytest.raises(REFUSED):
        model_record(path)


READABLE = [
    entry
    for entry in INVALID
    if "files" not in entry and entry["wrong"] != "not a protobuf message"
]


@pytest.mark.parametrize("entry", READABLE, ids=name_of)
def test_an_invalid_model_in_memory_is_refused(entry):
    model = make_models.parse(entry)
    with pytest.raises(canonical_reference.InvalidModelError):
        canonical_reference.digests(model)
    with pytest.raises(REFUSED):
        model_record(model)


def nested_types(depth):
    model = make_models.parse({"text": make_models.TEXT["an output without type"]})
    type_ = model.graph.input[0].type
    for _ in range(depth - 1):
        type_ = type_.sequence_type.elem_type
    type_.tensor_type.elem_type = 1
    return model


def nested_graphs(depth):
    model = onnx.ModelProto(opset_import=[onnx.OperatorSetIdProto(version=21)])
    graph = model.graph
    for level in range(depth - 1):
        node = graph.node.add(op_type="F", output=[f"v{level}"])
        graph.output.add(name=f"v{level}")
        graph = node.attribute.add(name="g", type=onnx.AttributeProto.GRAPH).g
    graph.SetInParent()
    return model


@pytest.mark.parametrize("nested", [nested_types, nested_graphs])
def test_what_is_nested_more_than_64_deep_in_memory_is_refused(nested):
    assert digests(nested(64)) == canonical_reference.digests(nested(64))
    with pytest.raises(canonical_reference.InvalidModelError, match="nested too deep"):
        canonical_reference.digests(nested(65))
    with pytest.raises(REFUSED):
        model_record(nested(65))


# The other formats.


def read_record(content, _):
    return fields(Record.decode(content))


def read_hash_txt(content, directory):
    return fields(read_hash_file(str(written(content, directory, "hash.txt"))))


def read_executable(content, directory):
    path = written(content, directory, "code.ro")
    artifact = read_artifact(path)
    stock = directory / "stock.ro"
    write_record(path, None, stock)
    return {
        "record": fields(artifact.record),
        "parameters": None if artifact.inputs is None else list(artifact.inputs),
        "late-bound": list(artifact.needs),
        "stock": make_artifacts.sha256(stock.read_bytes()),
    }


def read_constants(content, directory):
    artifact = read_artifact(written(content, directory, "consts"))
    return {"record": fields(artifact.record), "names": list(artifact.tensors)}


def read_manifest(content, directory):
    seal = read_seal(written(content, directory, "SHA256SUMS").parent)
    files = {file.name: {"size": file.size, "sha256": file.sha256} for file in seal.files}
    return {"record": fields(seal.record), "ignored": list(seal.ignored), "files": files}


def written(content, directory, name):
    path = directory / name
    path.write_bytes(content)
    return path


PRODUCT = {
    "record": (read_record, RecordError),
    "hash.txt": (read_hash_txt, (InvalidHashError, RecordError)),
    "executable": (read_executable, (ArtifactError, RecordError)),
    "constants": (read_constants, (ArtifactError, RecordError)),
    "manifest": (read_manifest, (SealError, RecordError)),
}


@pytest.mark.parametrize("entry", ARTIFACTS["good"], ids=name_of)
def test_a_good_file_says_what_it_says(entry, tmp_path):
    read, _ = PRODUCT[entry["format"]]
    assert read(make_artifacts.content_of(entry), tmp_path) == entry["says"]


@pytest.mark.parametrize("entry", ARTIFACTS["bad"], ids=name_of)
def test_a_bad_file_is_refused(entry, tmp_path):
    read, errors = PRODUCT[entry["format"]]
    with pytest.raises(errors):
        read(make_artifacts.content_of(entry), tmp_path)
