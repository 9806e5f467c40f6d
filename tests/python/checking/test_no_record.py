# SPDX-License-Identifier: Apache-2.0
"""What carries no record says why, as far as its kind tells, and what to do: which then helps."""

import shutil
import tarfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
from conftest import layer
from tvm import relay
from tvm.runtime import vm_hash
from tvm.runtime.vm import Executable

from tvm_model_hash import Status, check, model_record, seal, write_record
from tvm_model_hash.artifact.record_io import read_artifact

COMPILED = "it was compiled by a stock TVM, or of a module without a hash"
BUILT = "what relay.build was given had no hash (imported without get_hash=True, a bare function"
AGAIN = "Import the model with get_hash=True and compile it again"
TAG = "here the model is known, tag it"


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """One of each that stock TVM and others write."""
    directory = tmp_path_factory.mktemp("stock")
    onnx.save(layer(), directory / "model.onnx")
    mod, params = relay.frontend.from_onnx(layer())
    vm_exec = relay.vm.compile(mod, "llvm", params=params)
    vm_exec.mod.export_library(str(directory / "single.so"))
    vm_exec.mod.export_library(str(directory / "single.tar"))
    factory = relay.build(mod, "llvm", params=params)
    factory.export_library(str(directory / "graph.so"))
    (directory / "graph.json").write_text(factory.get_graph_json())
    (directory / "graph.params").write_bytes(relay.save_param_dict(factory.get_params()))
    vm_exec.move_late_bound_consts(str(directory / "consts"), 256)
    code, lib = vm_exec.save()
    (directory / "code.ro").write_bytes(code)
    lib.export_library(str(directory / "lib.so"))
    np.savez(directory / "weights.npz", w=np.zeros(3))
    safetensors.numpy.save_file({"w": np.zeros(3)}, directory / "weights.safetensors")
    return directory


@pytest.mark.parametrize(
    ("name", "why", "advice"),
    [
        ("single.so", COMPILED, AGAIN),
        ("single.tar", COMPILED, AGAIN),
        ("lib.so", COMPILED, AGAIN),
        ("graph.so", BUILT, AGAIN),
        ("graph.json", BUILT, TAG),
        ("code.ro", COMPILED + ", or its record was stripped", TAG),
        ("consts", "a stock TVM wrote it, as late-bound constants or saved parameters", TAG),
        ("graph.params", "a stock TVM wrote it, as late-bound constants or saved", TAG),
        ("weights.npz", "what writes such files knows nothing of records", TAG),
        ("weights.safetensors", "what writes such files knows nothing of records", TAG),
    ],
)
def test_an_artifact_without_a_record_says_why(name, why, advice, stock, tmp_path):
    verdict = check(stock / "model.onnx", stock / name)
    assert verdict.status is Status.NO_RECORD
    assert verdict.reason.startswith(f"the artifact carries no record of its model: {why}")
    assert advice in verdict.reason
    # The advice holds: tag works exactly where it is given.
    assert (TAG in verdict.reason) == (read_artifact(stock / name).container == "file")
    if TAG in verdict.reason:
        write_record(stock / name, model_record(layer()), tmp_path / name)
        assert check(stock / "model.onnx", tmp_path / name).found is not None


@pytest.fixture
def deployment(tmp_path):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    vm_exec = relay.vm.compile(mod, "llvm", params=params)
    vm_hash.save(vm_exec, tmp_path / "deployment", byte_limit=256, seal=False)
    return tmp_path / "deployment"


def test_parts_without_a_record_say_why_each(stock, deployment):
    shutil.copy(stock / "lib.so", deployment)
    reason = check(layer(), deployment).reason
    assert reason.startswith("nothing says which model 'lib.so' (TVM kernel library) is of: ")
    assert f"is of: {COMPILED}. {AGAIN}; or seal the directory" in reason
    assert TAG not in reason
    write_record(deployment / "consts", None)
    reason = check(layer(), deployment).reason
    assert f"of 'lib.so', {COMPILED}; of 'consts', a stock TVM wrote it" in reason
    assert f"w{TAG}; or seal the directory" in reason
    seal(deployment)
    assert check(layer(), deployment).status is Status.MATCH


def test_a_library_whose_executable_lost_its_record_says_that(deployment, tmp_path):
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    code, lib = relay.vm.compile(mod, "llvm", params=params).save()
    (tmp_path / "code.ro").write_bytes(code)
    write_record(tmp_path / "code.ro", None)
    stripped = Executable.load_exec((tmp_path / "code.ro").read_bytes(), lib)
    stripped.mod.export_library(str(tmp_path / "single.so"))
    verdict = check(layer(), tmp_path / "single.so")
    assert verdict.status is Status.NO_RECORD
    assert f"its kernels are of model {model_record(layer()).model}, but" in verdict.reason


def test_a_tar_of_a_directory_is_that_directory(stock, deployment, tmp_path):
    shutil.copy(stock / "lib.so", deployment)
    seal(deployment)
    for top in ("deployment", "a/b"):
        with tarfile.open(tmp_path / "package.tar", "w") as archive:
            archive.add(deployment, top)
        verdict = check(layer(), tmp_path / "package.tar", sealed=True)
        assert verdict.status is Status.MATCH
        assert [part.name for part in verdict.deployment.by_seal] == ["lib.so"]
    # One that lies further down says nothing of what is beside it.
    with tarfile.open(tmp_path / "package.tar", "w") as archive:
        archive.add(deployment, "deployment")
        archive.add(stock / "model.onnx", "model.onnx")
    verdict = check(layer(), tmp_path / "package.tar")
    assert verdict.status is Status.NO_RECORD
    assert "the manifest 'deployment/SHA256SUMS' does not count" in verdict.reason
    # And a changed file in it breaks the seal as ever.
    (deployment / "hash.txt").write_text("")
    with tarfile.open(tmp_path / "package.tar", "w") as archive:
        archive.add(deployment, "deployment")
    verdict = check(layer(), tmp_path / "package.tar")
    assert (verdict.status, verdict.changed) == (Status.BROKEN_SEAL, ("hash.txt",))
