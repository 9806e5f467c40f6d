# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from conftest import run_python
from parameter_files import ARRAYS, GRAPH, OTHER_RECORD, RECORD, factory

from tvm_model_hash import read_artifact, read_interface, write_record
from tvm_model_hash.artifact.graph_json import graph_with_record, record_in_graph
from tvm_model_hash.artifact.record_io import Role
from tvm_model_hash.errors import (
    ArtifactError,
    FixedRecordError,
    RecordError,
    UnknownArtifactError,
)


@pytest.fixture(scope="module")
def graph():
    return factory().get_graph_json()


def test_a_graph_needs_kernels_and_takes_inputs_and_parameters(written, graph):
    artifact = read_artifact(written / GRAPH)
    assert artifact.role is Role.GRAPH
    assert artifact.needs_kernels
    assert artifact.inputs == ("x", "p0")  # TVM numbers the parameters
    assert list(factory().get_params()) == ["p0"]
    assert artifact.record is None
    # A check would take p0 for an input that the model lacks.
    assert read_interface(written / GRAPH) is None


def test_the_record_is_under_the_last_key(graph):
    tagged = graph_with_record(graph, RECORD)
    metadata = f'{{"model_hash_record": "{RECORD}"}}'
    assert graph.endswith("\n}")
    assert tagged == graph[:-2] + f', \n  "metadata": {metadata}\n}}'
    assert record_in_graph(tagged) == RECORD
    assert record_in_graph(graph) is None
    assert graph_with_record(tagged, None) == graph
    assert graph_with_record(graph, None) == graph
    other = graph_with_record(tagged, OTHER_RECORD)
    assert other == graph_with_record(graph, OTHER_RECORD)
    assert record_in_graph(other) == OTHER_RECORD


RUN = """
import sys
sys.modules["tvm_model_hash"] = None
import numpy as np
import tvm
from tvm.contrib import graph_executor
library = tvm.runtime.load_module(sys.argv[1])
module = graph_executor.create(open(sys.argv[2]).read(), library, tvm.cpu())
module.load_params(open(sys.argv[3], "rb").read())
module.run(x=np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16))
np.save(sys.argv[4], module.get_output(0).numpy())
"""


def test_a_stock_graph_executor_runs_what_was_tagged(files, tmp_path):
    # The kernels alone: the library of the factory would bring the graph.
    factory().get_lib().export_library(str(tmp_path / "lib.so"))
    from tvm import nd, runtime

    params = {name: nd.array(array) for name, array in factory().get_params().items()}
    runtime.save_param_dict_to_file(params, str(tmp_path / "p.params"))
    outputs = []
    for record in (None, RECORD):
        write_record(files / GRAPH, record)
        write_record(tmp_path / "p.params", record)
        paths = (files / GRAPH, tmp_path / "p.params", tmp_path / "y.npy")
        run_python(RUN, tmp_path / "lib.so", *paths, env={"TVM_MODEL_HASH": "0"})
        outputs.append(np.load(tmp_path / "y.npy"))
    assert outputs[0].tobytes() == outputs[1].tobytes()
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    np.testing.assert_allclose(outputs[0], np.maximum(x @ ARRAYS["w"].T, 0), rtol=1e-5, atol=1e-5)


def test_a_graph_of_any_layout_gets_its_bytes_back(graph):
    parsed = json.loads(graph)
    reordered = dict(sorted(parsed.items()))
    for value in (parsed, reordered):
        for layout in ({}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t"}):
            for end in ("", "\n", " \r\n\t"):
                text = json.dumps(value, **layout) + end
                tagged = graph_with_record(text, RECORD)
                assert record_in_graph(tagged) == RECORD
                assert list(json.loads(tagged))[-1] == "metadata"
                assert graph_with_record(tagged, None) == text


def test_any_key_may_be_the_first(tmp_path, graph):
    path = tmp_path / "graph.json"
    parsed = json.loads(graph)
    for key in parsed:
        path.write_text(json.dumps({key: parsed[key], **parsed}))
        write_record(path, RECORD)
        assert read_artifact(path).record == RECORD


def test_what_tvm_does_not_load_is_an_error(tmp_path, graph):
    value = json.loads(graph)
    wrong = {
        "it has the keys": [
            {key: value[key] for key in ("nodes", "arg_nodes", "heads")},
            {**value, "more": 1},
            {"nodes": value["nodes"], "metadata": {}, **value},
            {**value, "metadata": {}, "more": 1},
        ],
        "are not all lists": [{**value, "nodes": {}}, {**value, "node_row_ptr": 1}],
        "it has 3 nodes, and 3 rows": [{**value, "node_row_ptr": [0, 1, 2]}],
        "is none of its 3 nodes": [
            {**value, "arg_nodes": [index]} for index in (3, -1, True, "0", 1.0, [])
        ],
        "which has no name": [
            {**value, "nodes": [node, *value["nodes"][1:]]} for node in ({}, 1, {"name": 1})
        ],
    }
    path = tmp_path / "graph.json"
    for message, graphs in wrong.items():
        for content in graphs:
            path.write_text(json.dumps(content))
            with pytest.raises(ArtifactError, match=message) as caught:
                read_artifact(path)
            assert repr(str(path)) in str(caught.value)


def test_metadata_of_another_tool_is_kept(tmp_path, graph):
    path = tmp_path / "graph.json"
    for metadata in ({}, {"a": 1}, "text", {"a": 1, "model_hash_record": str(RECORD)}):
        text = json.dumps({**json.loads(graph), "metadata": metadata})
        path.write_text(text)
        expected = RECORD if "model_hash_record" in metadata else None
        assert read_artifact(path).record == expected
        for record in (None, RECORD):
            with pytest.raises(FixedRecordError, match="'metadata' is of another tool"):
                write_record(path, record)
        assert path.read_text() == text


def test_a_record_that_is_malformed_is_not_replaced(tmp_path, graph):
    path = tmp_path / "graph.json"
    for value in (1, None, "model-hash/1 x", ["model-hash/1"], "größe"):
        path.write_text(json.dumps({**json.loads(graph), "metadata": {"model_hash_record": value}}))
        for act in (read_artifact, lambda path: write_record(path, RECORD)):
            with pytest.raises(RecordError, match=r"graph\.json': "):
                act(path)


def test_other_json_is_no_graph(tmp_path):
    path = tmp_path / "graph.json"
    for text in ("{}", '{"edges": [], "nodes": []}', "[1]", '"nodes"', "{", '{"a', "{nodes: 1}"):
        path.write_text(text)
        with pytest.raises(UnknownArtifactError):
            read_artifact(path)
