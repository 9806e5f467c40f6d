# SPDX-License-Identifier: Apache-2.0
"""Writes artifacts.json: files made by hand from the tables of FORMAT.md, good and bad ones.

Run it after a change of the lists: ``python make_artifacts.py``. What the good ones say, and
why the bad ones say nothing, is by the reference implementation.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

PATH = Path(__file__).with_name("artifacts.json")
sys.path.append(str(PATH.parents[2] / "reference"))

import formats_reference  # noqa: E402

A, B, C = "a" * 64, "b0" * 32, "0123456789abcdef" * 4
RECORD = f"model-hash/1 model=sha256:{A} graph=sha256:{B} weights=sha256:{C}"
SHORT = f"model-hash/1 model=sha256:{C}"

READERS = {
    "record": formats_reference.record,
    "hash.txt": formats_reference.hash_txt,
    "executable": formats_reference.executable,
    "constants": formats_reference.tensor_list,
    "manifest": formats_reference.manifest,
}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def u64(n):
    return struct.pack("<Q", n)


def string(text):
    content = text.encode() if isinstance(text, str) else text
    return u64(len(content)) + content


def many(items):
    items = list(items)
    return u64(len(items)) + b"".join(items)


def array(*numbers):
    return many(map(u64, numbers))


def strings(*texts):
    return many(map(string, texts))


def tensor(
    magic=0xDD5E40F096B4A13F, shape=(2,), size=None, data=b"\0\0\x80\x3f\0\0\0\x40", lanes=1
):
    """A tensor of floats, on the CPU."""
    return (
        struct.pack("<QQiiI", magic, 0, 1, 0, len(shape))
        + struct.pack("<BBH", 2, 32, lanes)
        + b"".join(map(u64, shape))
        + u64(len(data) if size is None else size)
        + data
    )


def device(scope="", type_=1, id_=0):
    return struct.pack("<ii", type_, id_) + string(scope)


def here(*args, **kwargs):
    """A constant that is in the executable."""
    return struct.pack("<I", 0) + tensor(*args, **kwargs)


def late(name):
    """A late-bound constant."""
    return struct.pack("<I", 1) + string(name)


FUNCTION = strings("main", "2", "1") + strings("x", "größe") + array(0, 0) + array(1, 7, 1)
HOST = device()
CARRIED = device(RECORD)
CONSTANTS = (here(), late("const_1"))
TENSORS = (tensor(), tensor())


def executable(
    *,
    magic=0xD225DE2F4214151D,
    version="0.19.0",
    table=(HOST, CARRIED),
    host=0,
    constants=CONSTANTS,
    functions=(FUNCTION,),
    behind=b"",
):
    """A small ``code.ro``, section by section."""
    parts = [
        u64(magic) + string(version) + many(table) + struct.pack("<I", host),
        strings("main"),
        many(constants) + array(*[0] * len(constants)),
        strings("fused_add"),
        many([u64(0) + many([string("hash") + string("1f")])]),
        many(functions),
        behind,
    ]
    return b"".join(parts)


def constants(
    magic=0xF7E58D4F05049CB7,
    names=("a", "b"),
    tensors=TENSORS,
    number=None,
    behind=b"",
):
    return (
        u64(magic)
        + u64(0)
        + strings(*names)
        + u64(len(tensors) if number is None else number)
        + b"".join(tensors)
        + behind
    )


FILES = {"code.ro": b"code", "d/größe 1": b"", "lib.so": b"library"}


def lines_of(name, content):
    return f"# {len(content)} bytes:\n{sha256(content)}  {name}\n"


def manifest(lines=None, record="none", first="# tvm-model-hash seal/1\n", last=None):
    """A manifest, of these files or of these lines."""
    if lines is None:
        lines = "".join(lines_of(*item) for item in FILES.items())
    above = f"{first}# record: {record}\n{lines}".encode()
    digest = sha256(above)
    return above + (last or f"# sha256 of the lines above: {digest}\n").encode()


def named(name):
    return manifest(lines_of(name, b"code"))


def ignoring(*patterns):
    return manifest("".join(f"# ignore: {pattern}\n" for pattern in patterns) + ONE)


ONE = lines_of("a", b"")

GOOD = {
    "record": {
        "all digests": RECORD,
        "the model's alone": SHORT,
        "without the graph's": f"model-hash/1 model=sha256:{A} weights=sha256:{C}",
        "another key": f"{SHORT} a-b_2=!~=",
        "1,024 bytes": SHORT + " pad=" + "x" * (1024 - len(SHORT) - 5),
    },
    "hash.txt": {
        "as it is written": A,
        "a line end": A + "\n",
        "Windows' line end": A + "\r\n",
        "white space around": f" \t\n{B}\n\n",
        "upper case": B.upper(),
        "the algorithm": f"sha256:{B}",
        "of sha256sum": f"{B}  model.onnx\n",
        "of sha256sum --binary, with white space in the name": f"{B} *my model.onnx\n",
        "a record": RECORD,
        "a record and a line end": RECORD + "\n",
        "a record with white space around": f"\n\t{RECORD} \v\f",
        "one space and a name": f"{B} model.onnx",
    },
    "executable": {
        "with a record": executable(),
        "without one": executable(table=(HOST,)),
        "a record in the middle": executable(table=(HOST, CARRIED, device("global", 8, 1))),
        "a record of as many constants as are late-bound": executable(
            table=(HOST, device(f"{RECORD} params=1"))
        ),
        "a host that is not the first": executable(
            table=(device("", 2), device("", 1, 3), device(SHORT, 1, 3)), host=1
        ),
        "no constants, no functions": executable(constants=(), functions=()),
        "another function's parameter that is not UTF-8": executable(
            functions=(strings(b"\xff", "0", "0") + strings(b"\xff") + array(), FUNCTION)
        ),
        "two functions": executable(
            functions=(strings("f", "0", "0") + strings() + array(), FUNCTION)
        ),
        "a record in a constant": executable(table=(HOST,), constants=(late(RECORD),)),
        "an empty tensor and a scalar": executable(
            constants=(
                here(shape=(0, 3), data=b""),
                here(shape=(), data=b"1234"),
            )
        ),
    },
    "constants": {
        "without a record": constants(),
        "with a record": constants(behind=string(RECORD)),
        "one of vectors, whose lanes TVM does not count": constants(
            names=("a",), tensors=(tensor(lanes=4),)
        ),
        "none": constants(names=(), tensors=()),
        "none, with a record": constants(names=(), tensors=(), behind=string(SHORT)),
    },
    "manifest": {
        "of three files": manifest(),
        "with a record": manifest(record=RECORD),
        "of no files": manifest(""),
        "names that sha256sum can read": manifest(
            "".join(
                lines_of(name, b"") for name in ("#", "-a", "a/-", "auxiliary", "…", "\U0001f600")
            )
        ),
        "a manifest further down": named("d/SHA256SUMS"),
        "patterns of what is ignored": ignoring("*.log", "[!a-z]?", "log/*", "\u2028 "),
        "the longest pattern": ignoring("\U0001f600" * 255),
        "the most patterns": ignoring(*(chr(0x100 + i) for i in range(64))),
        "characters that are not printed": manifest(
            "".join(
                lines_of(name, b"") for name in ("\x80", "\xa0", "\u200d", "\ue000", "\U0010ffff")
            )
        ),
    },
}

BAD = {
    "record": {
        "a record of over 1,024 bytes": [SHORT + " pad=" + "x" * (1025 - len(SHORT) - 5)],
        "not a record": [RECORD + "\n", RECORD.replace("/1", "/2"), RECORD[:-71], ""],
        "a record whose first key is not model": [f"model-hash/1 graph=sha256:{A}"],
        "a key that stands twice in a record": [f"{SHORT} n=1 n=1"],
        "digests of a record out of order": [
            f"model-hash/1 model=sha256:{A} weights=sha256:{B} graph=sha256:{C}",
            f"{SHORT} n=1 graph=sha256:{C}",
        ],
        "not a digest": [SHORT[:-1], SHORT.replace("c", "C"), SHORT + "0"],
    },
    "hash.txt": {
        "not a hash": [
            "",
            "\n",
            A[:-1],
            A + "0",
            "g" + A[1:],
            f"sha512:{A}",
            f"{A}  a\n{B}  b\n",
            f"{A}\n{B}",
            f"model.onnx  {A}",
            f"{A}model.onnx",
            f"0x{A}",
            "\ufeff" + A,
            A.encode("utf-16"),
            A[:32] + " " + A[32:],
            A + "\u2003",
            "\u2003" + RECORD,
            f"{A}  a\rb",
        ],
        "not a record": [RECORD.replace("/1", "/2") + "\n", "model-hash/1\n"],
        "not a digest": [
            SHORT.upper().replace("MODEL-HASH/1 MODEL=SHA256:", "model-hash/1 model=sha256:")
        ],
    },
    "executable": {
        "a record of more constants than are late-bound": [
            executable(table=(HOST, device(f"{RECORD} params=2"))),
            executable(table=(HOST, device(f"{RECORD} params=1")), constants=(here(),)),
        ],
        "params is not a number": [
            executable(table=(HOST, device(f"{RECORD} params={number}")))
            for number in ("01", "-1", "1x", "9" * 10)
        ],
        "cut off": [
            b"",
            executable()[:7],
            executable()[:40],
            executable()[:-1],
            executable(table=(HOST,))[:-8],
            executable(constants=(struct.pack("<I", 1) + u64(2**63) + b"a",)),
            executable(constants=(here(shape=(2**20,), size=2**22),)),
            executable(functions=(strings("main", "2", "2") + strings("x") + array(0) + array(1),)),
            executable(functions=(u64(2**64 - 1),)),
        ],
        "not an executable": [executable(magic=0xD225DE2F4214151E), b"\x7fELF" + bytes(60)],
        "another version of TVM": [
            executable(version="0.13.0"),
            executable(version="0.20.0"),
            executable(version="0.19"),
            executable(version="0.19.0 "),
            executable(version="0.19." + "0" * 65),
            executable(version=""),
        ],
        "a string of over 65,536 bytes in the header": [
            executable(version="0" * 65537)[:32],
            executable(table=(device("x" * 65537),))[:64],
        ],
        "a table of over 1,024 entries": [executable(table=(HOST,) * 1025)[:64]],
        "a host that is not in the table": [executable(host=2), executable(table=())],
        "two records": [
            executable(table=(HOST, CARRIED, CARRIED)),
            executable(table=(HOST, CARRIED, device(SHORT))),
        ],
        "not a record": [
            executable(table=(HOST, device("model-hash/2 model=sha256:" + A))),
            executable(table=(HOST, device("model-hash/"))),
            executable(table=(HOST, device(RECORD + "\0"))),
        ],
        "a record with another device than the host's": [
            executable(table=(HOST, device(RECORD, 2))),
            executable(table=(HOST, device(RECORD, 1, 1))),
        ],
        "a record that is the host's entry": [
            executable(table=(CARRIED,)),
            executable(table=(HOST, CARRIED), host=1),
        ],
        "a constant that is neither here nor late-bound": [
            executable(constants=(struct.pack("<I", 2) + string("a"),))
        ],
        "not a tensor": [executable(constants=(here(magic=0),))],
        "a tensor of another size": [
            executable(constants=(here(shape=(3,)),)),
            executable(constants=(here(shape=(2**62, 4, 2), data=b""),)),
        ],
        "a function without name and numbers": [
            executable(functions=(strings("main", "2") + strings() + array(),))
        ],
        "not a number": [
            executable(functions=(strings("main", "2", "-1") + strings() + array(),)),
            executable(functions=(strings("main", "2", "") + strings() + array(),)),
            executable(functions=(strings("main", "2", "1.0") + strings() + array(),)),
        ],
        "not UTF-8": [
            executable(constants=(late(b"\xff"),)),
            executable(functions=(strings("main", "2", "0") + strings(b"\xff") + array(0),)),
        ],
        "something behind the end": [executable(behind=b"\0"), executable(behind=string(RECORD))],
    },
    "constants": {
        "cut off": [
            constants()[:-1],
            constants(behind=string(RECORD))[:-1],
            constants(behind=b"\0"),
            constants(number=2, tensors=(tensor(),)),
            constants(names=("a",), tensors=(tensor(size=2**63, shape=(2**61,)),)),
        ],
        "not a list of tensors": [constants(magic=0), tensor()],
        "another number of tensors than of names": [constants(names=("a",)), constants(number=3)],
        "not UTF-8": [constants(names=("a", b"\xc3"))],
        "not a tensor": [constants(tensors=(tensor(), tensor(magic=1)))],
        "a tensor of another size": [constants(tensors=(tensor(), tensor(shape=(1,))))],
        "not a record": [
            constants(behind=string("")),
            constants(behind=string(RECORD + "\n")),
            constants(behind=string("model-hash/2 model=sha256:" + A)),
        ],
        "something behind the end": [
            constants(behind=string(RECORD) + b"\0"),
            constants(behind=string(RECORD) * 2),
        ],
    },
    "manifest": {
        "not UTF-8": [manifest() + b"\xff", manifest().replace("ö".encode(), b"\xf6")],
        "not a manifest": [
            b"",
            manifest(first="# tvm-model-hash seal/2\n"),
            manifest(first=""),
            manifest(first="\ufeff# tvm-model-hash seal/1\n"),
            manifest(first="# tvm-model-hash seal/1\r\n"),
            manifest()[:-1],
            b"\n" + manifest(),
            f"{A}  code.ro\n".encode(),
        ],
        "no digest of the lines": [
            manifest(last="\n"),
            manifest() + b"\n",
            manifest() + lines_of("z", b"").encode(),
            manifest(last=f"# sha256 of the lines above: {A.upper()}\n"),
            manifest().replace(b"\n", b"\r\n").replace(b"\r\n", b"\n", 1),
        ],
        "another digest of the lines": [
            manifest(last=f"# sha256 of the lines above: {A}\n"),
            manifest().replace(b"lib.so", b"lib.se"),
            manifest().replace(b"# 4 ", b"# 5 "),
        ],
        "no line for the record": [
            manifest(record=""),
            manifest(first="# tvm-model-hash seal/1\n\n"),
            "# tvm-model-hash seal/1\n",
        ],
        "not a record": [
            manifest(record="None"),
            manifest(record="none "),
            manifest(record=RECORD + " "),
        ],
        "over 64 patterns": [ignoring(*(chr(0x100 + i) for i in range(65)))],
        "a pattern of another length than 1 to 255": [ignoring(""), ignoring("a" * 256)],
        "a control character in a pattern": [
            ignoring("\t"),
            ignoring("a\x7f"),
            ignoring("\x1b[0m"),
        ],
        "patterns out of order": [
            ignoring("b", "a"),
            ignoring("a", "a"),
            ignoring("\U0001f600", "\uff5e"),
        ],
        "a line too many": [manifest("# 1 bytes:\n"), manifest(ONE + "\n")],
        "not the lines of a file": [
            manifest(ONE.replace("# 0", "# 00")),
            manifest(ONE.replace("# 0", "# -1")),
            manifest(ONE.replace("# 0", "# ")),
            manifest(ONE.replace("# 0", "# " + "9" * 20)),
            manifest(ONE.replace("bytes:", "byte:")),
            manifest(ONE.replace("  a", " *a")),
            manifest(ONE.replace("  a", "  ")),
            manifest(ONE.replace("e3b0", "E3B0")),
            manifest(ONE.replace("e3b0", "e3b")),
            manifest(ONE.replace("e3b0", "\\e3b0")),
            manifest("".join(reversed(ONE.splitlines(keepends=True)))),
            manifest(ONE + "# ignore: a\n# ignore: b\n"),
            manifest("# ignore:  a\n#ignore: b\n# ignore b\n"),
        ],
        "names out of order": [
            manifest(lines_of("b", b"") + lines_of("a", b"")),
            manifest(lines_of("a", b"") * 2),
            manifest(lines_of("\U0001f600", b"") + lines_of("\uff5e", b"")),
        ],
        "a name with a character it can't have": [
            named(name) for name in ("a\\b", "a\rb", "\t", "\x7f", "\0", "a\x1b[31m", "C:", "a:b")
        ],
        "a name with a character Windows can't have": [
            named(name) for name in ("*", "a?", '"a"', "a<b", "a>", "a|b")
        ],
        "a name with a part that Windows changes": [
            named(name) for name in (" ", "a ", "a./b", "...")
        ],
        "a device on Windows": [
            named(name)
            for name in ("aux", "d/NUL", "Con.txt", "lpt9.a.b", "COM¹", "conin$", "prn .x")
        ],
        "a name it can't have": [named("-"), named("SHA256SUMS")],
        "a name with a part it can't have": [
            named(name) for name in ("/a", "a/", "a//b", ".", "..", "../a", "a/../b", "./a", "a/.")
        ],
    },
}


def written(content):
    """A content as text if it is some, else as bytes in hexadecimal."""
    content = content.encode() if isinstance(content, str) else content
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return {"hex": content.hex()}
    return {"text": text} if text.replace("\n", "").isprintable() else {"hex": content.hex()}


def content_of(entry):
    return bytes.fromhex(entry["hex"]) if "hex" in entry else entry["text"].encode()


def says(entry):
    """What an entry's file says, by the reference."""
    return READERS[entry["format"]](content_of(entry))


def wrong(entry):
    """Why the reference refuses an entry; None if it does not."""
    try:
        says(entry)
    except formats_reference.FormatError as error:
        return error.args[0]
    return None


def make():
    """The content of artifacts.json."""
    good, bad = [], []
    for kind, contents in GOOD.items():
        for name, content in contents.items():
            entry = {"format": kind, "name": name, **written(content)}
            good.append({**entry, "says": says(entry)})
    for kind, reasons in BAD.items():
        for reason, contents in reasons.items():
            for content in contents:
                entry = {"format": kind, "wrong": reason, **written(content)}
                if wrong(entry) != reason:
                    raise ValueError(f"{entry} is refused for {wrong(entry)!r}")
                bad.append(entry)
    return {"good": good, "bad": bad}


if __name__ == "__main__":
    text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
    PATH.write_text(text, encoding="utf-8")
