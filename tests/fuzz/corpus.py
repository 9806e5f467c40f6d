# SPDX-License-Identifier: Apache-2.0
"""The inputs that fuzzing begins with: the committed ones, and the vectors of the formats."""

import base64
import functools
import json
import pathlib
import zlib

import make_artifacts
import make_models

DIRECTORY = pathlib.Path(__file__).with_name("corpus")

# The format of the vectors that a target reads too.
_FORMATS = {
    "record": "record",
    "record_in_cpp": "record",
    "payload": "record",
    "hash_txt": "hash.txt",
    "code_ro": "executable",
    "tensor_list": "constants",
    "manifest": "manifest",
}


def inputs(name):
    """The inputs of a target, all of them."""
    return [*committed(name), *vectors(name)]


def committed(name):
    """The inputs of a target that are in the file of its name."""
    return [decode(text) for text in _load(name)] if _path(name).exists() else []


def save(name, value):
    """Write a file of the corpus: what holds bytes becomes text."""
    DIRECTORY.mkdir(exist_ok=True)
    text = json.dumps(_encoded(value), indent=0) + "\n"
    _path(name).write_text(text, encoding="ascii")


def encode(data):
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def decode(text):
    return zlib.decompress(base64.b64decode(text))


@functools.cache
def template(name):
    """What is real, and is changed by a target."""
    return _decoded(_load(f"template_{name}"))


@functools.cache
def models():
    """The vectors of models, which need no other files."""
    entries = json.loads(make_models.PATH.read_text(encoding="utf-8"))["models"]
    return [make_models.encoded(entry) for entry in entries]


def vectors(name):
    """The vectors that a target reads."""
    if name in ("model_bytes", "wire_walk"):
        path = make_models.INVALID_PATH
        entries = json.loads(path.read_text(encoding="utf-8"))["models"]
        found = [*models(), *(make_models.encoded(entry) for entry in entries)]
        return [b"\0" + data for data in found] if name == "wire_walk" else found
    vectors = json.loads(make_artifacts.PATH.read_text(encoding="utf-8"))
    wanted = _FORMATS.get(name)
    return [
        make_artifacts.content_of(entry)
        for entry in [*vectors["good"], *vectors["bad"]]
        if entry["format"] == wanted
    ]


def _path(name):
    return DIRECTORY / f"{name}.json"


def _load(name):
    return json.loads(_path(name).read_text(encoding="ascii"))


def _encoded(value):
    if isinstance(value, bytes):
        return encode(value)
    if isinstance(value, dict):
        return {key: _encoded(one) for key, one in value.items()}
    return [_encoded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _decoded(value):
    if isinstance(value, str):
        return decode(value)
    if isinstance(value, dict):
        return {key: _decoded(one) for key, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value
