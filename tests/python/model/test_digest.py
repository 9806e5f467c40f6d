# SPDX-License-Identifier: Apache-2.0
"""The record of a model in memory, and of a model's file with its external data."""

import copy
import hashlib
import os
import subprocess
import sys

import onnx
import pytest
from conftest import NETWORKS, run_python
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import (
    convert_model_to_external_data,
    load_external_data_for_tensor,
)
from small_models import check_equal, floats, network, sparse, tensor_model, tensor_type

from tvm_model_hash import (
    ExternalDataError,
    InvalidModelError,
    ModelFileError,
    ModelTypeError,
    model_record,
)
from tvm_model_hash.model.contents import tensors
from tvm_model_hash.model.difference import explain


def test_model_is_not_changed():
    model = network()
    model.graph.sparse_initializer.append(sparse("unused"))
    model.graph.input.append(
        helper.make_value_info("m", helper.make_map_type_proto(7, tensor_type()))
    )
    before = copy.deepcopy(model)
    model_record(model)
    explain(model, network())
    assert model == before
    assert model.SerializeToString() == before.SerializeToString()


def test_importing_the_module_does_not_import_onnx():
    code = (
        "import sys, tvm_model_hash.model.digest, tvm_model_hash.model.difference\n"
        "assert not {'onnx', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_digest_imports_no_package_that_onnx_does_not():
    code = """
import sys, onnx
before = {name.split(".")[0] for name in sys.modules}
import tvm_model_hash
tvm_model_hash.model_record(onnx.load(sys.argv[1]))
after = {name.split(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(*sorted(after))
"""
    path = NETWORKS["squeezenet"].path
    assert set(run_python(code, path).stdout.split()) <= {"tvm_model_hash", "tqdm"}


@pytest.mark.parametrize("model", [b"model.onnx", None, onnx.GraphProto()])
def test_what_is_not_a_model(model):
    with pytest.raises(ModelTypeError):
        model_record(model)
    with pytest.raises(ModelTypeError):
        explain(network(), model)


# Files


def save_external(model, path, **options):
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        size_threshold=0,
        convert_attribute=True,
        **options,
    )


def external_network():
    """With external data in an initializer, a subgraph and an attribute."""
    model = network()
    branch = model.graph.node[1].attribute[0].g
    branch.initializer.append(floats("inner", [[1, 1, 1]]))
    branch.node[0].input.append("inner")
    constant = helper.make_node("Constant", [], ["k"], value=floats("", [2]))
    model.graph.node.append(constant)
    model.graph.node[2].input.append("k")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data_equals_inline_data(tmp_path, one_file):
    inline, external = tmp_path / "inline.onnx", tmp_path / "external.onnx"
    onnx.save(external_network(), inline)
    save_external(external_network(), external, all_tensors_to_one_file=one_file)
    unloaded = onnx.load(external, load_external_data=False)
    assert unloaded.graph.initializer[0].data_location == TensorProto.EXTERNAL

    check_equal(inline, external)
    assert model_record(inline) == model_record(external_network())
    assert model_record(inline).model == hashlib.sha256(inline.read_bytes()).hexdigest()
    assert model_record(external) == model_record(onnx.load(external))
    assert model_record(str(external)) == model_record(external)


def test_one_bit_of_the_external_data_counts(tmp_path):
    save_external(external_network(), tmp_path / "m.onnx", location="data")
    before = model_record(tmp_path / "m.onnx")
    data = tmp_path / "data"
    for index, size in enumerate(data.read_bytes()):
        content = bytearray(data.read_bytes())
        content[index] ^= 1
        data.write_bytes(content)
        after = model_record(tmp_path / "m.onnx")
        assert after.model != before.model
        assert (after.graph, after.weights) != (before.graph, before.weights)
        content[index] = size
        data.write_bytes(content)
    assert model_record(tmp_path / "m.onnx") == before


def test_external_data_has_to_be_loaded(tmp_path):
    save_external(external_network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for call in (lambda: model_record(model), lambda: explain(model, model)):
        with pytest.raises(ExternalDataError, match="was not loaded, so it cannot be hashed"):
            call()


# What the errors say to do about it, done.

NOT_LOADED, MARKED = "was not loaded, so it cannot be hashed", "is in the model, and it is marked"


def in_its_file(path):
    return onnx.load(path, load_external_data=False)


def of_unknown_origin(path):
    return onnx.load_model_from_string(path.read_bytes())


def saved_to(path):
    """onnx.save takes the data out of the model that it is given."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0)
    return model


def load_again(model, path):
    return onnx.load(path)


def load_what_is_missing(model, path):
    onnx.load_external_data_for_model(model, os.fspath(path.parent))
    return model


def load_each_tensor(model, path):
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, os.fspath(path.parent))
    # With onnx 1.17 each is still marked, with 1.23 none is; then the error has the next advice.
    return unmark(model, path)


def unmark(model, path):
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def marked(path):
    model = onnx.load(path)
    convert_model_to_external_data(model, location="elsewhere", size_threshold=0)
    return model


def marked_in_a_typed_field(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        if tensor.data_type == TensorProto.FLOAT:
            tensor.float_data.extend(values.ravel())
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="elsewhere")
        else:
            tensor.raw_data = values.tobytes()
    return model


@pytest.mark.parametrize(
    ("given", "problem", "advice"),
    [
        *(
            (given, NOT_LOADED, advice)
            for given in (in_its_file, of_unknown_origin, saved_to)
            for advice in (load_again, load_what_is_missing, load_each_tensor)
        ),
        *((given, MARKED, advice) for given in (marked, marked_in_a_typed_field)
          for advice in (unmark, load_again)),
    ],
)  # fmt: skip
def test_what_the_error_says_to_do_helps(given, problem, advice, tmp_path):
    path = tmp_path / "m.onnx"
    save_external(external_network(), path)
    expected = model_record(path)
    model = given(path)
    with pytest.raises(ExternalDataError, match=problem) as error:
        model_record(model)
    said = {
        load_again: "load the model with onnx.load(path)",
        load_what_is_missing: "onnx.load_external_data_for_model(model, directory",
        load_each_tensor: "onnx.external_data_helper.load_external_data_for_tensor(tensor, ",
        unmark: "tensor.data_location = onnx.TensorProto.DEFAULT; del tensor.external_data[:]",
    }
    assert said[advice] in str(error.value)
    found = model_record(advice(model, path))
    assert (found.graph, found.weights) == (expected.graph, expected.weights)
    assert given is marked_in_a_typed_field or found == expected


@pytest.fixture
def external_model(tmp_path):
    """A function that saves a model of one external tensor, and gives its path."""
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "outside").write_bytes(bytes(8))
    (directory / "data").write_bytes(bytes(8))

    def save(part="weight", **fields):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=value)
        model = tensor_model(floats("w", [1, 2]))
        if part == "weight":
            model.graph.initializer[0].CopyFrom(tensor)
        elif part == "unused":
            model.graph.initializer.add().CopyFrom(tensor)
        elif part == "attribute":
            model.graph.node[0].attribute.append(helper.make_attribute("v", tensor))
        elif part == "subgraph":
            graph = helper.make_graph([], "g", [], [], [tensor])
            model.graph.node[0].attribute.append(helper.make_attribute("v", graph))
        elif part == "function":
            node = helper.make_node("Constant", [], ["c"], value=tensor)
            model.functions.append(helper.make_function("f", "F", [], ["c"], [node], []))
        elif part == "default":
            function = helper.make_function("f", "F", [], [], [], [])
            function.attribute_proto.append(helper.make_attribute("v", tensor))
            model.functions.append(function)
        elif part == "sparse":
            model.graph.sparse_initializer.add(values=tensor, dims=[5])
        onnx.save(model, directory / "m.onnx")
        return directory / "m.onnx"

    return save


def test_external_data_in_the_directory_is_read(external_model):
    path = external_model(location="data")
    directory = path.parent
    (directory / "sub").mkdir()
    (directory / "sub" / "deep").write_bytes(bytes(8))
    os.symlink("data", directory / "link")
    (directory / "padded").write_bytes(b"\1" * 4 + bytes(8) + b"\1")
    inline = tensor_model(floats("w", [0, 0]))
    for fields in (
        {"location": "data"},
        {"location": "data", "offset": "0", "length": "8", "checksum": "0"},
        {"location": "./data"},
        {"location": "sub/deep"},
        {"location": "padded", "offset": "4", "length": "8"},
    ):
        check_equal(external_model(**fields), inline)
    check_equal(external_model(location="link"), inline)


def test_external_data_is_found_from_any_directory(external_model, monkeypatch):
    path = external_model(location="data")
    record = model_record(path)
    monkeypatch.chdir(path.parent)
    assert model_record("m.onnx") == record


REFUSED = {
    "absolute": ({"location": "/etc/hostname"}, "'/etc/hostname', expected a relative path"),
    "parent": ({"location": "../outside"}, "'../outside', expected the path of a file below"),
    "hidden parent": ({"location": "a/../../outside"}, "expected the path of a file below"),
    "symlink": ({"location": "to_outside"}, "by a symlink to '.*outside' outside"),
    "symlinked directory": ({"location": "to_parent/outside"}, "by a symlink to"),
    "parent of a symlink": (
        {"location": "to_parent/model/../outside"},
        "expected the path of a file below",
    ),
    "parent that leads back": ({"location": "sub/../data"}, "expected the path of a file below"),
    "empty part": ({"location": "sub//data"}, "expected the path of a file below"),
    "empty last part": ({"location": "data/"}, "expected the path of a file below"),
    "directory": ({"location": "sub"}, "'sub', which cannot be read: Is a directory"),
    "the model's directory": ({"location": "."}, "which cannot be read: Is a directory"),
    "fifo": ({"location": "fifo"}, "'fifo', which is not a regular file"),
    "device": ({"location": "null"}, "by a symlink to '/dev/null' outside"),
    "missing": ({"location": "nothing"}, "'nothing', which cannot be read: No such file"),
    "no location": ({"offset": "0"}, "has the location None, expected the path of a file"),
    "empty location": ({"location": ""}, "has the location ''"),
    "NUL": ({"location": "data\0"}, "expected a relative path"),
    "negative offset": ({"location": "data", "offset": "-4"}, "has the offset '-4', expected a"),
    "offset": ({"location": "data", "offset": "four"}, "has the offset 'four', expected a number"),
    "empty offset": ({"location": "data", "offset": ""}, "has the offset ''"),
    "other digits": ({"location": "data", "offset": "\u0664"}, "has the offset '\u0664'"),
    "negative length": ({"location": "data", "length": "-8"}, "has the length '-8'"),
    "length": ({"location": "data", "length": "8_0"}, "has the length '8_0'"),
    "beyond the end": (
        {"location": "data", "offset": "4", "length": "8"},
        "8 bytes at offset 4 of 'data', which has 8 bytes: is the file truncated",
    ),
    "begins beyond the end": ({"location": "data", "offset": "9"}, "which has 8 bytes"),
    "empty file": ({"location": "empty", "length": "8"}, "which has 0 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_external_data_is_refused(name, external_model, tmp_path):
    fields, message = REFUSED[name]
    path = external_model(**fields)
    directory = path.parent
    os.symlink(tmp_path / "outside", directory / "to_outside")
    os.symlink("..", directory / "to_parent")
    os.symlink("/dev/null", directory / "null")
    os.mkfifo(directory / "fifo")
    (directory / "sub").mkdir()
    (directory / "empty").write_bytes(b"")
    for call in (lambda: model_record(path), lambda: explain(path, path)):
        with pytest.raises(ExternalDataError, match=message) as caught:
            call()
        assert "tensor 'w'" in str(caught.value)


@pytest.mark.parametrize(
    "part", ["unused", "attribute", "subgraph", "function", "default", "sparse"]
)
def test_external_data_is_refused_wherever_it_stands(part, external_model):
    with pytest.raises(ExternalDataError, match="expected the path of a file below"):
        model_record(external_model(part, location="../outside"))


def test_two_locations_are_refused(external_model):
    path = external_model(location="data")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="other")
    onnx.save(model, path)
    with pytest.raises(ExternalDataError, match="two fields 'location'"):
        model_record(path)


@pytest.mark.parametrize("fields", [{"length": "4"}, {"offset": "4"}])
def test_external_data_of_another_size(fields, external_model):
    path = external_model(location="data", **fields)
    with pytest.raises(InvalidModelError, match="holds 4 bytes, expected 8"):
        model_record(path)


def test_external_strings(external_model):
    path = external_model(location="data")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].data_type = TensorProto.STRING
    onnx.save(model, path)
    with pytest.raises(InvalidModelError, match="is of strings"):
        model_record(path)


def test_what_is_not_the_file_of_a_model(tmp_path):
    with pytest.raises(ModelFileError, match=r"missing\.onnx': No such file"):
        model_record(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="is a directory, expected a regular file"):
        model_record(tmp_path)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelFileError, match="is not an ONNX model"):
        model_record(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"empty\.onnx' is not an ONNX model, it has no graph"):
        model_record(tmp_path / "empty.onnx")
