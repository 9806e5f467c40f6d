# SPDX-License-Identifier: Apache-2.0
"""The model hash is that of the bytes protobuf writes, which are never made as a whole."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import onnx
import pytest
from google.protobuf.internal import api_implementation
from graph_strategies import models
from hypothesis import HealthCheck, given, settings
from onnx import AttributeProto, TensorProto
from small_models import network
from test_canonical import DATA, node_tests

from tvm_model_hash import ModelSerializationError, model_hash, model_record
from tvm_model_hash.model import hashing, protobuf_bytes
from tvm_model_hash.model.contents import RawContent, open_model, size_of


def naive(model):
    return hashlib.sha256(model.SerializeToString()).hexdigest()


@pytest.fixture
def everything_is_large(monkeypatch):
    """Takes apart the smallest tensors, and gives the smallest pieces to threads."""
    monkeypatch.setattr(protobuf_bytes, "LARGE_BYTES", 0)
    monkeypatch.setattr(hashing, "_SMALL_BYTES", 1)


def raw(name, size, fill=1):
    return TensorProto(
        name=name, data_type=TensorProto.UINT8, dims=[size], raw_data=bytes([fill]) * size
    )


def filled_model():
    """Tensors of over 4 KiB wherever a model may have one, and fields that are set and empty."""
    tensors = (raw(f"t{number}", 5000 + number, number) for number in range(20))
    model = onnx.ModelProto(ir_version=8, producer_name="", doc_string="d")
    graph = model.graph
    graph.initializer.extend([next(tensors), TensorProto(), raw("small", 3), next(tensors)])
    graph.sparse_initializer.add(values=next(tensors), indices=next(tensors), dims=[9])
    graph.sparse_initializer.add()
    graph.value_info.add()
    graph.quantization_annotation.add(tensor_name="t")
    graph.node.add(op_type="A")
    node = graph.node.add(op_type="B", input=["", "x"], doc_string="")
    inner = onnx.GraphProto(name="", initializer=[next(tensors)])
    inner.node.add().attribute.add().t.CopyFrom(next(tensors))
    for attribute in (
        AttributeProto(t=next(tensors), i=3),
        AttributeProto(tensors=[raw("small", 1), next(tensors)], ints=[1, 2]),
        AttributeProto(g=inner, s=b""),
        AttributeProto(graphs=[onnx.GraphProto(), inner]),
        AttributeProto(sparse_tensor=onnx.SparseTensorProto(values=next(tensors))),
        AttributeProto(sparse_tensors=[onnx.SparseTensorProto(indices=next(tensors))]),
        AttributeProto(t=TensorProto(float_data=[0.5] * 5000, dims=[5000], data_type=1)),
        AttributeProto(t=TensorProto(string_data=[b"s" * 9000], dims=[1], data_type=8)),
        AttributeProto(t=TensorProto(int64_data=[-1] * 3, raw_data=b"", data_type=7)),
    ):
        node.attribute.append(attribute)
    node.attribute[0].t.data_location = TensorProto.DEFAULT
    node.attribute[0].t.doc_string = ""
    node.attribute[0].t.segment.begin = 0
    model.functions.add(name="f").node.add().attribute.add().t.CopyFrom(next(tensors))
    model.functions[0].attribute_proto.add().t.CopyFrom(next(tensors))
    model.training_info.add().algorithm.initializer.append(next(tensors))
    model.metadata_props.add(key="k", value="")
    model.opset_import.add(version=15)
    return model


def messages(message):
    """A message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                yield from messages(child)


def test_tensors_everywhere():
    model = filled_model()
    pieces = protobuf_bytes.serialized(*open_model(model))
    assert sum(isinstance(piece, RawContent) for piece in pieces) == 15
    assert sum(map(size_of, pieces)) == len(model.SerializeToString())
    # What protobuf was left with.
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 1500
    assert model_hash(model) == naive(model)


UNKNOWN = {
    "varint": b"\xb8\x3e\x01",  # field 999
    "padded varint": b"\xb8\xbe\x00\x81\x80\x00",
    "bytes": b"\xba\x3e\x03abc",
    "group": b"\xbb\x3e\xb8\x3e\x01\xba\x3e\x00\xb9\x3e\x01234567z\xbd\x3e0123\xbc\x3e",
    "low number": b"\x9d\x01abcd",  # 19, in the middle of the others' or above them
    "known number of another type": b"\x3d\0\0\0\0\x4d\0\0\0\0\x2d\0\0\0\0\x0d\0\0\0\0",
}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_unknown_fields_in_each_message(unknown):
    count = len(list(messages(filled_model())))
    assert count > 50
    for index in range(count):
        model = filled_model()
        message = list(messages(model))[index]
        before = len(model.SerializeToString())
        message.MergeFromString(UNKNOWN[unknown])
        assert len(model.SerializeToString()) > before
        assert model_hash(model) == naive(model)


def test_names_that_are_not_utf8_in_each_message():
    for index in range(len(list(messages(filled_model())))):
        model = filled_model()
        message = list(messages(model))[index]
        number = next(
            (f.number for f in message.DESCRIPTOR.fields if f.type == f.TYPE_STRING), None
        )
        if number is not None:
            message.MergeFromString(bytes([number << 3 | 2, 1, 0xFF]))
            assert model_hash(model) == naive(model)


def test_an_enumerator_that_is_unknown():
    model = filled_model()
    model.graph.initializer[0].MergeFromString(b"\x70\x63")  # data_location
    model.graph.node[1].attribute[0].MergeFromString(b"\xa0\x01\x63")  # type
    assert model_hash(model) == naive(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("everything_is_large")
def test_onnx_node_tests():
    cases = node_tests()
    assert len(cases) > 1000
    assert [name for name, model in cases if model_hash(model) != naive(model)] == []


@pytest.mark.parametrize("path", sorted(DATA.glob("light/*.onnx")), ids=lambda path: path.stem)
def test_networks(path):
    model = onnx.load(path)
    assert model_hash(model) == naive(model) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("everything_is_large")
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(model=models())
def test_generated_models(model):
    assert model_record(model).model == model_hash(model) == naive(model)


@pytest.mark.skipif(api_implementation.Type() == "python", reason="runs in the one below")
def test_protobuf_in_python():
    """All tests above, with protobuf's other back end."""
    names = "tensors_everywhere unknown enumerator node_tests networks generated sizes"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", names.replace(" ", " or ")],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        cwd=os.path.join(os.path.dirname(__file__), "..", "..", ".."),
        check=True,
    )


@pytest.mark.parametrize("size", [0, 5, 5000, 6000, 70000])
def test_sizes_that_type_and_shape_do_not_tell(size):
    # Unused, so it is no error.
    for tensor in (
        TensorProto(dims=[6000], data_type=TensorProto.UINT8, raw_data=bytes(size)),
        TensorProto(dims=[-6000], data_type=TensorProto.UINT8, raw_data=bytes(size)),
        TensorProto(dims=[6000], data_type=99, raw_data=bytes(size)),
        TensorProto(dims=[2**62, 2**62], data_type=TensorProto.DOUBLE, raw_data=bytes(size)),
        TensorProto(raw_data=bytes(size)),
    ):
        model = network()
        model.graph.initializer.extend([raw("a1", 5000), tensor, raw("a2", 5000)])
        assert model_hash(model) == naive(model)
        assert model_record(model) == dataclasses.replace(
            model_record(network()), model=naive(model)
        )


# Over 2 GiB


def varint(value):
    return (bytes([value & 0x7F | 0x80]) + varint(value >> 7)) if value >= 0x80 else bytes([value])


def number_field(number, value):
    return varint(number << 3) + varint(value)


def bytes_field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


MEGA = 1_000_000
LARGE = 900 * MEGA


def written_by_hand(inside_was_external):
    """SHA-256 of a model with three large tensors of zeros, after the specification of protobuf's
    wire format and the numbers in onnx.proto.
    """
    data = varint(9 << 3 | 2) + varint(LARGE)
    tail = number_field(14, 0) if inside_was_external else b""
    tensors = []
    for name in (b"a", b"b", b"c"):
        head = number_field(1, LARGE) + number_field(2, 2) + bytes_field(8, name) + data
        size = len(head) + LARGE + len(tail)
        tensors.append((varint(5 << 3 | 2) + varint(size) + head, tail))
    node = b"".join(bytes_field(1, name) for name in (b"a", b"b", b"c"))
    before = bytes_field(1, node + bytes_field(2, b"y") + bytes_field(4, b"Op"))
    before += bytes_field(2, b"g")
    after = bytes_field(12, bytes_field(1, b"y"))
    size = len(before) + len(after) + sum(len(a) + LARGE + len(b) for a, b in tensors)
    digest = hashlib.sha256(number_field(1, 8) + varint(7 << 3 | 2) + varint(size) + before)
    zeros = bytes(MEGA)
    for head, tail in tensors:
        digest.update(head)
        for _ in range(LARGE // MEGA):
            digest.update(zeros)
        digest.update(tail)
    digest.update(after + bytes_field(8, bytes_field(1, b"") + number_field(2, 15)))
    return digest.hexdigest()


def large_model(**fields):
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain="", version=15)
    model.graph.name = "g"
    model.graph.node.add(op_type="Op", input=["a", "b", "c"], output=["y"])
    for name in ("a", "b", "c"):
        tensor = model.graph.initializer.add(name=name, data_type=TensorProto.UINT8, dims=[LARGE])
        for key, value in fields.items():
            setattr(tensor, key, value)
    model.graph.output.add(name="y")
    return model


# Its own process, so that the memory is free again.
LARGE_RUN = """
import resource, sys
from test_protobuf_bytes import large_model, LARGE
from tvm_model_hash import model_hash

model = large_model(raw_data=bytes(LARGE))
try:
    model.SerializeToString()
except Exception:
    print(model_hash(model))
"""


def run(code, *arguments):
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()


def test_a_model_over_2_gib():
    assert run(LARGE_RUN) == [written_by_hand(inside_was_external=False)]


def test_what_protobuf_cannot_serialize_at_all():
    model = network()
    half = b"s" * (1 << 30)
    for _ in range(2):
        model.graph.node[0].attribute.add(name="s", s=half, type=AttributeProto.STRING)
    with pytest.raises(ModelSerializationError, match="even without the data of its tensors"):
        model_hash(model)
