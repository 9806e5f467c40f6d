# SPDX-License-Identifier: Apache-2.0
"""External data: which files and parts of files it may be, and that it is read where it lies."""

import os

import canonical_reference
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor
from small_models import floats, tensor_model
from test_file import LARGE, MEMORY_RUN, bytes_of
from test_protobuf_bytes import UNKNOWN, large_model, naive, raw, run, written_by_hand

from tvm_model_hash import ExternalDataError, ModelFileError, model_hash, model_record
from tvm_model_hash.model.contents import open_model


@pytest.fixture
def located(tmp_path):
    """A function that saves a model of a tensor of 8 bytes with these keys, and gives its path."""
    directory = tmp_path / "model"
    (directory / "sub").mkdir(parents=True)
    for path in (
        "outside",
        "model/data",
        "model/sub/deep",
        "model/...",
        "model/..data",
        "model/a b",
    ):
        (tmp_path / path).write_bytes(bytes(8))
    (directory / "empty").write_bytes(b"")
    (directory / "long").write_bytes(b"\1\1" + bytes(8) + b"\1")
    os.symlink("model", tmp_path / "link to model")
    os.symlink("sub", directory / "link")
    os.symlink("..", directory / "up")

    def save(size=8, **keys):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size // 4])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in keys.items():
            tensor.external_data.add(key=key, value=value)
        model = tensor_model(floats("w", [0, 0]))
        model.graph.initializer[0].CopyFrom(tensor)
        onnx.save(model, directory / "m.onnx")
        return directory / "m.onnx"

    return save


@pytest.mark.parametrize(
    "keys",
    [
        *(
            {"location": location}
            for location in ("data", "./data", "sub/./deep", "link/deep", "...", "..data", "a b")
        ),
        {"location": "data", "offset": "0", "length": "8"},
        {"location": "data", "offset": "0" * 19, "length": "8".zfill(19)},
        {"location": "long", "offset": "2", "length": "8"},
        {"location": "data", "checksum": "x", "basepath": "/"},
    ],
    ids=str,
)
def test_a_part_of_a_file_below_the_directory(keys, located, tmp_path):
    inline = model_record(tensor_model(floats("w", [0, 0])))
    path = located(**keys)
    found = model_record(path)
    assert (found.graph, found.weights) == (inline.graph, inline.weights)
    assert found.model == canonical_reference.model_digest_of_file(path)
    assert model_record(tmp_path / "link to model" / "m.onnx") == found


@pytest.mark.parametrize(
    "location",
    ["", "/data", "{directory}/data", "sub/", "sub//deep", "data/", "//data", "..", "../outside",
     "sub/../data", "none/../data", "../model/data", "sub/..", "up/outside", "link/../data"],
)  # fmt: skip
def test_a_location_is_refused(location, located):
    path = located(location=location.replace("{directory}", os.fspath(located().parent)))
    with pytest.raises(ExternalDataError, match="tensor 'w' (has the location|is at '.*symlink)"):
        model_record(path)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"length": "0"}, "has the length 0 at offset 0 of 'data', which has 8 bytes: onnx.load"),
        ({"length": "00", "offset": "7"}, "has the length 0 at offset 7"),
        ({"length": "8".zfill(20)}, "expected a number of bytes in at most 19 digits"),
        ({"offset": "0" * 20}, "expected a number of bytes in at most 19 digits"),
        ({"offset": "9" * 19}, "which has 8 bytes"),
        ({"offset": "9", "length": "0"}, "which has 8 bytes"),
        ({"offset": "1e0"}, "has the offset '1e0'"),
        ({"length": "8 "}, "has the length '8 '"),
        ({"length": "8\n"}, "has the length"),
    ],
    ids=str,
)
def test_numbers_are_refused(keys, problem, located):
    with pytest.raises(ExternalDataError, match=problem):
        model_record(located(location="data", **keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"location": "empty"},
        {"location": "empty", "length": "0"},
        {"location": "data", "offset": "8"},
        {"location": "data", "offset": "8", "length": "0"},
    ],
    ids=str,
)
def test_no_bytes_at_the_end_of_a_file(keys, located):
    path = located(size=0, **keys)
    assert model_record(path).model == naive(onnx.load(path))


def test_inline_data_beside_external_data_is_what_onnx_load_overwrites(located):
    """Of an unused tensor: a used one has no canonical form."""
    path = located(location="data")
    model = onnx.load(path, load_external_data=False)
    unused = model.graph.initializer.add()
    unused.CopyFrom(model.graph.initializer[0])
    unused.name, unused.raw_data = "unused", bytes([7]) * 5000
    model.graph.initializer[0].CopyFrom(floats("w", [0, 0]))
    path.write_bytes(model.SerializeToString())  # onnx.save would move the data to the file
    assert model_record(path).model == naive(onnx.load(path))


def external(tmp_path, tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    return tensor


def test_external_data_with_unknown_fields(tmp_path):
    (tmp_path / "data").write_bytes(bytes(9000))
    model = tensor_model(external(tmp_path, raw("w", 9000)))
    for message in (model, model.graph, model.graph.initializer[0]):
        message.MergeFromString(UNKNOWN["low number"])
        onnx.save(model, tmp_path / "m.onnx")
        assert bytes_of(tmp_path / "m.onnx") == onnx.load(tmp_path / "m.onnx").SerializeToString()


def test_external_data_of_sparse_tensors(tmp_path):
    # onnx.load leaves them where they are.
    values = numpy_helper.from_array(np.arange(1, 4, dtype=np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 2, 9], np.int64))
    inline = tensor_model(values)
    del inline.graph.initializer[:]
    inline.graph.sparse_initializer.add(values=values, indices=indices, dims=[10])
    model = onnx.ModelProto()
    model.CopyFrom(inline)
    sparse = model.graph.sparse_initializer[0]
    (tmp_path / "data").write_bytes(values.raw_data + indices.raw_data)
    for tensor, offset in ((sparse.values, 0), (sparse.indices, 12)):
        size = len(tensor.raw_data)
        external(tmp_path, tensor)
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(size))
    onnx.save(model, tmp_path / "m.onnx")
    for tensor in (
        inline.graph.sparse_initializer[0].values,
        inline.graph.sparse_initializer[0].indices,
    ):
        tensor.data_location = TensorProto.DEFAULT
    assert model_record(tmp_path / "m.onnx") == model_record(inline)
    loaded = onnx.load(tmp_path / "m.onnx")
    with pytest.raises(ExternalDataError, match="was not loaded.*load_external_data_for_tensor"):
        model_hash(loaded)
    # What the error says to do, and what the one after it says where onnx leaves the mark.
    sparse = loaded.graph.sparse_initializer[0]
    for tensor in (sparse.values, sparse.indices):
        load_external_data_for_tensor(tensor, os.fspath(tmp_path))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    assert model_record(loaded) == model_record(tmp_path / "m.onnx")


@pytest.mark.parametrize("change", ["truncated", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read(change, tmp_path):
    data = tmp_path / "data"
    data.write_bytes(bytes(9 << 20))
    onnx.save(tensor_model(external(tmp_path, raw("w", 9 << 20))), tmp_path / "m.onnx")
    model, contents = open_model(tmp_path / "m.onnx")
    content = contents.of(model.graph.initializer[0])
    assert content.read(0) == bytes(1 << 20)
    if change == "truncated":
        os.truncate(data, 5 << 20)
    else:
        data.rename(tmp_path / "old")
        if change == "replaced":
            data.write_bytes(bytes(9 << 20))
    with pytest.raises(ExternalDataError, match="changed while it was read|No such file"):
        content.read(5)


def test_external_data_over_2_gib_takes_little_memory(tmp_path):
    model = large_model(data_location=TensorProto.EXTERNAL)
    for number, tensor in enumerate(model.graph.initializer):
        tensor.external_data.add(key="location", value="data")
        tensor.external_data.add(key="offset", value=str(number * LARGE))
        tensor.external_data.add(key="length", value=str(LARGE))
    onnx.save(model, tmp_path / "m.onnx")
    with open(tmp_path / "data", "wb") as file:
        file.truncate(3 * LARGE)
    found, kib = run(MEMORY_RUN, tmp_path / "m.onnx")
    assert found == written_by_hand(inside_was_external=True)
    assert int(kib) < 64 << 10


# --- stores: a model's directory is of links, and the files lie elsewhere ---


def onnx_loads(path):
    """What onnx.load gives, None where it refuses links: not all versions follow them."""
    try:
        return model_record(onnx.load(path))
    except onnx.checker.ValidationError:
        return None


@pytest.fixture
def store(located, tmp_path):
    """A store with a model and its data as two of its files, and the record of that model.

    Parameters
    ----------
    links : dict of str to str
        The links to make: where they lie, and where they lead to.
    """
    path = located(location="model.onnx_data", offset="0", length="8")
    blobs = tmp_path / "store" / "blobs"
    (blobs / "below").mkdir(parents=True)
    for name in ("data", "below/data", "../data"):
        (blobs / name).write_bytes(bytes(8))
    path.rename(blobs / "model")

    def make(**links):
        directory = tmp_path / "store" / "snapshots" / "1"
        directory.mkdir(parents=True)
        for name, target in links.items():
            os.symlink(target, directory / name.replace("_dot_", "."))
        return directory / "model.onnx"

    return make


MODEL = {"model_dot_onnx": "../../blobs/model"}
DATA = "model_dot_onnx_data"


@pytest.mark.parametrize(
    "links",
    [
        {**MODEL, DATA: "../../blobs/data"},
        {**MODEL, DATA: "{absolute}/blobs/below/../data"},
        {**MODEL, DATA: "chain", "chain": "chain2", "chain2": "{absolute}/snapshots/1/chain3",
         "chain3": "../../blobs/data"},
        {"model_dot_onnx": "chain", "chain": "../../blobs/model", DATA: "up/blobs/data",
         "up": "../.."},
    ],
    ids=["as it is made", "absolute", "a chain", "by a directory"],
)  # fmt: skip
def test_a_store_of_links(links, store, tmp_path):
    absolute = os.fspath(tmp_path / "store")
    path = store(**{name: target.format(absolute=absolute) for name, target in links.items()})
    inline = model_record(tensor_model(floats("w", [0, 0])))
    found = model_record(path)
    assert (found.graph, found.weights) == (inline.graph, inline.weights)
    assert onnx_loads(path) in (None, found)
    os.symlink("1", path.parent.parent / "main")  # a revision by a name, as by a directory
    assert model_record(path.parent.parent / "main" / "model.onnx") == found


@pytest.mark.parametrize(
    "target",
    ["../../data", "../../blobs/below/data", "../../blobs/../data", "/etc/passwd",
     "../../blobs/link", "../../blobs"],
    ids=["beside the store", "below", "by ..", "absolute", "a link in the store", "directory"],
)  # fmt: skip
def test_a_link_out_of_a_store_is_refused(target, store, tmp_path):
    os.symlink("../data", tmp_path / "store/blobs/link")
    path = store(**MODEL, **{DATA: target})
    with pytest.raises(
        ExternalDataError, match="outside of the model's directory: it may lead"
    ) as e:
        model_record(path)
    assert f"file lies, here '{tmp_path}/store/blobs'" in str(e.value)


def test_a_model_that_is_no_link_has_no_store(store, tmp_path):
    path = store(**{DATA: "../../blobs/data"})
    path.write_bytes((tmp_path / "store/blobs/model").read_bytes())
    with pytest.raises(
        ExternalDataError, match="outside of the model's directory: it may lead"
    ) as e:
        model_record(path)
    # What the error says to do.
    (path.parent / "model.onnx_data").unlink()
    (path.parent / "model.onnx_data").write_bytes((tmp_path / "store/blobs/data").read_bytes())
    assert model_record(path) == model_record(onnx.load(path))
    assert ", here" not in str(e.value)


def test_data_beside_the_model_that_a_link_leads_to(store, tmp_path):
    path = store(**MODEL)
    blobs = tmp_path / "store/blobs"
    (blobs / "data").rename(blobs / "model.onnx_data")
    with pytest.raises(ExternalDataError, match="give the path of the model's file there"):
        model_record(path)
    assert model_record(path.resolve()) == model_record(onnx.load(path.resolve()))


def test_a_hard_link_is_the_file_itself(located, tmp_path):
    path = located(location="hard")
    os.link(tmp_path / "outside", path.parent / "hard")
    inline = model_record(tensor_model(floats("w", [0, 0])))
    assert model_record(path).weights == inline.weights


def exchanged(function, path, link):
    """Replace a file or directory by a link when a function of os has been called."""

    def run(*arguments, **keywords):
        result = function(*arguments, **keywords)
        if not os.path.islink(path):
            os.rename(path, f"{path} old")
            os.symlink(link, path)
        return result

    return run


@pytest.mark.parametrize("what", ["data", "sub"])
def test_a_link_that_is_put_there_when_the_path_was_resolved(what, located, tmp_path, monkeypatch):
    """Somebody who may write into the directory exchanges the file, or a directory on the way."""
    directory = located().parent
    (directory / "sub/data").write_bytes(bytes(8))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/data").write_bytes(bytes(8))
    path = located(location="data" if what == "data" else "sub/data")
    target = tmp_path / ("elsewhere/data" if what == "data" else "elsewhere")
    commonpath = exchanged(os.path.commonpath, os.fspath(directory / what), target)
    monkeypatch.setattr(os.path, "commonpath", commonpath)
    with pytest.raises(ExternalDataError, match="cannot be read: (Too many|Not a dir)"):
        model_record(path)


def test_a_model_whose_link_is_changed_while_it_is_opened(store, tmp_path, monkeypatch):
    """It would have a store in which it does not lie."""
    path = store(**MODEL, **{DATA: "../../data"})
    (tmp_path / "store/model").write_bytes(path.read_bytes())
    realpath = os.path.realpath

    def exchange(name, *arguments):
        if os.fspath(name) == os.fspath(path) and os.readlink(path) != "../../model":
            path.unlink()
            os.symlink("../../model", path)
        return realpath(name, *arguments)

    monkeypatch.setattr(os.path, "realpath", exchange)
    with pytest.raises(ModelFileError, match="was replaced while it was read"):
        model_record(path)
