# SPDX-License-Identifier: Apache-2.0
"""The model hash is that of the bytes protobuf writes, which are never made as a whole."""

import dataclasses
import hashlib
import os
import random
import subprocess
import sys

import canonical_reference
import numpy as np
import onnx
import pytest
from google.protobuf.internal import api_implementation
from graph_strategies import models
from hypothesis import HealthCheck, given, settings
from onnx import AttributeProto, TensorProto, numpy_helper
from test_canonical import DATA, node_tests
from test_digest import network, tensor_model

from tvm_model_hash import (
    ExternalDataError,
    ModelSerializationError,
    Record,
    model_hash,
    model_record,
    one_pass,
    stream,
)
from tvm_model_hash.model.contents import Content, FileContent, RawContent, open_model

KIB = 1 << 10


def naive(model):
    return hashlib.sha256(model.SerializeToString()).hexdigest()


@pytest.fixture
def everything_is_large(monkeypatch):
    """Takes apart the smallest tensors, and gives the smallest pieces to threads."""
    monkeypatch.setattr(stream, "_SMALL_BYTES", 0)
    monkeypatch.setattr(one_pass, "_SMALL_BYTES", 1)


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
    pieces = stream.serialized(*open_model(model))
    contents = [piece for piece in pieces if isinstance(piece, Content)]
    assert sum(isinstance(piece, RawContent) for piece in contents) == 15
    assert sum(map(one_pass.size_of, pieces)) == len(model.SerializeToString())
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
        cwd=os.path.join(os.path.dirname(__file__), "..", ".."),
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
from test_stream import large_model, LARGE
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


RSS_RUN = """
import resource, sys
import onnx_ir, tvm_model_hash.model.canonical, concurrent.futures.thread
from tvm_model_hash import model_record

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(model_record(sys.argv[1]).model)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_external_data_over_2_gib_takes_little_memory(tmp_path):
    model = large_model(data_location=TensorProto.EXTERNAL)
    for number, tensor in enumerate(model.graph.initializer):
        tensor.external_data.add(key="location", value="data")
        tensor.external_data.add(key="offset", value=str(number * LARGE))
        tensor.external_data.add(key="length", value=str(LARGE))
    onnx.save(model, tmp_path / "m.onnx")
    with open(tmp_path / "data", "wb") as file:
        file.truncate(3 * LARGE)
    found, kib = run(RSS_RUN, tmp_path / "m.onnx")
    assert found == written_by_hand(inside_was_external=True)
    assert int(kib) < 128 * KIB


def test_what_protobuf_cannot_serialize_at_all():
    model = network()
    half = b"s" * (1 << 30)
    for _ in range(2):
        model.graph.node[0].attribute.add(name="s", s=half, type=AttributeProto.STRING)
    with pytest.raises(ModelSerializationError, match="even without the data of its tensors"):
        model_hash(model)


# One pass


@pytest.fixture
def reads(monkeypatch):
    """The contents that are fetched, in this order."""
    found = []
    for kind in (RawContent, FileContent):

        def read(self, index, original=kind.read):
            found.append((id(self), index))
            return original(self, index)

        monkeypatch.setattr(kind, "read", read)
    return found


def weights(count, size=3 << 20):
    return [raw(f"w{number}", size, number) for number in range(count)]


def in_order(tensors, order):
    """A model that uses tensors in another order than that in which they stand in it."""
    model = tensor_model(*(tensors[number] for number in order))
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return model


def expected(model):
    return Record(**canonical_reference.digests(model))


@pytest.mark.parametrize(
    ("order", "expected_reads"),
    [
        (range(10), 10),
        ([1, 0, 3, 2, 6, 5, 4, 7, 9, 8], 10),  # as near as bias and weight of a layer
        ([0, 2, 4, 6, 8, 9], 10),  # the rest is not used
        ([5, 6, 7, 8, 9, 0, 1, 2, 3, 4], None),
        (range(9, -1, -1), None),
    ],
)
def test_each_weight_is_read_once(order, expected_reads, reads):
    model = in_order(weights(10), order)
    record = model_record(model)
    assert len(set(reads)) == 10
    assert len(reads) == expected_reads or (expected_reads is None and len(reads) <= 20)
    assert record == expected(model)


def test_any_order_has_the_same_digests(monkeypatch):
    rng = random.Random(0)
    tensors = [raw(f"w{n}", rng.choice([1, 100, 5000, 70000, 200000]), n) for n in range(30)]
    tensors.append(TensorProto(name="i4", data_type=22, dims=[7], raw_data=b"\x11\x11\x11\xf1"))
    for kept in (0, 100000, 1 << 24):
        for name in ("_KEPT_BYTES", "_AHEAD_BYTES", "_QUEUED_BYTES", "_LARGE_BYTES"):
            monkeypatch.setattr(one_pass, name, kept)
        for _ in range(10):
            order = rng.sample(range(31), rng.randrange(1, 32))
            model = in_order(tensors, order)
            assert model_record(model) == expected(model)


def test_external_weights_are_read_once(tmp_path, reads):
    tensors = weights(4, 9 << 20)
    for order in (range(4), [1, 0, 2, 3]):
        reads.clear()
        model = in_order(tensors, order)
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="data")
        record = model_record(tmp_path / "m.onnx")
        assert len(reads) == len(set(reads)) == 12  # pieces of 4 MiB
        assert record == expected(onnx.load(tmp_path / "m.onnx"))
        os.unlink(tmp_path / "data")


# External data


def external(tmp_path, tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    return tensor


def test_external_data_with_unknown_fields(tmp_path):
    (tmp_path / "data").write_bytes(bytes(9000))
    model = tensor_model(external(tmp_path, raw("w", 9000)))
    for message in (model, model.graph, model.graph.initializer[0]):
        message.MergeFromString(UNKNOWN["low number"])
        onnx.save(model, tmp_path / "m.onnx")
        assert model_record(tmp_path / "m.onnx").model == naive(onnx.load(tmp_path / "m.onnx"))


def test_external_data_of_sparse_tensors(tmp_path):
    # onnx.load leaves them where they are.
    values = numpy_helper.from_array(np.arange(1, 4, dtype=np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 2, 9], np.int64))
    inline = tensor_model(values)
    del inline.graph.initializer[:]
    inline.graph.sparse_initializer.add(values=values, indices=indices, dims=[10])
    model = onnx.ModelProto()
    model.CopyFrom(inline)
    sparse = model.graph.sparse_initializer[0]
    (tmp_path / "data").write_bytes(values.raw_data + indices.raw_data)
    for tensor, offset in ((sparse.values, 0), (sparse.indices, 12)):
        size = len(tensor.raw_data)
        external(tmp_path, tensor)
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(size))
    onnx.save(model, tmp_path / "m.onnx")
    for tensor in (
        inline.graph.sparse_initializer[0].values,
        inline.graph.sparse_initializer[0].indices,
    ):
        tensor.data_location = TensorProto.DEFAULT
    assert model_record(tmp_path / "m.onnx") == model_record(inline)
    with pytest.raises(ExternalDataError, match="was not loaded"):
        model_hash(onnx.load(tmp_path / "m.onnx"))


@pytest.mark.parametrize("change", ["truncated", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read(change, tmp_path):
    data = tmp_path / "data"
    data.write_bytes(bytes(9 << 20))
    onnx.save(tensor_model(external(tmp_path, raw("w", 9 << 20))), tmp_path / "m.onnx")
    model, contents = open_model(tmp_path / "m.onnx")
    content = contents.of(model.graph.initializer[0])
    assert content.read(0) == bytes(4 << 20)
    if change == "truncated":
        os.truncate(data, 5 << 20)
    else:
        data.rename(tmp_path / "old")
        if change == "replaced":
            data.write_bytes(bytes(9 << 20))
    with pytest.raises(ExternalDataError, match="changed while it was read|No such file"):
        content.read(1)
