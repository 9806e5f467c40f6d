# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_model_hash import limits
from tvm_model_hash.artifact.json_text import JsonObject
from tvm_model_hash.errors import ArtifactError

SPACE = st.text(" \t\n\r", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(max_size=4).filter(lambda key: key != "record"), VALUES)


@st.composite
def laid_out(draw):
    """The text of an object, with white space wherever it may stand, and its value."""
    value = draw(OBJECTS)
    members = []
    for key, item in value.items():
        name = json.dumps(key, ensure_ascii=draw(st.booleans()))
        indent = draw(st.none() | st.integers(0, 2))
        text = json.dumps(item, indent=indent)
        members.append(f"{draw(SPACE)}{name}{draw(SPACE)}:{draw(SPACE)}{text}{draw(SPACE)}")
    inside = ",".join(members) if members else draw(SPACE)
    return f"{draw(SPACE)}{{{inside}}}{draw(SPACE)}", value


def parse(text):
    return JsonObject.whole(text.encode(), "text")


@settings(deadline=None)
@given(laid_out(), st.sampled_from([1, 8]))
def test_what_is_put_in_comes_out_to_the_character(layout, multiple):
    text, value = layout
    found = parse(text)
    assert found.value == value
    put = found.edited(found.put("record", '"a"', multiple))
    assert json.loads(put) == {**value, "record": "a"}
    assert (len(put) - len(text)) % multiple == 0
    again = parse(put).edited(parse(put).put("record", '"another"', multiple))
    assert json.loads(again) == {**value, "record": "another"}
    assert again == found.edited(found.put("record", '"another"', multiple))
    for tagged in (put, again):
        assert parse(tagged).edited(parse(tagged).remove("record")) == text


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=4).filter(lambda key: key != "record"), VALUES, min_size=1),
    st.sampled_from([{"indent": 4}, {"indent": 1}, {"separators": (",", ":")}]),
)
def test_it_is_laid_out_as_its_writer_would(value, layout):
    stock, tagged = (json.dumps(v, **layout) for v in (value, {**value, "record": "a"}))
    assert parse(stock).edited(parse(stock).put("record", '"a"')) == tagged


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([{"indent": 4}, {"separators": (",", ":")}]), st.data())
def test_what_its_writer_put_in_comes_out(value, layout, data):
    keys = list(value)
    keys.insert(data.draw(st.integers(0, len(keys))), "record")
    tagged = json.dumps({key: value.get(key, "a") for key in keys}, **layout)
    assert parse(tagged).edited(parse(tagged).remove("record")) == json.dumps(value, **layout)


@settings(deadline=None)
@given(laid_out())
def test_a_text_cut_anywhere_is_an_error(layout):
    text, _ = layout
    for size in range(len(text.rstrip(" \t\n\r"))):
        with pytest.raises(ArtifactError):
            parse(text[:size])


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]":,0-1.eE \\untrfals', max_size=40).map(str.encode))
def test_bytes_are_an_object_or_an_error(data):
    try:
        found = JsonObject.whole(data, "text")
    except ArtifactError:
        return
    assert found.value == json.loads(data)


@pytest.mark.parametrize(
    ("message", "data"),
    {
        "the key 'a' stands twice": b'{"a": 1, "a": 1}',
        "the key 'b' stands twice": b'{"a": [{"b": 1, "c": 2, "b": 3}]}',
        "NaN is not a number": b'{"a": NaN}',
        "-Infinity is not a number": b'{"a": [-Infinity]}',
        "is not UTF-8": b'{"a": "\xff"}',
        "nested 200001 deep, more than the limit of 64": b'{"a": ' + b"[" * 200_000,
        "more digits than the limit of 1024": b'{"a": ' + b"9" * 10_000 + b"}",
        "2 characters stand behind the end": b"{} x",
        "expected '{' at character 0": b"[1]",
        "expected a key at character 1": b"{1: 1}",
        "Expecting value": b'{"a": 1,}',
        "expected ',' at character 8": b'{"a": 1 "b": 2}',
        "Unterminated string": b'{"a": 1, "b',
        "Invalid control character": b'{"a\n": 1}',
    }.items(),
)
def test_what_is_wrong_is_said(message, data):
    with pytest.raises(ArtifactError, match=f"the text is damaged: .*{message}"):
        JsonObject.whole(data, "the text")


def test_many_equal_keys_are_found_quickly():
    # Comparing each with each would take hours.
    pairs = ", ".join(f'"{i}": 1' for i in range(200_000))
    with pytest.raises(ArtifactError, match="'199999' stands twice"):
        JsonObject.whole(f'{{"a": {{{pairs}, "199999": 1}}}}'.encode(), "text")


def test_json_above_the_limit_is_not_read(files, monkeypatch):
    from parameter_files import FILES, RECORD

    from tvm_model_hash import read_artifact, write_record

    for form in ("graph", "tensor cache", "safetensors"):
        path = files / FILES[form]
        size = path.stat().st_size
        if form == "safetensors":
            size = int.from_bytes(path.read_bytes()[:8], "little")
        monkeypatch.setattr(limits, "JSON_BYTES", size)
        read_artifact(path)
        before = path.read_bytes()
        with pytest.raises(ArtifactError, match=f"more than the limit of {size}"):
            write_record(path, RECORD)  # or nobody could read it
        assert path.read_bytes() == before
        monkeypatch.setattr(limits, "JSON_BYTES", size - 1)
        with pytest.raises(ArtifactError, match=f"{size} bytes of JSON, more than the limit"):
            read_artifact(path)
