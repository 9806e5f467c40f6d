# SPDX-License-Identifier: Apache-2.0
"""Real networks, from the ONNX file to a library in another process, against onnxruntime.

They run with the newest TVM only; the two trained ones have weights that are not constants.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from conftest import run_python
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from tvm_model_hash import Status, check, read_record
from tvm_model_hash.versions import RELAX_TVM_VERSIONS

pytestmark = pytest.mark.skipif(
    tvm.__version__ != RELAX_TVM_VERSIONS[-1], reason="takes too long with every version"
)


def picture():
    """Dark bars on a bright page, which a detector of text finds."""
    pixels = np.ones((1, 3, 64, 128), "float32")
    for column in range(10, 110, 8):
        pixels[:, :, 24:42, column : column + 3] = -1
        pixels[:, :, 30:33, column : column + 6] = -1
    return pixels


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape, scale=0.1).astype("float32")


def sound():
    """A hummed syllable, 16,000 samples per second."""
    t = np.arange(576) / 16000
    return (np.sin(2 * np.pi * 200 * t) * np.sin(2 * np.pi * 3 * t) / 2).astype("float32")[None]


@dataclasses.dataclass
class Network:
    package: str
    path: str
    inputs: dict

    @property
    def file(self):
        package = importlib.util.find_spec(self.package).origin
        return pathlib.Path(package).parent / self.path


LIGHT = "backend/test/data/light"
NETWORKS = {
    "silero_vad": Network(
        "silero_vad",
        "data/silero_vad_op18_ifless.onnx",
        {"input": sound(), "sr": np.array(16000, "int64"), "state": np.zeros((2, 1, 128), "f4")},
    ),
    "ppocr_det": Network(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": picture()}
    ),
    "squeezenet": Network(
        "onnx", f"{LIGHT}/light_squeezenet.onnx", {"data_0": noise(1, 3, 224, 224)}
    ),
    "alexnet": Network(
        "onnx", f"{LIGHT}/light_bvlc_alexnet.onnx", {"data_0": noise(1, 3, 224, 224)}
    ),
    "resnet50": Network(
        "onnx", f"{LIGHT}/light_resnet50.onnx", {"gpu_0/data_0": noise(1, 3, 224, 224)}
    ),
    "shufflenet": Network(
        "onnx", f"{LIGHT}/light_shufflenet.onnx", {"gpu_0/data_0": noise(1, 3, 224, 224)}
    ),
}

RUN = """
import sys
import numpy as np
import tvm
from tvm import relax
path, inputs, outputs = sys.argv[1:]
with np.load(inputs) as arrays:
    inputs = [tvm.runtime.tensor(arrays[name]) for name in arrays]
vm = relax.VirtualMachine(tvm.runtime.load_module(path), tvm.cpu())
result = vm["main"](*inputs)
result = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
np.savez(outputs, *[array.numpy() for array in result])
print(vm.get_hash())
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_hash(name, tmp_path):
    network = NETWORKS[name]
    model = onnx.load(network.file)
    digest = hashlib.sha256(network.file.read_bytes()).hexdigest()
    mod = from_onnx(model, {k: v.shape for k, v in network.inputs.items()}, get_hash=True)
    executable = tvm.compile(mod, "llvm")
    assert relax.VirtualMachine(executable, tvm.cpu()).get_hash() == digest
    executable.export_library(tmp_path / "lib.so")
    executable.save_hash(tmp_path)
    assert (tmp_path / "hash.txt").read_text() == digest
    assert read_record(tmp_path / "lib.so").model == digest
    assert check(network.file, tmp_path).status is Status.MATCH

    np.savez(tmp_path / "inputs.npz", **{f"{i}": v for i, v in enumerate(network.inputs.values())})
    result = run_python(RUN, *(tmp_path / n for n in ("lib.so", "inputs.npz", "outputs.npz")))
    assert result.stdout.strip() == digest
    expected = onnxruntime.InferenceSession(network.file).run(None, network.inputs)
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert len(outputs) == len(expected)
        for output, reference in zip(outputs.values(), expected, strict=True):
            assert np.abs(reference).max() > 1e-4
            np.testing.assert_allclose(output, reference, rtol=1e-3, atol=1e-4)
