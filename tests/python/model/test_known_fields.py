# SPDX-License-Identifier: Apache-2.0
"""Fields that FORMAT.md does not know: refused where they may count, and nowhere else."""

import onnx
import pytest
from small_models import check_invalid, function_model, parse, sparse

from tvm_model_hash.model import known_fields
from tvm_model_hash.model.digest import model_record


def model_of_all():
    """A model with a message of each kind at places that count, and at some that do not."""
    model = function_model("<p: int = 1> (a) => (b) { b = Neg <v: int = @p> (a) }")
    graph = model.graph
    graph.input.add(name="s").type.sparse_tensor_type.shape.dim.add(dim_value=1)
    graph.input.add(name="q").type.sequence_type.elem_type.tensor_type.elem_type = 1
    graph.input.add(name="m").type.map_type.value_type.tensor_type.elem_type = 1
    graph.input.add(name="o").type.optional_type.elem_type.tensor_type.elem_type = 1
    graph.input.add(name="u").type.opaque_type.name = "any"
    graph.initializer.add(name="w", data_type=1, dims=[1], float_data=[1.0])
    graph.sparse_initializer.append(sparse("t"))
    graph.node[0].input.extend(["w", "t"])
    other = parse(
        "(bool c, float x) => (float y) {"
        " y = Scan <body = b (float i) => (float r) { r = Neg (i) }> (x) }"
    )
    graph.node[0].attribute.append(other.graph.node[0].attribute[0])
    graph.initializer.add(name="unused")
    graph.node.add(op_type="Unused").attribute.add(name="v")
    graph.value_info.add(name="y").type.tensor_type.elem_type = 1
    model.functions.add(name="unused")
    model.metadata_props.add(key="key")
    return model


COUNTED = {
    "model": lambda m: m,
    "import": lambda m: m.opset_import[0],
    "graph": lambda m: m.graph,
    "input": lambda m: m.graph.input[0],
    "output": lambda m: m.graph.output[0],
    "type": lambda m: m.graph.input[0].type,
    "tensor type": lambda m: m.graph.input[0].type.tensor_type,
    "shape": lambda m: m.graph.input[0].type.tensor_type.shape,
    "sparse tensor type": lambda m: m.graph.input[1].type.sparse_tensor_type,
    "dimension": lambda m: m.graph.input[1].type.sparse_tensor_type.shape.dim[0],
    "sequence type": lambda m: m.graph.input[2].type.sequence_type,
    "type of elements": lambda m: m.graph.input[2].type.sequence_type.elem_type,
    "map type": lambda m: m.graph.input[3].type.map_type,
    "optional type": lambda m: m.graph.input[4].type.optional_type,
    "opaque type": lambda m: m.graph.input[5].type.opaque_type,
    "node": lambda m: m.graph.node[0],
    "attribute": lambda m: m.graph.node[0].attribute[0],
    "subgraph": lambda m: m.graph.node[0].attribute[0].g,
    "node of a subgraph": lambda m: m.graph.node[0].attribute[0].g.node[0],
    "input of a subgraph": lambda m: m.graph.node[0].attribute[0].g.input[0],
    "type in a subgraph": lambda m: m.graph.node[0].attribute[0].g.input[0].type,
    "output of a subgraph": lambda m: m.graph.node[0].attribute[0].g.output[0],
    "initializer": lambda m: m.graph.initializer[0],
    "sparse initializer": lambda m: m.graph.sparse_initializer[0],
    "its values": lambda m: m.graph.sparse_initializer[0].values,
    "its indices": lambda m: m.graph.sparse_initializer[0].indices,
    "function": lambda m: m.functions[0],
    "import of a function": lambda m: m.functions[0].opset_import[0],
    "default": lambda m: m.functions[0].attribute_proto[0],
    "node of a function": lambda m: m.functions[0].node[0],
    "reference": lambda m: m.functions[0].node[0].attribute[0],
}
NOT_COUNTED = {
    "unused initializer": lambda m: m.graph.initializer[1],
    "unused node": lambda m: m.graph.node[1],
    "unused node's attribute": lambda m: m.graph.node[1].attribute[0],
    "value": lambda m: m.graph.value_info[0],
    "type of a value": lambda m: m.graph.value_info[0].type,
    "type of a subgraph's output": lambda m: m.graph.node[0].attribute[0].g.output[0].type,
    "unused function": lambda m: m.functions[1],
    "metadata": lambda m: m.metadata_props[0],
}
# Field 999, in protobuf's encoding, and a field of number 26 or 10.
UNKNOWN = b"\xb8\x3e\x01"


@pytest.mark.parametrize("place", COUNTED)
def test_an_unknown_field_in_what_counts_is_refused(place):
    model = model_of_all()
    model_record(model)
    COUNTED[place](model).MergeFromString(UNKNOWN)
    check_invalid(model, "has the field 999, or a value of it, which is not known")


@pytest.mark.parametrize("place", NOT_COUNTED)
def test_an_unknown_field_in_what_does_not_count_is_not_refused(place):
    model = model_of_all()
    expected = model_record(model)
    NOT_COUNTED[place](model).MergeFromString(UNKNOWN)
    found = model_record(model)
    assert found.model != expected.model
    assert (found.graph, found.weights) == (expected.graph, expected.weights)


def test_an_unknown_field_of_external_data_is_refused(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(4))
    model = model_of_all()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add(key="location", value="w.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    model_record(path)
    entry.MergeFromString(UNKNOWN)
    path.write_bytes(model.SerializeToString())
    check_invalid(path, "StringStringEntryProto has the field 999")


def test_device_configurations_do_not_count_whether_onnx_knows_them_or_not():
    model = model_of_all()
    expected = model_record(model)
    model.MergeFromString(b"\xd2\x01\x00")  # field 26, an empty message
    model.graph.node[0].MergeFromString(b"\x52\x00")  # field 10
    found = model_record(model)
    assert found.model != expected.model
    assert (found.graph, found.weights) == (expected.graph, expected.weights)
    model.graph.MergeFromString(b"\xd2\x01\x00")
    check_invalid(model, "GraphProto has the field 26")


def test_a_value_that_an_enum_does_not_know_is_refused():
    model = model_of_all()
    model.graph.node[0].attribute[0].MergeFromString(b"\xa0\x01\x63")  # type 99
    check_invalid(model, "AttributeProto has the field 20, or a value of it")
    model = model_of_all()
    model.graph.initializer[0].MergeFromString(b"\x70\x63")  # data_location 99
    check_invalid(model, "TensorProto has the field 14, or a value of it")


def test_a_field_that_only_the_installed_onnx_knows_is_refused(monkeypatch):
    model = model_of_all()
    model.graph.node[0].doc_string = "as if doc_string were new"
    model_record(model)
    monkeypatch.setitem(known_fields._NUMBERS, "NodeProto", {1, 2, 3, 4, 5, 7, 8, 9, 10})
    known_fields._newer_fields.cache_clear()
    try:
        check_invalid(model, "NodeProto has the field 6")
    finally:
        known_fields._newer_fields.cache_clear()


def test_all_fields_of_the_installed_onnx_are_known_or_newer_than_1_23():
    version = tuple(map(int, onnx.__version__.split(".")[:2]))
    for name, numbers in known_fields._NUMBERS.items():
        found = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name[name.split(".")[0]]
        for part in name.split(".")[1:]:
            found = found.nested_types_by_name[part]
        assert version > (1, 23) or {field.number for field in found.fields} <= numbers
