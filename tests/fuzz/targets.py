# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: for each reader a function that takes bytes, and what has to be so of its answer.

An input is read, or refused with a ModelHashError. Where there is a second reader, the two have to
say the same: the reference implementation, protobuf, zipfile, tarfile, safetensors. What can be
rewritten is, and read again. And whatever is done to a deployment, it is a match only if what its
digests cover is as it was.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib

import canonical_reference
import corpus
import formats_reference
import make_models
import onnx
import safetensors
from choices import Choices, change_files, change_model
from odd_files import OddWriter
from record_harness import Harness

from tvm_model_hash import Status, check, explain, model_record, read_artifact, write_record
from tvm_model_hash.artifact import library_record, record_module, vm_header
from tvm_model_hash.artifact.graph_json import graph_with_record, record_in_graph
from tvm_model_hash.checking.dependencies import refuse_dependencies
from tvm_model_hash.checking.hash_file import read_hash_file
from tvm_model_hash.checking.manifest import read_seal
from tvm_model_hash.checking.package import unpacked
from tvm_model_hash.containers import tar
from tvm_model_hash.containers.library import open_library
from tvm_model_hash.containers.window import Window
from tvm_model_hash.errors import FixedRecordError, ModelFileError, ModelHashError
from tvm_model_hash.model import canonical, file, hashing, protobuf_bytes
from tvm_model_hash.model.contents import Source, open_model
from tvm_model_hash.record import Record

RECORD = Record("5" * 64, "6" * 64, "7" * 64, (("note", 'a"b\\c'),))
NAMES = (
    "__tvm_dev_mblob",
    "__tvm_ffi__library_bin",
    "__tvm_module_ctx",
    "elsewhere",
    "add",
)
LIMIT = "more than the limit"
SHARD_BYTES = 27  # of the tensor cache in the corpus

# Imported when they are needed by the readers, and here so that fuzzing is led by them.
_LATE = (canonical, hashing)

TARGETS = {}


def target(function):
    """Add a function to the targets, by its name."""
    TARGETS[function.__name__] = function
    return function


class Place:
    """A directory in memory, for what takes a path."""

    def __init__(self, path):
        self.path = path

    def fill(self, files):
        """Have these files there, by their names, and no others."""
        shutil.rmtree(self.path, ignore_errors=True)
        for name, data in files.items():
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as target_file:
                target_file.write(data)
        return self.path

    def write(self, data, name="file"):
        """Write one file, whatever else is there."""
        os.makedirs(self.path, exist_ok=True)
        path = os.path.join(self.path, name)
        with open(path, "wb") as target_file:
            target_file.write(data)
        return path


@functools.cache
def place(name="place"):
    return Place(os.path.join(_root().name, name))


@functools.cache
def _root():
    directory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    tempfile.tempdir = directory.name  # of what the readers unpack, too
    return directory


def prepare(name):
    """What takes time or memory once is not an input's fault."""
    place()
    corpus.models()
    if name == "record_in_cpp":
        harness()


def answer(function, *arguments):
    """What a function gives, or the error that a reader may raise."""
    try:
        return function(*arguments)
    except ModelHashError as error:
        if not str(error).strip():
            raise AssertionError("an error without a message") from error
        return error


def same(found, second, *what):
    """Compare an answer with that of a second reader, which may have no limits."""
    if isinstance(found, ModelHashError):
        assert second is None or LIMIT in str(found), (found, second, *what)
    else:
        assert found == second, (found, second, *what)


def by_reference(function, *arguments):
    """What the reference says; None if it refuses."""
    try:
        return function(*arguments)
    except (formats_reference.FormatError, canonical_reference.InvalidModelError):
        return None


def fields(record):
    return record and formats_reference.record(str(record).encode())


# Texts


@target
def record(data):
    found = answer(Record.decode, data)
    if isinstance(found, Record):
        assert str(found).encode() == data
        found = fields(found)
    same(found, by_reference(formats_reference.record, data))


@target
def record_in_cpp(data):
    """The parser in C++ under AddressSanitizer and UndefinedBehaviorSanitizer."""
    found = answer(Record.decode, data)
    assert harness().accepts(data) == isinstance(found, Record), found


@functools.cache
def harness():
    return Harness()


@target
def hash_txt(data):
    found = answer(read_hash_file, place().write(data, "hash.txt"))
    if isinstance(found, Record):
        found = fields(found)
    same(found, by_reference(formats_reference.hash_txt, data))


@target
def devices(data):
    """The text of ``get_virtual_devices``, which a device behind RPC gives."""
    answer(vm_header.record_from_listing, data.decode("utf-8", "surrogateescape"))


@target
def payload(data):
    """What a library carries, and the sources that a tar may have instead."""
    found = answer(library_record._parse, data)
    if isinstance(found, library_record.Carried):
        assert record_module.payload(found.record, found.needs) == data
        for engine in record_module.Engine:
            source = record_module.c_source(data, engine)
            assert record_module.payload_in_c(source) == data
    text = data.decode("latin-1")
    for read in (record_module.payload_in_c, record_module.payload_in_ir):
        inner = answer(read, text)
        if isinstance(inner, bytes):
            answer(library_record._parse, inner)


@target
def manifest(data):
    for content in (data, with_last_line(data)):
        directory = os.path.dirname(place().write(content, "SHA256SUMS"))
        found = answer(read_seal, directory)
        if not isinstance(found, ModelHashError):
            assert str(found).encode() == content
            files = {one.name: {"size": one.size, "sha256": one.sha256} for one in found.files}
            ignored = list(found.ignored)
            found = {"record": fields(found.record), "ignored": ignored, "files": files}
        same(found, by_reference(formats_reference.manifest, content))


def with_last_line(data):
    """A manifest with the digest that it should have."""
    body = data.partition(b"# sha256 of the lines above: ")[0]
    return body + b"# sha256 of the lines above: %s\n" % hashlib.sha256(body).hexdigest().encode()


# What carries a record


def rewritable(data, name="file"):
    """Read an artifact, and put a record in and take it out again."""
    path = place().write(data, name)
    output = os.path.join(place().path, f"output-{name}")
    found = answer(read_artifact, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(output)
    tagged = answer(write_record, path, RECORD, output)
    if isinstance(found, ModelHashError):
        assert isinstance(tagged, ModelHashError), "it can't be read, and is rewritten"
        assert not os.path.exists(output)
        return found
    if isinstance(tagged, ModelHashError):
        assert isinstance(tagged, FixedRecordError) or LIMIT in str(tagged), tagged
        return found
    again = read_artifact(output)
    assert again.record == RECORD
    assert said(again) == said(found)
    write_record(output, None)
    assert read_artifact(output).record is None
    if found.record is None:
        assert content(output) == data
    else:
        write_record(output, found.record)
        assert read_artifact(output).record == found.record
    return found


def said(artifact):
    return artifact.kind, artifact.needs, artifact.inputs, artifact.tensors, artifact.files


def content(path):
    with open(path, "rb") as opened:
        return opened.read()


@target
def code_ro(data):
    found = rewritable(data)
    if not data.startswith(vm_header.MAGIC.to_bytes(8, "little")):
        return
    if not isinstance(found, ModelHashError):
        output = os.path.join(place().path, "output-file")
        write_record(os.path.join(place().path, "file"), None, output)
        found = {
            "record": fields(found.record),
            "parameters": None if found.inputs is None else list(found.inputs),
            "late-bound": list(found.needs),
            "stock": hashlib.sha256(content(output)).hexdigest(),
        }
    same(found, by_reference(formats_reference.executable, data))


@target
def tensor_list(data):
    found = rewritable(data)
    if data.startswith(struct.pack("<Q", formats_reference.TENSORS)):
        if not isinstance(found, ModelHashError):
            found = {"record": fields(found.record), "names": list(found.tensors)}
        same(found, by_reference(formats_reference.tensor_list, data))


@target
def npz(data):
    found = rewritable(data)
    if not isinstance(found, ModelHashError) and found.kind == "NumPy arrays":
        try:  # what numpy.load uses
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError):  # the latter for a later version
            return
        arrays = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
        assert list(found.tensors) == arrays


@target
def safetensors_file(data):
    safetensors_with(data)
    header = data[8:].partition(b"}}")
    length = struct.pack("<Q", len(header[0] + header[1]))
    safetensors_with(length + data[8:])


def safetensors_with(data):
    found = rewritable(data)
    try:
        second = safetensors.deserialize(data)
    except Exception:  # of a type of the library's own
        return
    assert not isinstance(found, ModelHashError), (found, second)
    assert sorted(found.tensors) == sorted(name for name, _ in second)


@target
def tensor_cache(data):
    place().write(bytes(SHARD_BYTES), "params_shard_0.bin")
    found = rewritable(data, "ndarray-cache.json")
    if not isinstance(found, ModelHashError) and found.kind == "tensor cache":
        names = [
            tensor["name"] for shard in json.loads(data)["records"] for tensor in shard["records"]
        ]
        assert list(found.tensors) == names


@target
def graph_json(data):
    found = rewritable(data)
    if not isinstance(found, ModelHashError) and found.kind == "graph executor graph":
        graph = json.loads(data)
        names = [graph["nodes"][index]["name"] for index in graph["arg_nodes"]]
        assert list(found.inputs) == names
    # Of a graph in memory.
    text = data.decode("utf-8", "surrogateescape")
    tagged = answer(graph_with_record, text, RECORD)
    if isinstance(tagged, str):
        assert record_in_graph(tagged) == RECORD
        stripped = graph_with_record(tagged, None)
        if record_in_graph(text) is None:
            assert stripped == text


# Containers


def library(data):
    """All that the readers find in a library."""
    answer(structure, data)
    path = place().write(data)
    found = answer(read_artifact, path)
    if not isinstance(found, ModelHashError):
        answer(refuse_dependencies, "file", path)


def structure(data):
    found = open_library(io.BytesIO(data), len(data), "file")
    for binary in found.binaries if found else ():
        binary.notes(record_module.NOTE_OWNER.encode(), record_module.NOTE_TYPE)
        for section in (".text", ".tvmhash", "__TEXT,__model_hash", "tvm_model_hash"):
            for window in binary.sections(section):
                window.read(0, window.size, "section")
        for symbol in [*binary.symbols(NAMES).values(), *binary.search(("library_bin", "record"))]:
            if symbol.data is not None:
                symbol.data.read(0, symbol.data.size, "symbol")


@target
def elf(data):
    library(data)


@target
def mach_o(data):
    library(data)


@target
def pe(data):
    library(data)


@target
def wasm(data):
    library(data)


@target
def ar(data):
    library(data)


@target
def modules(data):
    """The modules in a library: the bytes behind a symbol of TVM's."""
    choices = Choices(data)
    template, start, size = choices.one_of(corpus.template("libraries"))
    blob = choices.rest()[: size - 8]
    blob = (struct.pack("<Q", size - 8) + blob).ljust(size, b"\0")
    library(template[:start] + blob + template[start + size :])


@target
def tar_archive(data):
    """A tar: as a library, and as a package that tarfile unpacks too."""
    for archive in (data, with_checksums(data)):
        library(archive)
        same_as_tarfile(archive)


def with_checksums(data):
    """A tar in which each header has the checksum that it should have."""
    data = bytearray(data)
    position = 0
    while position + 512 <= len(data):
        header = data[position : position + 512]
        if any(header):
            header[148:156] = b" " * 8
            data[position + 148 : position + 156] = b"%06o\0 " % sum(header)
        digits = header[124:136].strip(b" \0")
        if header[124] == 0x80:
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0
        position += 512 + -(-size // 512) * 512
    return bytes(data)


def same_as_tarfile(data):
    """What is checked has to be what whoever unpacks it gets."""

    def unpack(path):
        with unpacked(path) as files:
            return files and {name: content(copy) for name, copy in files.items()}

    found = answer(unpack, place().write(data, "package"))
    if not isinstance(found, dict):
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [member for member in archive if not member.isdir()]
            names = [member.name.removeprefix("./") for member in members]
            files = [archive.extractfile(member).read() for member in members]
    except tarfile.TarError:
        return
    assert len(set(names)) == len(names), names
    second = dict(zip(names, files, strict=True))
    decoded = {
        name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"): value
        for name, value in second.items()
    }
    # It takes a header that it can't read for the end.
    assert decoded.keys() <= found.keys(), (decoded.keys(), found.keys())
    assert all(found[name] == decoded[name] for name in decoded), "other content"


@target
def gzip(data):
    """Compressed data that are read at any place, whole or not."""
    choices = Choices(data)
    places = [choices.number(1 << 16) for _ in range(4)]
    if choices.number(2):
        compressor = zlib.compressobj(wbits=31, level=choices.number(10))
        inner = choices.rest() * (1 + choices.number(200))
        data = compressor.compress(inner) + compressor.flush()
    else:
        data = choices.rest()
    answer(structure, data)
    same_as_tarfile(data)
    found = answer(tar.Gunzipped, Window(io.BytesIO(data), len(data), "file"))
    if isinstance(found, ModelHashError):
        return
    second = zlib.decompressobj(wbits=31).decompress(data)
    assert found.size == len(second)
    for number in places:
        start = number % (found.size + 1)
        found.seek(start)
        assert found.read(100) == second[start : start + 100]


# Deployments


def deployment(data, name):
    """Change the files of a deployment; what is covered and is another is no match."""
    original = corpus.template("deployment")
    digest = original["hash.txt"].decode()
    if name == "unsealed":
        original = {name: data for name, data in original.items() if name != "SHA256SUMS"}
    files = change_files(original, Choices(data))
    verdict = answer(check, digest, place().fill(files))
    if isinstance(verdict, ModelHashError) or not verdict.ok:
        return
    assert verdict.status is Status.MATCH
    assert verdict.found.model == digest
    seal = files.get("SHA256SUMS")
    if seal is not None:
        covered = [line[66:] for line in seal.decode().splitlines() if line[:1] != "#"]
        assert covered
        assert seal == original.get("SHA256SUMS"), "another manifest"
        for one in covered:
            assert files.get(one) == original[one], f"{one} is another, and it is a match"
    for part in verdict.deployment.parts:
        read = {
            "Relay VM executable": formats_reference.executable,
            "TVM parameters": formats_reference.tensor_list,
        }.get(part.artifact.kind)
        if read is not None and part.artifact.container == "file":
            found = by_reference(read, files[part.file])
            assert found, part.name
            assert found["record"]["model"] == f"sha256:{digest}", part.name
        else:
            assert digest.encode() in files[part.file] or seal, part.name


@target
def deployment_sealed(data):
    deployment(data, "sealed")


@target
def deployment_unsealed(data):
    deployment(data, "unsealed")


@target
def directory(data):
    """Any files in a directory: each with its name's length and its own before it."""
    choices = Choices(data)
    files = {}
    while not choices.is_over:
        name = choices.one_of(("code.ro", "lib.so", "consts", "hash.txt", "SHA256SUMS", "d/x.tar"))
        files[name] = choices.take(choices.number(1 << 16))
    answer(check, "a" * 64, place().fill(files))


@target
def expected(data):
    """What an artifact is checked against: the file of a model, of a hash or of a record."""
    directory = unchanged()
    verdict = answer(check, place().write(data, "given.onnx"), directory)
    if isinstance(verdict, ModelHashError) or not verdict.ok:
        return
    digest = corpus.template("deployment")["hash.txt"].decode()
    if (
        verdict.status is Status.MATCH
        and verdict.expected.model == hashlib.sha256(data).hexdigest()
    ):
        assert verdict.expected.model == digest
    elif (given := by_reference(formats_reference.hash_txt, data)) is not None:
        assert given["model"] == f"sha256:{digest}" or verdict.status is Status.EQUIVALENT
    else:
        found = by_reference(canonical_reference.digests_of_file, place().write(data, "given.onnx"))
        record = verdict.found
        assert (found["graph"], found["weights"]) == (record.graph, record.weights)
        assert (found["model"] == digest) == (verdict.status is Status.MATCH)


@functools.cache
def unchanged():
    """A deployment that stays as it is."""
    return place("unchanged").fill(corpus.template("deployment"))


# Models


def digests(model):
    found = answer(model_record, model)
    if isinstance(found, ModelHashError):
        return found
    return {key: getattr(found, key) for key in ("model", "graph", "weights")}


@target
def model_bytes(data):
    """Bytes as a model's file."""
    path = place().write(data, "model.onnx")
    found = digests(path)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's back ends raise different types
        assert isinstance(found, ModelFileError), found
        return
    if not model.HasField("graph"):
        assert isinstance(found, ModelFileError), found
        return
    same(found, by_reference(canonical_reference.digests_of_file, path))


@target
def model_structure(data):
    """A model in memory with changes of its fields, its names and its order."""
    choices = Choices(data)
    original = onnx.ModelProto.FromString(choices.one_of(corpus.models()))
    model = onnx.ModelProto.FromString(original.SerializeToString())
    change_model(model, choices)
    found = digests(model)
    same(found, by_reference(canonical_reference.digests, model), model)
    if isinstance(found, ModelHashError):
        return
    if model.HasField("graph"):
        assert digests(place().write(model.SerializeToString(), "model.onnx")) == found
    sentence = explain(original, model)
    before = digests(original)
    is_same = all(before[key] == found[key] for key in ("graph", "weights"))
    assert (sentence is None) == is_same, sentence


@target
def wire_walk(data):
    """A file in which each tensor is left that is not empty, in any encoding."""
    choices = Choices(data)
    if choices.number(2):
        model = onnx.ModelProto.FromString(choices.one_of(corpus.models()))
        change_model(model, choices)
        chooser = random.Random(choices.number(1 << 32))
        odd = choices.one_of((0.02, 0.2, 0.6))
        data = OddWriter(chooser, odd, choices.number(2), choices.number(2)).write(model)
    else:
        data = choices.rest()
    path = place().write(data, "model.onnx")
    with everything_is_large():
        found = answer(bytes_of, path)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's back ends raise different types
        assert isinstance(found, ModelFileError), found
        return
    if not model.HasField("graph"):
        assert isinstance(found, ModelFileError), found
    elif not isinstance(found, ModelHashError):
        model = by_reference(loaded, model)
        assert found == model.SerializeToString()
    else:
        assert by_reference(loaded, model) is None, found


@contextlib.contextmanager
def everything_is_large():
    before = file.LARGE_BYTES
    file.LARGE_BYTES = 1
    try:
        yield
    finally:
        file.LARGE_BYTES = before


def bytes_of(path):
    """What is hashed for ``model``."""
    pieces = protobuf_bytes.serialized(*open_model(path))
    return b"".join(
        b"".join(map(piece.read, range(len(piece)))) if isinstance(piece, Source) else piece
        for piece in pieces
    )


def loaded(model):
    """A model with its external data in it."""
    for tensor in canonical_reference.tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = canonical_reference.external(tensor, place().path)
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
    return model


KEYS = ("location", "offset", "length", "checksum", "", "Location")
LOCATIONS = ("w.bin", "d/w.bin", "link", "out", "loop/w.bin", "d", "../w.bin", "/dev/zero", "fifo")


@target
def external_data(data):
    """References to files beside a model."""
    directory = external_files()
    choices = Choices(data)
    model = onnx.parser.parse_model(make_models.TEXT["the output is a weight"])
    model.graph.ClearField("initializer")
    for _ in range(1 + choices.number(3)):
        tensor = model.graph.initializer.add(name="w", data_type=1, dims=[choices.number(5)])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for _ in range(choices.number(5)):
            key = choices.one_of(KEYS)
            if choices.number(2):
                value = choices.take(choices.number(24)).decode("utf-8", "replace")
            elif key == "location":
                value = choices.one_of(LOCATIONS)
            else:
                value = str(choices.number(40))
            tensor.external_data.add(key=key, value=value)
    path = os.path.join(directory, "model.onnx")
    with open(path, "wb") as target_file:
        target_file.write(model.SerializeToString())
    same(digests(path), by_reference(canonical_reference.digests_of_file, path))


@functools.cache
def external_files():
    """A directory with files, links in it and out of it, and what is no file."""
    outer = place("external").path
    inner = os.path.join(outer, "model")
    os.makedirs(os.path.join(inner, "d"))
    for name in ("w.bin", "model/w.bin", "model/d/w.bin"):
        with open(os.path.join(outer, name), "wb") as target_file:
            target_file.write(name.encode() * 3)
    for link, to in (("link", "d/w.bin"), ("out", "../w.bin"), ("loop", "loop")):
        os.symlink(to, os.path.join(inner, link))
    os.mkfifo(os.path.join(inner, "fifo"))
    return inner
