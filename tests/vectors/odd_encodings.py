# SPDX-License-Identifier: Apache-2.0
"""Good models byte by byte: odd encodings, and fields that do not count. See make_models.py."""

import struct

from wire import (
    UNKNOWN,
    attribute,
    field,
    graph,
    model,
    nested,
    node,
    of_input_type,
    of_node,
    of_weight,
    packed,
    tensor,
    varint,
)

FLOATS = struct.pack("<2f", 1, 2)
RAW = field(9, FLOATS)
NAN = struct.pack("<I", 0x7FA00001)  # a signalling one
QUIET_NAN = struct.pack("<I", 0x7FE00001)
PARTS = [
    node("Relu", ["x"], ["y"]),
    field(11, field(1, "x")),
    field(12, field(1, "y")),
]
RELU = b"".join(PARTS)


def type_of_dimension(dimension):
    """The type of a tensor of floats with this one dimension."""
    return field(1, [field(1, 1), field(2, field(1, dimension))])


TENSOR_TYPE = type_of_dimension(field(1, 2))
PLACES = tensor(field(7, b"\x01\x04"), name="", data_type=7)
SPARSE = [field(1, tensor(RAW)), field(2, PLACES), field(3, 2), field(3, 3)]


def of_relu(*parts):
    """A model of one node, with more parts behind its graph."""
    return model(field(7, RELU), *parts)


def of_sparse(*parts):
    """A model that gives back its one weight, a sparse tensor of these parts."""
    return model(field(7, graph(node("Identity", ["w"], ["y"]), field(15, parts))))


def sequences(levels):
    """The type of a sequence of sequences of sequences ... of floats."""
    type_ = field(1, field(1, 1))
    for _ in range(levels):
        type_ = field(4, field(1, type_))
    return type_


ENCODINGS = {
    # The same messages, written in another way.
    "by hand: one node": of_relu(),
    "fields in another order": field(7, reversed(PARTS)) + field(8, field(2, 21)) + field(1, 10),
    "padded varints": field(1, 10, pad=3)
    + field(8, field(2, 21, pad=2), pad=1)
    + field(7, RELU, pad=1),
    "numbers that stand twice": field(1, 9)
    + field(8, field(2, 7) + field(2, 21))
    + of_relu()[len(model()) :]
    + field(1, 10),
    "strings that stand twice": of_node(field(4, "Neg"), field(4, "Relu")),
    "a graph in pieces": model(field(7, b""), *(field(7, part) for part in PARTS)),
    "the longest varint": of_relu(varint(5 << 3) + b"\xff" * 9 + b"\x01"),
    "by hand: a weight": of_weight(RAW),
    "packed dims": of_weight(packed(1, [2]), RAW, dims=[]),
    "raw bytes that stand twice": of_weight(field(9, b"not these"), RAW),
    "an empty packed field of another type": of_weight(field(5, b""), RAW),
    "floats packed": of_weight(field(4, FLOATS)),
    "floats one by one": of_weight(field(4, 1.0), field(4, 2.0)),
    "floats in two runs": of_weight(field(4, FLOATS[:4]), field(4, FLOATS[4:])),
    "data_location written out": of_weight(RAW, field(14, 0)),
    "external, and then not": of_weight(field(14, 1), RAW, field(14, 0)),
    "external_data where nothing is external": of_weight(
        RAW, field(13, [field(1, "location"), field(2, "../w.bin"), UNKNOWN])
    ),
    "by hand: a sparse weight": of_sparse(*SPARSE),
    "a sparse weight in another order and in pieces": of_sparse(
        packed(3, [2, 3]), field(2, PLACES), field(1, b""), field(1, tensor(RAW))
    ),
    "by hand: ints": of_node(attribute("i", 7, field(8, 1), field(8, -2))),
    "packed ints": of_node(attribute("i", 7, packed(8, [1, -2]))),
    "the type of an attribute stands twice": of_node(
        field(5, [field(20, 1), field(1, "i"), field(8, 1), field(8, -2), field(20, 7)])
    ),
    "an attribute's ref_attr_name is empty": of_node(
        attribute("i", 7, field(8, 1), field(8, -2), field(21, ""))
    ),
    "by hand: an input's type": of_input_type(TENSOR_TYPE),
    "an input's type in pieces": of_input_type(
        field(1, field(1, 7)) + field(1, [field(2, field(1, field(1, 2))), field(1, 1)])
    ),
    "an input's type stands twice": of_input_type(sequences(1) + TENSOR_TYPE),
    "a dimension's symbol": of_input_type(type_of_dimension(field(2, "N"))),
    "a dimension's size and then its symbol": of_input_type(
        type_of_dimension(field(1, 2) + field(2, "N"))
    ),
    # What is not looked at.
    "text that is not UTF-8 in what does not count": model(
        field(2, b"\xff"), field(7, [RELU, field(2, b"\xff"), field(10, b"\xff")])
    ),
    "unknown fields in what does not count": model(
        field(
            7,
            [
                RELU,
                node("Neg", ["x"], ["d"], UNKNOWN, field(4, b"\xff"), attribute("a", 99, UNKNOWN)),
                field(5, [field(8, "u"), UNKNOWN, field(2, 99)]),
                field(13, [field(1, b"\xff"), UNKNOWN]),
                field(14, UNKNOWN),
                field(16, UNKNOWN),
            ],
        ),
        field(20, UNKNOWN),
        field(25, [field(1, "f"), field(10, "unused"), UNKNOWN]),
        field(14, UNKNOWN),
    ),
    "two imports of a domain that nothing uses": of_relu(
        field(8, [field(1, "u"), field(2, 1)]), field(8, [field(1, "u"), field(2, 2)])
    ),
    "the same import in both spellings": of_relu(field(8, [field(1, "ai.onnx"), field(2, 21)])),
    # Known since onnx 1.18.
    "device configurations": model(
        field(
            7,
            graph(
                node("Relu", ["x"], ["y"], field(10, [field(1, "c"), field(3, 1)])), inputs=["x"]
            ),
        ),
        field(26, [field(1, "c"), field(2, 2), field(3, "gpu")]),
    ),
    # Floats that are no numbers.
    "a signalling NaN as an attribute": of_node(attribute("f", 1, varint(2 << 3 | 5) + NAN)),
    "a quiet NaN as an attribute": of_node(attribute("f", 1, varint(2 << 3 | 5) + QUIET_NAN)),
    "a signalling NaN in a list": of_node(attribute("f", 6, varint(7 << 3 | 5) + NAN)),
    "a signalling NaN in raw bytes": of_weight(field(9, NAN), dims=[]),
    "a signalling NaN in float_data": of_weight(varint(4 << 3 | 5) + NAN, dims=[]),
    "a quiet NaN in raw bytes": of_weight(field(9, QUIET_NAN), dims=[]),
    # As deep as messages may be nested: 100 below the model.
    "subgraphs nested 33 deep": model(field(7, nested(33))),
    "a type nested 49 deep": of_input_type(sequences(48)),
}

# Groups of models that have the same graph and the same weights, with two of make_models.py.
SAME = [
    {
        "by hand: one node",
        "fields in another order",
        "padded varints",
        "numbers that stand twice",
        "strings that stand twice",
        "a graph in pieces",
        "the longest varint",
        "text that is not UTF-8 in what does not count",
        "unknown fields in what does not count",
        "two imports of a domain that nothing uses",
        "the same import in both spellings",
        "device configurations",
    },
    {
        "by hand: a weight",
        "packed dims",
        "raw bytes that stand twice",
        "an empty packed field of another type",
        "floats packed",
        "floats one by one",
        "floats in two runs",
        "data_location written out",
        "external, and then not",
        "external_data where nothing is external",
        "unknown fields in a dead weight in a file",
        "text that is not UTF-8 beside a file",
    },
    {"by hand: a sparse weight", "a sparse weight in another order and in pieces"},
    {
        "by hand: ints",
        "packed ints",
        "the type of an attribute stands twice",
        "an attribute's ref_attr_name is empty",
    },
    {
        "by hand: an input's type",
        "an input's type in pieces",
        "an input's type stands twice",
    },
    {"a dimension's symbol", "a dimension's size and then its symbol"},
    {"a signalling NaN as an attribute", "a quiet NaN as an attribute"},
    {"a signalling NaN in raw bytes", "a signalling NaN in float_data"},
]
