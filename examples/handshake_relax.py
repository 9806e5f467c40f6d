# SPDX-License-Identifier: Apache-2.0
"""The handshake on today's TVM: from an ONNX file to one library that says which model it is.

The network is Silero's, which tells speech from other sounds. It is compiled here; a new process
loads the library, compares the hashes and runs it; and onnxruntime runs the ONNX file itself as the
reference.

    python examples/handshake_relax.py [DIRECTORY]
"""

import importlib.util
import pathlib

import numpy as np
import onnx
import tvm
from steps import handshake, step
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

NETWORK = (
    pathlib.Path(importlib.util.find_spec("silero_vad").origin).parent
    / "data"
    / "silero_vad_op18_ifless.onnx"
)
RATE = 16000  # samples per second


def vowel():
    """36 ms of a voice: the harmonics of 120 Hz, loudest where those of an "a" are."""
    t = np.arange(576) / RATE
    frequencies = 120 * np.arange(1, 40)[:, None]
    loudness = sum(np.exp(-(((frequencies - formant) / 150) ** 2)) for formant in (730, 1090, 2440))
    sound = (loudness * np.sin(2 * np.pi * frequencies * t)).sum(0)
    return (sound / np.abs(sound).max() / 2).astype("float32")[None]


INPUTS = {
    "input": vowel(),
    "sr": np.array(RATE, "int64"),
    "state": np.zeros((2, 1, 128), "float32"),
}


def build(directory):
    """Compile the network and save it."""
    with step(f"Load Silero's network, {NETWORK.name}"):
        onnx_model = onnx.load(NETWORK)
    with step("Import it, with get_hash=True"):
        mod = from_onnx(onnx_model, {k: v.shape for k, v in INPUTS.items()}, get_hash=True)
    with step("Compile it"):
        executable = tvm.compile(mod, "llvm")
    with step("Save lib.so and hash.txt"):
        executable.export_library(str(directory / "lib.so"))
        executable.save_hash(directory)


def deploy(directory):
    """Load the library and run it, as another machine would."""
    library = tvm.runtime.load_module(str(directory / "lib.so"))
    vm = relax.VirtualMachine(library, tvm.cpu())
    output, _ = vm["main"](*(tvm.runtime.tensor(value) for value in INPUTS.values()))
    return vm.get_hash(), output.numpy()


def tell(output):
    """How likely the network takes the sound for speech."""
    return f"speech, {output[0, 0]:.1%}"


if __name__ == "__main__":
    handshake(__file__, NETWORK, INPUTS, build=build, deploy=deploy, tell=tell)
