# SPDX-License-Identifier: Apache-2.0
"""Bytes of a fuzzer as choices: of what is to be changed, and how."""

from google.protobuf.message import Message

MOST_CHANGES = 4
NUMBERS = (0, 1, 2, 63, 64, 65, 127, 128, 255, 4096, 2**31 - 1, 2**31, 2**32, 2**63 - 1)
TEXTS = ("", "x", "y", "w", "ai.onnx", "\0", "\r\x1b[32m", "/", "..", "a/../b", "größe", "9" * 30)


class Choices:
    """Choices that bytes make; where they end, each is the first one.

    Parameters
    ----------
    data : bytes
        The bytes.
    """

    def __init__(self, data):
        self._data, self._position = data, 0

    @property
    def is_over(self):
        return self._position >= len(self._data)

    def take(self, size):
        self._position += size
        return self._data[self._position - size : self._position]

    def number(self, end):
        """A number from 0 on and below the end."""
        if end <= 1:
            return 0
        return int.from_bytes(self.take(-(-(end - 1).bit_length() // 8)), "little") % end

    def one_of(self, things):
        return things[self.number(len(things))]

    def rest(self):
        return self.take(max(0, len(self._data) - self._position))


def change_bytes(data, choices):
    """Change a file's content at one place."""
    place = choices.number(len(data) + 1)
    kind = choices.number(6)
    if kind == 0:
        bit = bytes([data[place] ^ 1 << choices.number(8)]) if place < len(data) else b""
        return data[:place] + bit + data[place + 1 :]
    if kind == 1:
        new = choices.take(choices.number(16))
        return data[:place] + new + data[place + len(new) :]
    if kind == 2:
        return data[:place] + choices.take(choices.number(32)) + data[place:]
    if kind == 3:
        return data[:place] + data[place + choices.number(256) :]
    if kind == 4:
        return data[:place]
    return data + choices.take(choices.number(64))


def change_files(files, choices):
    """Change the files of a directory, by their names."""
    files = dict(files)
    for _ in range(1 + choices.number(MOST_CHANGES)):
        name, other = choices.one_of(sorted(files)), choices.one_of(sorted(files))
        kind = choices.number(8)
        if kind < 4:
            files[name] = change_bytes(files[name], choices)
        elif kind == 4:
            files[name], files[other] = files[other], files[name]
        elif kind == 5:
            files[name] = files[other]
        elif kind == 6 and len(files) > 1:
            del files[name]
        else:
            files[choices.one_of(("further", "d/code.ro", "hash.txt", "a.so"))] = files[other]
    return files


def change_model(model, choices):
    """Change a model at a few places."""
    texts = [*TEXTS, *sorted(set(_texts(model)))]
    for _ in range(choices.number(MOST_CHANGES) + 1):
        _change_message(_inside(model, choices), texts, choices)


def _texts(message):
    """The texts in a message: names that are defined, or used."""
    for field, value in message.ListFields():
        values = [value] if field.has_presence else value
        if field.message_type is not None:
            for child in values:
                yield from _texts(child)
        elif field.type == field.TYPE_STRING:
            yield from (text for text in values if isinstance(text, str))


def _inside(message, choices):
    """A message within a message, or itself."""
    while True:
        inner = [
            child
            for field, value in message.ListFields()
            if field.message_type is not None
            for child in ([value] if isinstance(value, Message) else value)
        ]
        if not inner or not choices.number(4):
            return message
        message = choices.one_of(inner)


def _change_message(message, texts, choices):
    field = choices.one_of(message.DESCRIPTOR.fields)
    if field.has_presence:
        if not choices.number(4):
            message.ClearField(field.name)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _value(field, texts, choices))
        return
    values = getattr(message, field.name)
    kind = choices.number(5)
    if len(values) and kind == 0:
        del values[choices.number(len(values))]
    elif len(values) and kind == 1:  # again
        value = values[choices.number(len(values))]
        values.append(value)
    elif len(values) > 1 and kind == 2:  # in another order
        moved = list(values)
        moved.append(moved.pop(choices.number(len(moved))))
        if field.message_type is not None:
            moved = [type(value).FromString(value.SerializePartialToString()) for value in moved]
        del values[:]
        values.extend(moved)
    elif field.message_type is not None:
        values.add()
    elif len(values) and kind == 3:
        values[choices.number(len(values))] = _value(field, texts, choices)
    else:
        values.append(_value(field, texts, choices))


def _value(field, texts, choices):
    if field.type == field.TYPE_STRING:
        return choices.one_of(texts)
    if field.type == field.TYPE_BYTES:
        return choices.take(choices.number(40))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return choices.one_of((0.0, -0.0, 1.0, float("nan"), float("inf")))
    if field.enum_type is not None:
        return choices.one_of(field.enum_type.values).number
    number = choices.number(256)
    number = NUMBERS[number - 200] if 0 <= number - 200 < len(NUMBERS) else number % 24
    if field.type == field.TYPE_INT32:
        return min(number, 2**31 - 1)
    return -number if field.type == field.TYPE_INT64 and choices.number(2) else number
