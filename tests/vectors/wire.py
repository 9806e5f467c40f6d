# SPDX-License-Identifier: Apache-2.0
"""Protobuf's encoding by hand, for what its own writers would not write."""

import struct


def varint(n, pad=0):
    """A number, with ``pad`` bytes more than it needs."""
    n %= 2**64
    groups = [n & 0x7F]
    while n := n >> 7:
        groups.append(n & 0x7F)
    groups += [0] * pad
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def field(number, value, pad=0):
    """A field: a number as a varint, a float in 4 bytes, else text, bytes or a message's parts."""
    if isinstance(value, int):
        return varint(number << 3, pad) + varint(value, pad)
    if isinstance(value, float):
        return varint(number << 3 | 5, pad) + struct.pack("<f", value)
    if isinstance(value, str):
        value = value.encode("utf-8")
    if not isinstance(value, bytes):
        value = b"".join(value)
    return varint(number << 3 | 2, pad) + varint(len(value), pad) + value


def packed(number, values):
    return field(number, b"".join(map(varint, values)))


UNKNOWN = field(99, 1)  # a field that no message has


def nested(levels, inside=b""):
    """A graph in a graph in a graph: so many levels of subgraphs that count."""
    name = "y"
    for level in range(levels):
        inside = graph(node("F", [], [name], attribute("g", 5, field(6, inside))), outputs=[name])
        name = f"v{level}"
    return inside


def model(*parts, opset=21):
    return field(1, 10) + field(8, field(2, opset)) + b"".join(parts)


def graph(*parts, inputs=(), outputs=("y",)):
    """The parts of a graph, whose inputs and outputs are named and have no types."""
    values = [field(11, field(1, name)) for name in inputs]
    values += [field(12, field(1, name)) for name in outputs]
    return b"".join([*parts, *values])


def node(op_type, inputs, outputs, *parts):
    names = [field(1, name) for name in inputs] + [field(2, name) for name in outputs]
    return field(1, [*names, field(4, op_type), *parts])


def attribute(name, type_, *parts):
    return field(5, [field(1, name), *parts, field(20, type_)])


def tensor(*parts, name="w", dims=(2,), data_type=1):
    return b"".join([*(field(1, d) for d in dims), field(2, data_type), field(8, name), *parts])


def of_weight(*parts, **kwargs):
    """A model that gives back its one weight."""
    weight = field(5, tensor(*parts, **kwargs))
    return model(field(7, graph(node("Identity", ["w"], ["y"]), weight)))


def of_node(*parts, op_type="Relu"):
    """A model of one node, with more parts in the node."""
    return model(field(7, graph(node(op_type, ["x"], ["y"], *parts), inputs=["x"])))


def of_input_type(type_):
    """A model that gives back an input of a type."""
    value = field(11, field(1, "x") + field(2, type_))
    return model(field(7, graph(value, node("Identity", ["x"], ["y"]))))
