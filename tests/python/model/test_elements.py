# SPDX-License-Identifier: Apache-2.0
"""How the elements of tensors are stored, and what their content is."""

import struct

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import check_differ, check_equal, check_invalid, floats, tensor_model

from tvm_model_hash.model.digest import model_record

ELEMENTS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT16: np.int16,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT32: np.uint32,
    TensorProto.UINT64: np.uint64,
    TensorProto.COMPLEX64: np.complex64,
    TensorProto.COMPLEX128: np.complex128,
}


PACKED = {
    TensorProto.UINT4: (b"\x21\x03", b"\x21\xf3"),
    TensorProto.INT4: (b"\x21\x0f", b"\x21\xff"),
    TensorProto.FLOAT8E4M3FN: (b"\x01\x02\xff", None),
    TensorProto.FLOAT8E5M2FNUZ: (b"\x01\x02\xff", None),
    TensorProto.BFLOAT16: (b"\x80\x3f\x00\xc0\x01\x7f", None),
    23: (b"\x21\x03", b"\x21\x93"),  # FLOAT4E2M1
    25: (b"\x24", b"\xe4"),  # UINT2
    26: (b"\x13", b"\x53"),  # INT2
    27: (b"\x01\xf0\x03", b"\x01\xf0\xff"),  # FLOAT6E2M3
}


@pytest.mark.parametrize("data_type", ELEMENTS)
def test_typed_field_equals_raw_data(data_type):
    array = np.array([0, 1, 1], ELEMENTS[data_type])
    if array.dtype.kind in "fci":
        array[2] = -1
    typed = helper.make_tensor("w", data_type, [3], array)
    assert not typed.HasField("raw_data")
    raw = TensorProto(name="w", data_type=data_type, dims=[3], raw_data=array.tobytes())
    check_equal(tensor_model(typed), tensor_model(raw))
    array[1] = 0
    raw.raw_data = array.tobytes()
    check_differ(tensor_model(typed), tensor_model(raw))


@pytest.mark.parametrize("data_type", PACKED)
def test_unused_bits_do_not_count(data_type):
    raw, garbage = PACKED[data_type]
    model, other = (
        tensor_model(TensorProto(name="w", data_type=data_type, dims=[3], raw_data=data))
        for data in (raw, garbage or raw)
    )
    check_equal(model, other)
    typed = TensorProto(name="w", data_type=data_type, dims=[3])
    width = len(raw) // 3 if len(raw) > 3 else 1
    entries = [1, 0, 63] if data_type == 27 else np.frombuffer(raw, f"<u{width}").tolist()
    typed.int32_data.extend(entries)
    check_equal(model, tensor_model(typed))
    if garbage and data_type != 27:
        typed.int32_data[-1] = garbage[-1]
        check_equal(model, tensor_model(typed))
    changed = bytes([raw[0] ^ 1]) + raw[1:]
    check_differ(
        model,
        tensor_model(TensorProto(name="w", data_type=data_type, dims=[3], raw_data=changed)),
    )


def test_strings_are_bound_one_by_one():
    def model(*strings):
        return tensor_model(helper.make_tensor("w", TensorProto.STRING, [len(strings)], strings))

    check_equal(model(b"ab", b""), model(b"ab", b""))
    check_differ(model(b"ab", b""), model(b"a", b"b"))


def test_empty_tensors():
    raw = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0, 2])
    check_equal(tensor_model(raw), tensor_model(floats("w", np.zeros((0, 2)))))
    check_differ(tensor_model(raw), tensor_model(floats("w", np.zeros((2, 0)))))


def test_negative_zero_and_nan_are_values():
    nan = struct.pack("<I", 0x7FC00001)
    tensors = [floats("w", [value]) for value in (0.0, -0.0, np.nan)]
    tensors.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=nan))
    models = [tensor_model(tensor) for tensor in tensors]
    assert len({model_record(model).weights for model in models}) == 4
    check_differ(models[0], models[1])
    check_differ(models[2], models[3], "weight 0, 'w': content differs")


def broken_tensor(**fields):
    return tensor_model(TensorProto(**{"name": "w", "data_type": 1, "dims": [2], **fields}))


def sparse_model(dims):
    model = broken_tensor()
    tensor = model.graph.sparse_initializer.add(dims=dims)
    tensor.values.CopyFrom(floats("s", [1]))
    tensor.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [0]))
    model.graph.node[0].input[0] = "s"
    return model


INVALID = {
    "too much data": (
        broken_tensor(raw_data=bytes(9)),
        r"weight 0, 'w': tensor 'w' holds 9 bytes, expected 8 for FLOAT \(2\)",
    ),
    "too little data": (broken_tensor(float_data=[1]), "holds 4 bytes, expected 8"),
    "no data": (broken_tensor(), "holds 0 bytes, expected 8"),
    "no data for a scalar": (broken_tensor(dims=[]), "holds 0 bytes, expected 4"),
    "too few strings": (
        broken_tensor(data_type=TensorProto.STRING, string_data=[b"a"]),
        r"holds 1 strings, expected 2 for the shape \(2\)",
    ),
    "strings in raw data": (
        broken_tensor(data_type=TensorProto.STRING, raw_data=b"ab"),
        "is of strings, expected them in string_data",
    ),
    "data of another type": (
        broken_tensor(int32_data=[1, 2]),
        "holds data in int32_data, expected it in raw_data, in float_data or in a file alone",
    ),
    "data twice": (
        broken_tensor(float_data=[1, 2], raw_data=bytes(8)),
        "in float_data and raw_data, expected it in raw_data, in float_data or in a file alone",
    ),
    "element that its type can't hold": (
        broken_tensor(data_type=27, int32_data=[1, 64]),
        "weight 0, 'w': tensor 'w'",
    ),
    "unknown element type": (broken_tensor(data_type=99), "has the element type 99"),
    "no element type": (broken_tensor(data_type=0), "has the element type 0"),
    "negative size": (broken_tensor(dims=[-1]), r"has the shape \(-1\)"),
    "data for no elements": (broken_tensor(dims=[0], raw_data=bytes(64)), "holds 64 bytes, exp"),
    "empty raw data beside a typed field": (
        broken_tensor(float_data=[1, 2], raw_data=b""),
        "holds data in float_data and raw_data",
    ),
    "typed fields of two types": (
        broken_tensor(float_data=[1, 2], double_data=[1]),
        "holds data in float_data and double_data",
    ),
    "empty raw data of strings": (
        broken_tensor(data_type=TensorProto.STRING, dims=[0], raw_data=b""),
        "is of strings, expected them in string_data",
    ),
    "too many entries for elements of 6 bits": (
        broken_tensor(data_type=27, dims=[3], int32_data=[1, 2, 3, 4]),  # 3 bytes either way
        "holds 4 entries, expected 3",
    ),
    "a segment": (
        broken_tensor(raw_data=bytes(8), segment=TensorProto.Segment(begin=0, end=2)),
        "is a segment, expected the whole tensor",
    ),
    "65 dimensions": (broken_tensor(dims=[1] * 65, raw_data=bytes(4)), "has 65 dimensions"),
    "a sparse tensor of 65 dimensions": (sparse_model([1] * 65), "has 65 dimensions"),
    "2^63 elements": (broken_tensor(dims=[2**62, 2]), "fewer than 9223372036854775808 elements"),
    "2^63 elements, and none": (
        broken_tensor(dims=[0, 2**62, 2]),
        "fewer than 9223372036854775808 elements",
    ),
    "sizes that take long to multiply": (broken_tensor(dims=[2**62] * 20_000), "20000 dimensions"),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_tensor_that_contradicts_itself(name):
    check_invalid(*INVALID[name])


def test_64_dimensions_and_almost_2_to_63_elements_are_fine():
    model_record(broken_tensor(dims=[1] * 64, raw_data=bytes(4)))
    model_record(broken_tensor(dims=[0, 2**62, 1], raw_data=b""))


# The bits of the numbers in an entry, by element type.
ENTRIES = {2: 8, 3: 8, 9: 8, 4: 16, 5: 16, 10: 16, 16: 16, 17: 8, 24: 8, 21: 8, 22: 8, 23: 8}
ENTRIES |= {25: 8, 26: 8, 27: 6, 28: 6}


@pytest.mark.parametrize("data_type", ENTRIES)
def test_numbers_that_do_not_fit_into_an_element_are_refused(data_type):
    bits = ENTRIES[data_type]
    low, high = -(2 ** (bits - 1)), 2**bits - 1

    def model(number):
        return broken_tensor(data_type=data_type, dims=[1], int32_data=[number])

    check_equal(model(-1), model(high))
    model_record(model(low))
    for number in (low - 1, high + 1):
        check_invalid(model(number), f"int32_data holds {number}, expected numbers from {low} to")


def test_an_unsigned_number_of_32_bits_that_does_not_fit_is_refused():
    def model(number):
        return broken_tensor(data_type=TensorProto.UINT32, dims=[1], uint64_data=[number])

    model_record(model(2**32 - 1))
    check_invalid(model(2**32), "uint64_data holds 4294967296, expected numbers from")


def test_external_data_beside_other_data_is_refused(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(8))
    path = tmp_path / "model.onnx"
    for fields in ({"raw_data": bytes(8)}, {"raw_data": b""}, {"float_data": [1.0, 2.0]}, {}):
        model = broken_tensor(**fields)
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        path.write_bytes(model.SerializeToString())
        if fields:
            check_invalid(path, f"holds data in {next(iter(fields))} and a file")
        else:
            check_equal(path, broken_tensor(raw_data=bytes(8)))


def test_external_data_of_a_tensor_that_is_not_external_does_not_count():
    model = broken_tensor(raw_data=bytes(8))
    model.graph.initializer[0].external_data.add(key="location", value="nowhere")
    check_equal(model, broken_tensor(raw_data=bytes(8)))
