# SPDX-License-Identifier: Apache-2.0
import io
import shutil
import tarfile
import types

import artifacts
import onnx
import parameter_files
import pytest
from servers import s3_store, serving
from tvm.runtime import vm_hash

from tvm_model_hash import seal


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing of this machine's takes part."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """A directory with everything that is read: artifacts, deployments, models."""
    root = tmp_path_factory.mktemp("stored")
    built = artifacts.build() / "small"
    model, foreign = (artifacts.dense(artifacts.np.full((16, 32), x)) for x in (1, 2))
    for name, one in {"good": model, "foreign": foreign}.items():
        executable = artifacts.compile_model(one, get_hash=True)
        vm_hash.save(executable, root / "models" / name, seal=False)
        onnx.save(one, root / f"{name}.onnx")
    good = root / "models" / "good"
    shutil.copytree(good, root / "sealed")
    seal(root / "sealed")
    shutil.copytree(good, root / "models" / "bad")
    code = (good / "code.ro").read_bytes()
    (root / "models" / "bad" / "code.ro").write_bytes(code[: len(code) // 2])
    single = root / "files"
    single.mkdir()
    parameter_files.write_all(single)
    for name in ("single.so", "single.tar", "plain.tar", "code.ro", "late.ro", "consts"):
        shutil.copy(built / name, single / name)
    for name, mode in (("package.tar", "w"), ("package.tar.gz", "w:gz")):
        with tarfile.open(root / name, mode) as archive:
            for path in sorted(good.iterdir()):
                archive.add(path, path.name)
            if mode == "w:gz":  # larger than what is transferred at once, and not compressible
                noise = artifacts.np.random.default_rng(0).bytes(200_000)
                entry = tarfile.TarInfo("noise")
                entry.size = len(noise)
                archive.addfile(entry, io.BytesIO(noise))
    onnx.save(
        onnx.load(root / "good.onnx"),
        root / "external.onnx",
        save_as_external_data=True,
        location="weights of it.bin",
        size_threshold=0,
    )
    return root


@pytest.fixture(scope="session")
def store(stored):
    """A web server with ranges that has all of it."""
    with serving(stored) as server:
        yield server


@pytest.fixture
def web(tmp_path):
    """A web server with ranges, of a directory of the test's own."""
    directory = tmp_path / "served"
    directory.mkdir()
    with serving(directory) as server:
        yield server


@pytest.fixture
def s3(monkeypatch):
    """An S3 server of the test's own, with an empty bucket."""
    with s3_store() as (environment, client, requests):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        def put(key, content, bucket="bucket"):
            body = content if isinstance(content, bytes) else content.read_bytes()
            client.put_object(Bucket=bucket, Key=key, Body=body)

        yield types.SimpleNamespace(put=put, client=client, requests=requests)
