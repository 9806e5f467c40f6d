# SPDX-License-Identifier: Apache-2.0
import copy
import json
import os

import numpy as np
import pytest
from parameter_files import ARRAYS, RECORD
from tvm.contrib import tvmjs

from tvm_model_hash import read_artifact, write_record
from tvm_model_hash.errors import ArtifactError, RecordError, UnknownArtifactError


def dump(directory, arrays=None, **metadata):
    tvmjs.dump_ndarray_cache(
        ARRAYS if arrays is None else arrays,
        str(directory),
        meta_data=metadata or None,
        shard_cap_mb=1,
        show_progress=False,
    )
    return directory / "ndarray-cache.json"


@pytest.mark.parametrize("metadata", [{}, {"ParamSize": 3, "ParamBytes": 12.0}])
def test_the_record_is_in_the_metadata(tmp_path, metadata):
    path = dump(tmp_path, **metadata)
    stock = path.read_bytes()
    before = json.loads(stock)
    write_record(path, RECORD)
    before["metadata"]["model_hash_record"] = str(RECORD)
    assert json.loads(path.read_bytes()) == before
    if metadata:  # the bytes that TVM writes if it is given the record
        assert path.read_text() == json.dumps(before, indent=4)
    write_record(path, None)
    assert path.read_bytes() == stock


@pytest.mark.parametrize("metadata", [{}, {"ParamSize": 3}])
def test_a_record_that_tvm_was_given_comes_out(tmp_path, metadata):
    stock = dump(tmp_path, **metadata).read_bytes()
    for keys in (["ParamSize", "model_hash_record"], ["model_hash_record", "ParamSize"]):
        given = {**metadata, "model_hash_record": str(RECORD)}
        path = dump(tmp_path, **{key: given[key] for key in keys if key in given})
        assert read_artifact(path).record == RECORD
        write_record(path, None)
        assert path.read_bytes() == stock


def test_all_shards_are_named(tmp_path):
    path = dump(tmp_path, {name: np.zeros((512, 1024), "float32") for name in "abc"})
    artifact = read_artifact(path)
    assert artifact.tensors == ("a", "b", "c")
    assert artifact.files == tuple(f"params_shard_{i}.bin" for i in range(3))


def test_a_shard_that_is_missing_or_of_another_size_is_an_error(tmp_path):
    path = dump(tmp_path)
    shard = tmp_path / "params_shard_0.bin"
    data = shard.read_bytes()
    for changed in (data[:-1], data + b"\0", b""):
        shard.write_bytes(changed)
        with pytest.raises(ArtifactError, match=f"of {len(data)} bytes, found {len(changed)}"):
            read_artifact(path)
    shard.unlink()
    for act in (read_artifact, lambda path: write_record(path, RECORD)):
        with pytest.raises(ArtifactError, match="is incomplete: .*params_shard_0.bin.*No such"):
            act(path)
    shard.mkdir()
    content = json.loads(path.read_bytes())
    content["records"] = [{**content["records"][0], "nbytes": shard.stat().st_size, "records": []}]
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="expected a regular file"):
        read_artifact(path)


def test_it_can_be_written_elsewhere(tmp_path):
    path = dump(tmp_path)
    (tmp_path / "other").mkdir()
    write_record(path, RECORD, tmp_path / "other/tensor-cache.json")
    os.rename(tmp_path / "params_shard_0.bin", tmp_path / "other/params_shard_0.bin")
    assert read_artifact(tmp_path / "other/tensor-cache.json").record == RECORD


def test_what_contradicts_itself_is_an_error(tmp_path):
    path = dump(tmp_path)
    stock = json.loads(path.read_bytes())
    size = stock["records"][0]["nbytes"]
    deep = json.loads("[" * 50 + "]" * 50)
    shard_damages = [
        ("expected the name of a file beside it", "dataPath", name)
        for name in ("../x", "/x", "a/b", "a\\b", "..", ".", "", "a\0b", 1, None)
    ]
    shard_damages += [
        ("cannot read its shard", "dataPath", "\ud800"),
        ("cannot read its shard", "dataPath", "x" * 5000),
        ("has the format 'zip'", "format", "zip"),
        ("has no size, or no list", "nbytes", -1),
        ("has no size, or no list", "nbytes", deep),
        ("has no size, or no list", "records", {}),
    ]
    tensor_damages = [
        ("two tensors 'schicht/größe'", "name", "schicht/größe"),
        ("is not a text", "name", "\udc00"),
        ("without its name, offset or size", "name", deep),
        ("without its name, offset or size", "byteOffset", -1),
        ("without its name, offset or size", "byteOffset", 10**1000),
        ("without its name, offset or size", "nbytes", True),
        (f"ends at byte {size + 1024} of the shard", "byteOffset", size),
        (f"ends at byte {size + 1} of the shard", "nbytes", size + 1),
    ]
    for place, damages in enumerate((shard_damages, tensor_damages)):
        for message, key, value in damages:
            damaged = copy.deepcopy(stock)
            fields = damaged["records"][0]
            (fields["records"][0] if place else fields)[key] = value
            path.write_text(json.dumps(damaged))
            with pytest.raises(ArtifactError, match=message):
                read_artifact(path)


def test_a_malformed_record_is_not_replaced(tmp_path):
    for value in (1, "model-hash/1 x", None):
        path = dump(tmp_path, model_hash_record=value)
        for act in (read_artifact, lambda path: write_record(path, RECORD)):
            with pytest.raises(RecordError, match=r"ndarray-cache\.json': "):
                act(path)


def test_other_json_is_no_tensor_cache(tmp_path):
    path = tmp_path / "tensor-cache.json"
    for value in (
        {"metadata": {}, "cells": []},
        {"metadata": {}, "records": [{"name": "a"}]},
        {"metadata": {}, "records": [1]},
        {"metadata": {}, "records": {}},
        {"records": []},
        {"records": [], "metadata": 1},
    ):
        path.write_text(json.dumps(value))
        with pytest.raises(UnknownArtifactError):
            read_artifact(path)
    path.write_text('{"metadata": {}, "records": []')
    with pytest.raises(ArtifactError, match="is damaged: it is not valid JSON"):
        read_artifact(path)
