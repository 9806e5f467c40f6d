# SPDX-License-Identifier: Apache-2.0
import json
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from parameter_files import ARRAYS, RECORD

from tvm_model_hash import Record, read_artifact, write_record
from tvm_model_hash.errors import ArtifactError, RecordError, UnknownArtifactError


def header_of(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size].decode(), data[8 + size :]


def write(path, header, data=b""):
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


METADATA = (None, {}, {"format": "np"}, {"model_hash": "x", "größe": "1"})


@pytest.mark.parametrize("metadata", METADATA)
def test_the_record_is_metadata_and_the_data_stay_aligned(path, metadata):
    safetensors.numpy.save_file(ARRAYS, path, metadata)
    stock, data = header_of(path)
    write_record(path, RECORD)
    header, tagged_data = header_of(path)
    assert tagged_data == data
    assert len(header.encode()) % 8 == len(stock.encode()) % 8 == 0
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {**(metadata or {}), "model_hash_record": str(RECORD)}
        for name, array in ARRAYS.items():
            assert file.get_tensor(name).tobytes() == array.tobytes()


TENSOR = '{"dtype":"U8","shape":[3],"data_offsets":[0,3]}'
LAYOUTS = {
    "without padding": f'{{"w":{TENSOR}}}',
    "with more padding than needed": f'{{"w":{TENSOR}}}' + " " * 30,
    "spaces behind the brace": f'{{  "w": {TENSOR}}}',
    "metadata last": f'{{"w":{TENSOR}, "__metadata__": {{"a": "b"}}}}',
    "empty metadata": f'{{"w":{TENSOR},"__metadata__":{{ }}}}',
    "lines": f'{{\n "__metadata__": {{\n}},\n"w":{TENSOR}\n}}',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_header_of_any_layout_gets_its_bytes_back(path, layout):
    write(path, LAYOUTS[layout], b"abc")
    stock = path.read_bytes()
    # Of each length that asks for other padding.
    records = [Record("f" * 64, extra=(("note", "x" * size),)) for size in range(1, 9)]
    tagged = []
    for record in records:
        write_record(path, record)
        tagged.append(path.read_bytes())
        assert len(tagged[-1]) % 8 == len(stock) % 8  # the data are as aligned as they were
        assert safetensors.numpy.load_file(path)["w"].tobytes() == b"abc"
        write_record(path, None)
        assert path.read_bytes() == stock
    for record, expected in zip(records, tagged, strict=True):
        write_record(path, record)
        assert path.read_bytes() == expected
    write_record(path, None)
    assert path.read_bytes() == stock


@pytest.mark.parametrize("metadata", METADATA)
def test_a_record_that_was_saved_with_the_tensors_comes_out(path, metadata):
    safetensors.numpy.save_file(ARRAYS, path, metadata)
    stock = path.read_bytes()
    metadata_with_record = {**(metadata or {}), "model_hash_record": str(RECORD)}
    safetensors.numpy.save_file(ARRAYS, path, metadata_with_record)
    write_record(path, None)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == (metadata or None)
    assert len(header_of(path)[0].encode()) % 8 == 0
    # Their order in the file is not one that is kept.
    if metadata is None:
        assert path.read_bytes() == stock


def test_tensors_without_bytes_are_named(path):
    arrays = {"a": np.zeros((0, 3)), "b": np.zeros(2), "c": np.zeros((2, 0))}
    for some in (arrays, {}):
        safetensors.numpy.save_file(some, path)
        assert sorted(read_artifact(path).tensors) == sorted(some)
        write_record(path, RECORD)
        assert sorted(read_artifact(path).tensors) == sorted(some)
        assert safetensors.numpy.load_file(path).keys() == some.keys()


def tensor(start, end):
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}


def test_what_contradicts_itself_is_an_error(path):
    deep = json.loads("[" * 50 + "]" * 50)
    damages = [
        ("begin at byte 1, expected 0", {"a": tensor(1, 3)}, 3),
        ("begin at byte 2, expected 3", {"a": tensor(0, 3), "b": tensor(2, 4)}, 4),
        ("begin at byte 4, expected 3", {"a": tensor(0, 3), "b": tensor(4, 5)}, 5),
        ("has 4 bytes of data, expected 3", {"a": tensor(0, 3)}, 4),
        ("has 2 bytes of data, expected 3", {"a": tensor(0, 3)}, 2),
        ("has 1 bytes of data, expected 0", {}, 1),
        ("without its data_offsets", {"a": 1}, 0),
        ("without its data_offsets", {"a" * 5000: list(range(5000))}, 0),
        ("without its data_offsets", {"a": tensor(3, 0)}, 3),
        ("without its data_offsets", {"a": {"data_offsets": [0, 2**63]}}, 3),
        ("without its data_offsets", {"a": {"data_offsets": [False, True]}}, 1),
        ("without its data_offsets", {"a": {"data_offsets": [0, 10**1000]}}, 1),
        ("without its data_offsets", {"a": {"data_offsets": deep}}, 1),
        ("expected strings by keys", {"__metadata__": {"a": 1}}, 0),
        ("expected strings by keys", {"__metadata__": "a"}, 0),
        ("stands twice", '{"a":{},"a":{}}', 0),
        ("is not a text", b'{"\\ud800": {"data_offsets": [0, 0]}}', 0),
        ("not valid JSON", "{\"a\": }", 0),
        ("not UTF-8", b'{"a": "\xff"}', 0),
    ]  # fmt: skip
    for message, header, size in damages:
        write(path, header, bytes(size))
        with pytest.raises(ArtifactError, match=message) as caught:
            read_artifact(path)
        assert len(str(caught.value)) < 1000


def test_a_header_that_is_cut_is_named(path):
    write(path, {"a": tensor(0, 0)})
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    size = len(data) - 8
    with pytest.raises(ArtifactError, match=f"a header of {size} bytes, found {size - 1}"):
        read_artifact(path)


def test_a_malformed_record_is_not_replaced(path):
    safetensors.numpy.save_file(ARRAYS, path, {"model_hash_record": "model-hash/1 model=x"})
    for act in (read_artifact, lambda path: write_record(path, RECORD)):
        with pytest.raises(RecordError, match=r"w\.safetensors': key 'model'"):
            act(path)


def test_other_files_are_none(path):
    for data in (
        b"\x08\0\0\0\0\0\0\0{\0\0\0\0\0\0\0",
        b"\x08\0\0\0\0\0\0\0[1, 2, 3",
        b"\x00\xe1\xf5\x05\x01\0\0\0" + b'{"a": 1}',
        b'\x00\0\0\0\0\0\0\0{"a": 1}',
    ):
        path.write_bytes(data)
        with pytest.raises(UnknownArtifactError):
            read_artifact(path)


def test_a_header_above_the_limit_is_not_read(path):
    path.write_bytes(struct.pack("<Q", 32 * 1024 * 1024 + 1) + b'{"a": {}')
    with pytest.raises(ArtifactError, match="more than the limit of 33554432"):
        read_artifact(path)
