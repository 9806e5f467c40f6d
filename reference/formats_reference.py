# SPDX-License-Identifier: Apache-2.0
"""The other formats of FORMAT.md, read a second time: from that page alone, short and obvious.

Each function takes the bytes of a file, all of them, and returns what they say or raises.
"""

import hashlib
import math
import re
import struct

KEYS = ("model", "graph", "weights")
DEVICE_TABLE = 0xD225DE2F4214151D
TENSOR = 0xDD5E40F096B4A13F
TENSORS = 0xF7E58D4F05049CB7
TVM_VERSION = rb"0\.1[4-9]\.[0-9A-Za-z.+_-]{1,64}"
MOST_ENTRIES = 1024
LONGEST_STRING = 65536  # in the header


class FormatError(Exception):
    """The bytes are not of the format; its first argument is one of the vectors' reasons."""


def require(condition, reason, *what):
    if not condition:
        raise FormatError(reason, *what)


def text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8", content) from error


def record(content: bytes) -> dict:
    """The fields of a record: key and value."""
    require(len(content) <= 1024, "a record of over 1,024 bytes")
    require(
        re.fullmatch(rb"model-hash/1( [a-z][a-z0-9_-]*=[!-~]+)+", content), "not a record", content
    )
    fields = [field.split("=", 1) for field in content.decode("ascii").split(" ")[1:]]
    keys = [key for key, _ in fields]
    require(keys[0] == "model", "a record whose first key is not model")
    require(len(set(keys)) == len(keys), "a key that stands twice in a record")
    digests = [key for key in KEYS if key in keys]
    require(keys[: len(digests)] == digests, "digests of a record out of order")
    for key, value in fields[: len(digests)]:
        require(re.fullmatch("sha256:[0-9a-f]{64}", value), "not a digest", key)
    return dict(fields)


def escaped(word: str, also: str) -> str:
    """A word in the value of a field: each byte that is not a letter, a digit or one of a few."""
    plain = re.compile("[A-Za-z0-9_.~" + re.escape(also) + "-]")
    return "".join(
        chr(byte) if byte < 128 and plain.fullmatch(chr(byte)) else f"%{byte:02X}"
        for byte in word.encode("utf-8")
    )


def recipe(tvm: str, targets: list, inputs: list | None) -> dict:
    """The fields that say how a part was compiled.

    A target is its kind and its triple or None, an input its name and its shape or None, in which
    None is a size that is not static.
    """
    words = {
        escaped(kind, "") + (":" + escaped(triple, "") if triple else "")
        for kind, triple in targets
    }
    fields = {"tvm": escaped(tvm, "+"), "target": ",".join(sorted(words))}
    if inputs is not None:
        shapes = []
        for name, shape in inputs:
            sizes = "any"
            if shape is not None:
                sizes = "x".join("?" if size is None else str(size) for size in shape) or "scalar"
            shapes.append(f"{escaped(name, '/')}:{sizes}")
        fields["shapes"] = ",".join(shapes) or "none"
    for key, value in fields.items():
        if len(value) > 200:
            fields[key] = "sha256:" + hashlib.sha256(value.encode("ascii")).hexdigest()
    return {key: value for key, value in fields.items() if value}


def hash_txt(content: bytes) -> dict:
    """The fields of a ``hash.txt``: those of a record, or the model's digest alone."""
    content = content.strip(b" \t\n\v\f\r")
    if content.startswith(b"model-hash/"):
        return record(content)
    match = re.fullmatch(rb"(?:sha256:)?([0-9a-fA-F]{64})(?: [^\r\n]+)?", content)
    require(match, "not a hash", content)
    return {"model": "sha256:" + match[1].decode("ascii").lower()}


class Bytes:
    """A file, read from its beginning."""

    def __init__(self, content):
        self.content, self.position = content, 0

    def take(self, size):
        require(size <= len(self.content) - self.position, "cut off", self.position)
        self.position += size
        return self.content[self.position - size : self.position]

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def string(self):
        return self.take(self.u64())

    def short_string(self):
        size = self.u64()
        require(size <= LONGEST_STRING, "a string of over 65,536 bytes in the header")
        return self.take(size)

    def many(self, what):
        return [what() for _ in range(self.u64())]

    def strings(self):
        return self.many(self.string)

    def array(self):
        return self.many(self.u64)

    def tensor(self):
        require(self.u64() == TENSOR, "not a tensor", self.position)
        self.take(8 + 8)
        dimensions = self.u32()
        _, bits, _ = struct.unpack("<BBH", self.take(4))
        shape = [self.u64() for _ in range(dimensions)]
        size = self.u64()
        require(size == math.prod(shape) * ((bits + 7) // 8), "a tensor of another size", shape)
        self.take(size)

    def end(self):
        require(self.position == len(self.content), "something behind the end", self.position)


def executable(content: bytes) -> dict:
    """Of ``code.ro``: its record, the names of ``main``'s parameters, and what stock TVM wrote."""
    file = Bytes(content)
    require(file.u64() == DEVICE_TABLE, "not an executable")
    version = file.short_string()
    require(re.fullmatch(TVM_VERSION, version), "another version of TVM", version)
    at_number = file.position
    number = file.u64()
    require(number <= MOST_ENTRIES, "a table of over 1,024 entries", number)
    entries = []
    for _ in range(number):
        begin = file.position
        device, scope = file.take(8), file.short_string()
        entries.append((device, scope, begin, file.position))
    host = file.u32()
    require(host < number, "a host that is not in the table", host)
    records = [entry for entry in entries if entry[1].startswith(b"model-hash/")]
    require(len(records) <= 1, "two records")
    fields, stock = None, content
    for device, scope, begin, end in records:
        fields = record(scope)
        require(device == entries[host][0], "a record with another device than the host's")
        require(scope != entries[host][1], "a record that is the host's entry")
        fewer = struct.pack("<Q", number - 1)
        stock = content[:at_number] + fewer + content[at_number + 8 : begin] + content[end:]
    file.strings()
    late_bound = []
    for _ in range(file.u64()):
        kind = file.u32()
        require(kind in (0, 1), "a constant that is neither here nor late-bound", kind)
        if kind:
            late_bound.append(text(file.string()))
        else:
            file.tensor()
    needed = (fields or {}).get("params", "0")
    require(re.fullmatch("0|[1-9][0-9]{0,8}", needed), "params is not a number", needed)
    require(int(needed) <= len(late_bound), "a record of more constants than are late-bound")
    file.array()
    file.strings()
    for _ in range(file.u64()):
        file.u64()
        file.many(lambda: (file.string(), file.string()))
    parameters = None
    for _ in range(file.u64()):
        head = file.strings()
        require(len(head) == 3, "a function without name and numbers", head)
        name, _, instructions = head
        require(re.fullmatch(rb"[0-9]{1,19}", instructions), "not a number", instructions)
        names = file.strings()
        if name == b"main":
            parameters = list(map(text, names))
        file.array()
        for _ in range(int(instructions)):
            file.array()
    file.end()
    return {
        "record": fields,
        "parameters": parameters,
        "late-bound": late_bound,
        "stock": hashlib.sha256(stock).hexdigest(),
    }


def tensor_list(content: bytes) -> dict:
    """Of late-bound constants: the names, and the record behind them."""
    file = Bytes(content)
    require(file.u64() == TENSORS, "not a list of tensors")
    file.take(8)
    names = file.strings()
    require(file.u64() == len(names), "another number of tensors than of names")
    for _ in names:
        file.tensor()
    fields = None
    if file.position < len(content):
        fields = record(file.string())
        file.end()
    return {"record": fields, "names": list(map(text, names))}


def manifest(content: bytes) -> dict:
    """Of ``SHA256SUMS``: the record, what is ignored, and each file's size and digest."""
    lines = text(content).split("\n")
    require(lines[0] == "# tvm-model-hash seal/1" and lines[-1] == "", "not a manifest")
    require(len(lines) > 3, "no line for the record")
    *lines, last, _ = lines
    match = re.fullmatch("# sha256 of the lines above: ([0-9a-f]{64})", last)
    require(match, "no digest of the lines")
    above = content[: -len(last) - 1]
    require(match[1] == hashlib.sha256(above).hexdigest(), "another digest of the lines")
    match = re.fullmatch("# record: (.+)", lines[1])
    require(match, "no line for the record")
    fields = None if match[1] == "none" else record(match[1].encode())
    lines = lines[2:]
    ignored = []
    while lines and lines[0].startswith("# ignore: "):
        ignored.append(lines.pop(0).removeprefix("# ignore: "))
    require(len(ignored) <= 64, "over 64 patterns")
    for pattern in ignored:
        require(0 < len(pattern) <= 255, "a pattern of another length than 1 to 255", pattern)
        require(not re.search(r"[\x00-\x1f\x7f]", pattern), "a control character in a pattern")
    require(ignored == sorted({*ignored}), "patterns out of order")
    require(len(lines) % 2 == 0, "a line too many")
    files = {}
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        size = re.fullmatch(r"# (0|[1-9][0-9]{0,18}) bytes:", first)
        digest = re.fullmatch("([0-9a-f]{64})  (.+)", second)
        require(size and digest, "not the lines of a file", first, second)
        name = file_name(digest[2])
        require(not files or name > list(files)[-1], "names out of order", name)
        files[name] = {"size": int(size[1]), "sha256": digest[1]}
    return {"record": fields, "ignored": ignored, "files": files}


def file_name(name):
    parts = name.split("/")
    require(not re.search(r"[\x00-\x1f\x7f\\:]", name), "a name with a character it can't have")
    require(not re.search(r'[*?"<>|]', name), "a name with a character Windows can't have")
    require(name not in ("-", "SHA256SUMS"), "a name it can't have", name)
    require(not {"", ".", ".."} & set(parts), "a name with a part it can't have", name)
    require(all(part[-1] not in ". " for part in parts), "a name with a part that Windows changes")
    devices = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    devices |= {port + digit for port in ("COM", "LPT") for digit in "0123456789¹²³"}
    stems = {part.split(".")[0].rstrip(" ").upper() for part in parts}
    require(not stems & devices, "a device on Windows", name)
    return name
