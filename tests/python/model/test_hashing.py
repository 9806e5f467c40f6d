# SPDX-License-Identifier: Apache-2.0
"""Each weight is read once, whatever the order, for the model's digest and its own."""

import hashlib
import random

import canonical_reference
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import tensor_model
from test_protobuf_bytes import naive, raw

from tvm_model_hash import Record, model_hash, model_record
from tvm_model_hash.model import contents, file, hashing
from tvm_model_hash.model.contents import Content, FileContent, RawContent, open_model


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


ORDERS = [range(10), [1, 0, 3, 2, 6, 5, 4, 7, 9, 8], range(9, -1, -1), [5, 0, 9], [4, 4, 4, 2, 4]]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_each_weight_is_read_once(order, reads):
    model = in_order(weights(10), order)
    record = model_record(model)
    assert len(reads) == len(set(reads)) == 10
    assert record == expected(model)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("is_inline", [True, False])
def test_each_weight_in_a_file_is_read_once(order, is_inline, reads, tmp_path):
    model = in_order(weights(10), order)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=not is_inline, location="data")
    record = model_record(path)
    assert len(reads) == len(set(reads)) == 30  # pieces of 1 MiB
    assert record == expected(onnx.load(path))


def test_weights_in_attributes_and_functions_are_read_once(reads):
    function = helper.make_node("Constant", [], ["c"], value=raw("", 9000, 3))
    model = tensor_model(raw("w", 9000, 1))
    model.graph.node[0].domain = "f"
    model.graph.node[0].op_type = "F"
    model.graph.node.add(op_type="Constant", output=["k"]).attribute.append(
        helper.make_attribute("value", raw("", 9000, 2))
    )
    model.graph.node[0].input.append("k")
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("f", "F", ["a", "b"], ["c"], [function], imports),
    )
    assert model_record(model) == expected(model)
    assert len(reads) == len(set(reads)) == 3


def test_the_model_hash_alone_takes_one_digest(monkeypatch):
    fed = []
    original = Content.feed
    monkeypatch.setattr(
        Content, "feed", lambda self, index, data: fed.append(index) or original(self, index, data)
    )
    model = tensor_model(*weights(3))
    assert model_hash(model) == naive(model)
    assert fed == []
    model_record(model)
    assert fed == [0, 0, 0]


@pytest.mark.parametrize("limit", [1, 5000, 100000])
def test_pieces_of_any_size_in_any_order_have_the_same_digests(limit, monkeypatch, tmp_path):
    monkeypatch.setattr(hashing, "_LARGE_BYTES", limit)
    monkeypatch.setattr(hashing, "_SMALL_BYTES", limit)
    monkeypatch.setattr(contents, "_READ_BYTES", limit + 4096)
    rng = random.Random(limit)
    tensors = [raw(f"w{n}", rng.choice([1, 100, 5000, 70000, 200000]), n) for n in range(30)]
    tensors.append(TensorProto(name="i4", data_type=22, dims=[7], raw_data=b"\x11\x11\x11\xf1"))
    tensors.append(TensorProto(name="f", data_type=1, dims=[5000], float_data=[0.5] * 5000))
    for _ in range(5):
        model = in_order(tensors, rng.sample(range(32), rng.randrange(1, 33)))
        onnx.save(model, tmp_path / "m.onnx")
        assert model_record(model) == model_record(tmp_path / "m.onnx") == expected(model)


# A content's digest


UNUSED_BITS = {
    "INT4": ((22, [9001]), 0xF0),
    "INT4 of two dimensions": ((22, [3, 3001]), 0xF0),
    "INT4 without": ((22, [9002]), 0),
    "INT2, one": ((26, [18003]), 0xC0),
    "INT2, three": ((26, [18001]), 0xFC),
    "FLOAT6E2M3": ((27, [6001]), 0xC0),
    "UINT8": ((2, [4501]), 0),
    "unknown": ((99, [9001]), 0),
}


@pytest.mark.parametrize("name", UNUSED_BITS)
@pytest.mark.parametrize("where", ["memory", "model file", "external file"])
def test_unused_bits_of_the_last_byte_are_0(name, where, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_READ_BYTES", 1000)
    (data_type, dims), unused = UNUSED_BITS[name]
    data = bytes([0xFF]) * 4501
    tensor = TensorProto(name="w", data_type=data_type, dims=dims, raw_data=data)
    model = onnx.ModelProto(graph={"initializer": [tensor]})
    path = tmp_path / "m.onnx"
    if where != "memory":
        external = where == "external file"
        onnx.save(model, path, save_as_external_data=external, location="data", size_threshold=0)
        model = path
    model, found = open_model(model, measured=True)
    content = found.of(model.graph.initializer[0])
    assert isinstance(content, RawContent if where == "memory" else FileContent)
    masked = data[:-1] + bytes([0xFF & ~unused])
    assert content.size == len(data)
    for _ in range(2):
        assert content.sha256() == hashlib.sha256(masked).digest()


def test_a_content_of_no_bytes():
    tensor = TensorProto(data_type=2, dims=[0], raw_data=b"")
    _, found = open_model(onnx.ModelProto(graph={}))
    content = found.of(tensor)
    assert (content.size, len(content)) == (0, 0)
    assert content.sha256() == hashlib.sha256().digest()


def test_the_digest_that_was_fed_is_not_read_again(reads):
    tensor = raw("w", 5000, 7)
    _, found = open_model(onnx.ModelProto(graph={}))
    content = found.of(tensor)
    assert found.of(tensor) is content
    content.feed(0, tensor.raw_data)
    assert content.sha256() == hashlib.sha256(tensor.raw_data).digest()
    assert reads == []


def test_of_small_contents_none_is_kept():
    # A model may have a million of them.
    _, found = open_model(onnx.ModelProto(graph={}))
    small, large = raw("a", file.LARGE_BYTES - 1), raw("b", file.LARGE_BYTES)
    assert found.of(small) is not found.of(small)
    assert found.of(large) is found.of(large)
