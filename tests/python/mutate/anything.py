# SPDX-License-Identifier: Apache-2.0
"""The edit that sets, drops, repeats or exchanges any field of any message of a model."""

import random as random_module

from .places import messages
from .registry import Edit, NoPlace

_INTEGERS = [-1, 0, 1, 2, 3, 7, 2**31 - 1]


def anything(model, random: random_module.Random):
    """Change a random field of a random message."""
    found = list(messages(model))
    for _ in range(20):
        message = random.choice(found)
        fields = message.DESCRIPTOR.fields
        field = random.choice(fields)
        value = getattr(message, field.name)
        repeated = hasattr(value, "extend")
        try:
            if repeated and len(value) and len(value) <= 4096:
                _change_list(value, field, found, random)
            elif field.message_type is not None:
                _change_message(message, field, found, random, repeated)
            elif repeated:
                value.append(_other(field, None, random))
            elif message.HasField(field.name) and random.random() < 0.3:
                message.ClearField(field.name)
            else:
                setattr(message, field.name, _other(field, value, random))
        except (TypeError, ValueError):  # a number that the field can't have
            continue
        return
    raise NoPlace


def _change_list(values, field, found, random):
    i, j = random.randrange(len(values)), random.randrange(len(values))
    copies = (
        [type(v).FromString(v.SerializeToString()) for v in values]
        if (field.message_type is not None)
        else list(values)
    )
    act = random.randrange(4)
    if act == 0:
        copies[i], copies[j] = copies[j], copies[i]
    elif act == 1:
        copies.pop(i)
    elif act == 2:
        copies.insert(j, copies[i])
    elif field.message_type is not None:
        copies[i] = _like(field, found, random)
    else:
        copies[i] = _other(field, copies[i], random, list(values))
    del values[:]
    values.extend(copies)


def _change_message(message, field, found, random, repeated):
    if not repeated and message.HasField(field.name) and random.random() < 0.5:
        message.ClearField(field.name)
        return
    other = _like(field, found, random)
    if repeated:
        getattr(message, field.name).add().CopyFrom(other)
    else:
        getattr(message, field.name).CopyFrom(other)


def _like(field, found, random):
    """A copy of another message of the same type in the model."""
    same = [m for m in found if m.DESCRIPTOR is field.message_type and m.ByteSize() < 1 << 20]
    if not same:
        raise ValueError
    other = random.choice(same)
    return type(other).FromString(other.SerializeToString())


def _other(field, value, random, others=()):
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            data = bytearray(value or b"")
            if data and random.random() < 0.8:
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
                return bytes(data)
            return bytes(data) + b"\1"
        return random.choice([*others, "", "ai.onnx", f"{value or ''}x"])
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice([0.0, -0.0, 1.0, (value or 0.0) + 0.5])
    if field.cpp_type == field.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    return random.choice([*_INTEGERS, (value or 0) + 1, (value or 0) ^ 2])


ANYTHING = Edit("any field of any message", "anything", "unknown", (), (), anything)
