# SPDX-License-Identifier: Apache-2.0
"""What lies at a web server is read as what lies here, and little of it is transferred."""

import dataclasses
import os
import re
import shutil
import struct
import sys
import tempfile
import time

import onnx
import pytest
from conftest import on_a_terminal
from servers import serving

from tvm_model_hash import (
    BrokenSealError,
    ExternalDataError,
    OutputError,
    RemoteError,
    Status,
    check,
    downloading,
    explain,
    model_record,
    read_artifact,
    seal,
    verify_seal,
    write_record,
)
from tvm_model_hash.checking.deployment import read
from tvm_model_hash.cli import main
from tvm_model_hash.remote import objects

MEGA = 1 << 20


def test_every_kind_of_file_is_what_it_is_here(store, stored):
    names = sorted(path.name for path in (stored / "files").iterdir())
    found = 0
    for name in names:
        here = stored / "files" / name
        if here.suffix == ".bin":  # a shard
            continue
        artifact = read_artifact(store.of(f"files/{name}"))
        assert dataclasses.replace(artifact, path=str(here)) == read_artifact(here), name
        found += 1
    assert found >= 14


@pytest.mark.parametrize(
    "name", ["models/good/", "sealed/", "package.tar", "package.tar.gz", "models/foreign/"]
)
def test_a_deployment_gives_the_verdict_that_it_gives_here(store, stored, name):
    here = check(stored / "good.onnx", stored / name.rstrip("/"))
    there = check(store.of("good.onnx"), store.of(name))
    assert (there.status, there.found, there.reason) == (here.status, here.found, here.reason)
    assert there.status is (Status.MISMATCH if "foreign" in name else Status.MATCH)
    assert [part.name for part in there.deployment.parts] == [
        part.name for part in here.deployment.parts
    ]


def test_a_damaged_part_is_an_error(store, stored):
    store.reset()
    with pytest.raises(type(damage(stored / "models/bad")), match=r"code\.ro.* is "):
        check(store.of("good.onnx"), store.of("models/bad/"))


def damage(path):
    with pytest.raises(ValueError) as info:  # noqa: PT011 (whichever it is)
        read(path)
    return info.value


def test_a_seal_is_checked_there(web, stored):
    shutil.copytree(stored / "sealed", web.directory / "sealed")
    url = web.of("sealed/")
    assert len(verify_seal(url).files) == 3
    library = web.directory / "sealed" / "lib.so"
    data = bytearray(library.read_bytes())
    data[-1] ^= 1
    library.write_bytes(data)
    verdict = check(stored / "good.onnx", url)
    assert (verdict.status, verdict.changed) == (Status.BROKEN_SEAL, ("lib.so",))
    data[-1] ^= 1
    library.write_bytes(data)
    shutil.copy(stored / "files" / "single.so", web.directory / "sealed" / "more.so")
    with pytest.raises(BrokenSealError) as info:
        verify_seal(url)
    assert info.value.extra == ("more.so",)


def test_a_list_need_not_be_complete_which_a_match_says(store, stored):
    remarks = check(stored / "good.onnx", store.of("sealed/")).remarks
    assert any("which files there are is what the server's list says" in text for text in remarks)
    assert not any(
        "server" in text for text in check(stored / "good.onnx", stored / "sealed").remarks
    )


def test_a_large_library_is_told_of_by_little(web, stored):
    data = bytearray((stored / "files" / "single.so").read_bytes())
    # A gigabyte before the table of sections, which is at the end, as the linker puts it.
    (table,) = struct.unpack_from("<Q", data, 0x28)
    struct.pack_into("<Q", data, 0x28, table + 1024 * MEGA)
    with open(web.directory / "large.so", "wb") as file:
        file.write(data[:table])
        file.seek(1024 * MEGA, os.SEEK_CUR)
        file.write(data[table:])
        file.truncate(file.tell() + 16 * MEGA)
    artifact = read_artifact(web.of("large.so"))
    assert artifact.size > 1024 * MEGA
    assert artifact.record == read_artifact(stored / "files" / "single.so").record
    web.reset()
    verdict = check(artifact.record.model, web.of("large.so"))
    assert verdict.status is Status.MATCH
    assert web.sent < MEGA
    assert len(web.requests) < 20


@pytest.mark.parametrize("name", ["good.onnx", "external.onnx"])
def test_a_model_has_the_same_digests(store, stored, name):
    assert model_record(store.of(name)) == model_record(stored / name)
    assert explain(store.of(name), stored / "good.onnx") is None


def test_a_large_model_is_read_once(web):
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[5 * MEGA])
    tensor.raw_data = os.urandom(20 * MEGA)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    onnx.save(model, web.directory / "m.onnx")
    assert model_record(web.of("m.onnx")) == model_record(model)
    size = (web.directory / "m.onnx").stat().st_size
    assert web.sent < 1.2 * size
    assert len(web.requests) < 20


def test_what_takes_a_while_is_shown(web, tmp_path):
    model = web.directory / "m.onnx"
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[3 * MEGA // 2], raw_data=b"1" * 6 * MEGA)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])), model)
    web.odd = lambda handler: time.sleep(0.4)
    url = web.of("m.onnx") + "?signature=geheim"
    shown = on_a_terminal([sys.executable, "-m", "tvm_model_hash", "digest", url], tmp_path)
    assert re.search(r"m\.onnx: +[0-9]+%", shown), shown
    assert "geheim" not in shown


@pytest.mark.parametrize("location", ["../w.bin", "/w.bin", "http://127.0.0.1/w.bin", "a//w.bin"])
def test_external_data_lies_below_the_model(web, stored, location):
    model = onnx.load(stored / "external.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (web.directory / "below").mkdir()
    onnx.save(model, web.directory / "below" / "m.onnx")
    (web.directory / "w.bin").write_bytes(b"\0" * MEGA)
    with pytest.raises(ExternalDataError, match="expected"):
        model_record(web.of("below/m.onnx"))
    assert not any("w.bin" in path for path, _ in web.requests)


def test_external_data_that_is_missing(web, stored):
    shutil.copy(stored / "external.onnx", web.directory / "m.onnx")
    with pytest.raises(ExternalDataError, match="weights of it.bin.*there is nothing"):
        model_record(web.of("m.onnx"))


def test_without_parts_the_error_says_how_much_it_is(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = tmp_path / "large"
    large.mkdir()
    data = (stored / "files" / "single.so").read_bytes()
    (large / "lib.so").write_bytes(data + b"\0" * (8 * MEGA))
    expected = read_artifact(large / "lib.so")
    with serving(large, ranges=False) as server:
        with pytest.raises(RemoteError, match=rf"{expected.size:,} bytes.*--download.*downloading"):
            read_artifact(server.of("lib.so"))
        assert server.sent < 4 * MEGA  # what was on its way
        with downloading():
            artifact = read_artifact(server.of("lib.so"))
            assert sorted(os.listdir(tmp_path)) == ["large"]  # it has no name
            verdict = check(expected.record.model, server.of("lib.so"))
    assert dataclasses.replace(artifact, path=expected.path) == expected
    assert verdict.status is Status.MATCH


def test_the_command_downloads_when_it_is_told_to(stored, tmp_path, capsys):
    shutil.copy(stored / "package.tar.gz", tmp_path / "package")
    with serving(tmp_path, ranges=False) as server:
        url = server.of("package")
        for arguments in (["show", url], ["check", str(stored / "good.onnx"), url]):
            assert main(arguments) == 2
            assert "--download does that" in capsys.readouterr().err
            assert main([*arguments, "--download"]) == 0
        assert "match: same model" in capsys.readouterr().out
        (tmp_path / "large.onnx").write_bytes(
            (stored / "good.onnx").read_bytes() + b"\x32\xff\xff\x07" + b"a" * 131071
        )
        assert main(["digest", server.of("large.onnx")]) == 2
        assert main(["digest", "--download", server.of("large.onnx")]) == 0
    assert model_record(tmp_path / "large.onnx").model in capsys.readouterr().out


def test_what_is_small_needs_no_parts(stored):
    with serving(stored, ranges=False) as server:
        assert check(server.of("good.onnx"), server.of("sealed/")).status is Status.MATCH


def test_what_is_compressed_is_transferred_once(store, stored, monkeypatch):
    monkeypatch.setattr(objects, "_KEPT_BYTES", 0)
    size = (stored / "package.tar.gz").stat().st_size
    store.reset()
    check(stored / "good.onnx", store.of("package.tar.gz"))
    assert size <= store.sent < 2.5 * size  # with what tells that it is compressed


def test_names_are_what_they_are(web, stored):
    odd = web.directory / "a b#c?d%20é&+'"
    shutil.copytree(stored / "models" / "good", odd)
    (odd / "lib.so").rename(odd / 'li "b"#?%41.so')
    verdict = check(stored / "good.onnx", web.of(odd.name) + "/")
    assert verdict.status is Status.MATCH
    assert {part.name for part in verdict.deployment.parts} == {"code.ro", 'li "b"#?%41.so'}


def test_a_directory_without_its_slash(store):
    with pytest.raises(RemoteError, match="is a directory: write '.*/models/good/'"):
        read(store.of("models/good"))


def test_nothing_is_written_there(store):
    for write in (
        lambda: seal(store.of("models/good/")),
        lambda: write_record(store.of("files/code.ro"), None),
        lambda: write_record(store.of("files/code.ro"), None, "here"),
    ):
        with pytest.raises(OutputError, match="behind which is only read"):
            write()
