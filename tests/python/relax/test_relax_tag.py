# SPDX-License-Identifier: Apache-2.0
"""Weights that TVM 0.25 and later writes apart from the library: they get a record, and a seal."""

import numpy as np
import onnx
import pytest
import tvm
from conftest import layer
from tvm import relax
from tvm.contrib import tvmjs
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx

from tvm_model_hash import FixedRecordError, HashConflictError, Status, check, tag


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A stock library, and the weights that it takes."""
    path = tmp_path_factory.mktemp("library") / "lib.so"
    mod, params = detach_params(from_onnx(layer(), keep_params_in_input=True))
    relax.build(mod, "llvm").export_library(str(path))
    return path.read_bytes(), params["main"]


def save(tensors, directory):
    tvm.runtime.save_param_dict_to_file(tensors, str(directory / "params"))


def cache(tensors, directory):
    tvmjs.dump_tensor_cache(
        {name: tensor.numpy() for name, tensor in tensors.items()},
        str(directory),
        encode_format="raw",
        show_progress=False,
    )


@pytest.mark.parametrize("prefix", ["w", "p_0"])
@pytest.mark.parametrize("write", [save, cache])
def test_weights_apart_are_the_models(write, prefix, library, tmp_path):
    code, weights = library
    deployment = tmp_path / "deployment"
    deployment.mkdir()
    (deployment / "lib.so").write_bytes(code)
    with pytest.raises(FixedRecordError):
        tag(deployment, layer())
    assert [path.name for path in deployment.iterdir()] == ["lib.so"]
    [tensor] = weights
    # What it does not say that it takes, and no content tells, is anybody's.
    np.savez(deployment / "sample.npz", x=np.zeros((1, 16), "float32"))
    write({prefix: tensor}, deployment)
    onnx.save(layer(), tmp_path / "model.onnx")
    if prefix == "w":
        with pytest.raises(HashConflictError, match="'w' of '.*' is called as one"):
            tag(deployment, layer(2))
    assert not (deployment / "SHA256SUMS").exists()
    tagged = tag(deployment, tmp_path / "model.onnx")
    assert "lib.so" in tagged.by_seal
    assert len(tagged.parts) == 1
    assert [(w.tensors, w.unchanged) for w in tagged.weights] == [(1, 1)]
    assert check(layer(), deployment, sealed=True).status is Status.MATCH
    assert check(layer(2), deployment).status is Status.MISMATCH
