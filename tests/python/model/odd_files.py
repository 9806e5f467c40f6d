# SPDX-License-Identifier: Apache-2.0
"""Files that protobuf reads as some model, but would not write in this way."""

import struct

from wire import varint

UNKNOWN = [
    b"\xb8\x3e\x01",  # field 999: a varint, a padded one, bytes
    b"\xb8\xbe\x00\x81\x80\x00",
    b"\xba\x3e\x03abc",
    b"\x9d\x01abcd",  # field 19, in the middle of the others' or above them
    b"\x4d\0\0\0\0",  # field 9, raw_data or something else, of another type
]
GROUP = b"\xbb\x3e\xb8\x3e\x01\xba\x3e\x00\xb9\x3e12345678\xbc\x3e"


class OddWriter:
    """Writes messages in another way than protobuf.

    Parameters
    ----------
    random : random.Random
        Decides where.
    odd : float
        In how many of the places.
    pads_tags, has_groups : bool
        Whether there are tags with padding, and unknown groups, too.
    """

    def __init__(self, random, odd=0.2, pads_tags=False, has_groups=False):
        self.random, self.odd, self.pads_tags = random, odd, pads_tags
        self.unknown = [*UNKNOWN, GROUP] if has_groups else UNKNOWN

    def write(self, message):
        """The message's bytes; fields in any order, but those of one field in theirs."""
        queues = [self.field(field, value) for field, value in message.ListFields()]
        if self.chance():
            queues.append([self.random.choice(self.unknown)])
        if self.chance():
            parts = []
            while queues := [queue for queue in queues if queue]:
                parts.append(self.random.choice(queues).pop(0))
            return b"".join(parts)
        return b"".join(part for queue in queues for part in queue)

    def field(self, field, value):
        """A field's occurrences."""
        if not field.has_presence:
            parts = [self.data(field, item) for item in value]
            if kind_of(field) != 2 and self.chance():
                return [self.one(field, b"".join(parts), 2)]  # packed
            return [self.one(field, part) for part in parts]
        if field.message_type is not None:
            halves = halved(value, self.random) if self.chance() else [value]
            return [self.one(field, self.write(half)) for half in halves]
        found = [self.one(field, self.data(field, value))]
        if self.chance():  # twice, and the last one counts
            other = b"x" * self.random.choice([1, 5000]) if kind_of(field) == 2 else None
            found.insert(0, self.one(field, other or self.data(field, type(value)(1))))
        return found

    def one(self, field, data, kind=None):
        kind = kind_of(field) if kind is None else kind
        tag = varint(field.number << 3 | kind, self.padding() if self.pads_tags else 0)
        return tag + (varint(len(data), self.padding()) if kind == 2 else b"") + data

    def data(self, field, value):
        if field.message_type is not None:
            return self.write(value)
        if kind_of(field) == 0:
            return varint(value, self.padding() if 0 <= value < 2**56 else 0)
        if kind_of(field) == 2:
            return value.encode() if isinstance(value, str) else value
        return struct.pack("<f" if kind_of(field) == 5 else "<d", value)

    def chance(self):
        return self.random.random() < self.odd

    def padding(self):
        return self.random.randrange(1, 3) if self.chance() else 0


def kind_of(field):
    """Protobuf's wire type of a field."""
    kinds = {field.TYPE_FLOAT: 5, field.TYPE_DOUBLE: 1}
    kinds |= dict.fromkeys([field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE], 2)
    return kinds.get(field.type, 0)


def halved(message, random):
    """Two messages that protobuf merges into this one."""
    halves = type(message)(), type(message)()
    for half in halves:
        half.CopyFrom(message)
    for field, _ in message.ListFields():
        random.choice(halves).ClearField(field.name)
    return halves
