# SPDX-License-Identifier: Apache-2.0
import dataclasses
import fcntl
import hashlib
import importlib.util
import os
import pathlib
import pty
import struct
import subprocess
import sys
import termios

import numpy as np
import onnx
import onnx.parser
import pytest

ROOT = pathlib.Path(__file__).parents[2]

# One layer, with a constant that is large enough to be bound late.
MODEL_TEXT = """
<ir_version: 8, opset_import: ["" : 15]>
layer (float[1, 16] x) => (float[1, 32] y) <float[16, 32] w = {{{weights}}}> {{
    y = MatMul(x, w)
}}
"""


def layer(scale=1.0):
    """A model of one layer; another scale gives other weights."""
    weights = ", ".join(f"{scale * i / 512:.6f}" for i in range(512))
    model = onnx.parser.parse_model(MODEL_TEXT.format(weights=weights))
    model.graph.node[0].name = "matmul"  # or the importer would write one into the model
    return model


def identity(record):
    """A record without what the compilation has put into it."""
    return dataclasses.replace(record, extra=())


def sha256(model):
    return hashlib.sha256(model.SerializeToString()).hexdigest()


def run_python(code, *arguments, env=(), check=True):
    """Run Python code in a new process, away from the sources."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **dict(env)},
        cwd=os.sep,
        check=check,
        text=True,
        stdout=subprocess.PIPE,
        stderr=None if check else subprocess.PIPE,
    )


def on_a_terminal(command, directory, **env):
    """Run a command on a terminal, and give what it shows there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen(
        command, cwd=directory, env={**os.environ, **env}, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(master)
    return shown.decode()


@dataclasses.dataclass
class Network:
    """A real network, and what to feed it."""

    path: pathlib.Path
    shape: dict
    dtype: str = "float32"

    def inputs(self):
        rng = np.random.default_rng(0)
        if self.dtype == "int32":
            return {k: rng.integers(0, 256, s).astype("int32") for k, s in self.shape.items()}
        return {k: rng.normal(size=s, scale=0.1).astype("float32") for k, s in self.shape.items()}


def _package(name):
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


NETWORKS = {
    "magika": Network(
        _package("magika") / "models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}, "int32"
    ),
    "silero_vad": Network(
        _package("silero_vad") / "data/silero_vad_16k_sequence.onnx",
        {"input": (4, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
    ),
    "squeezenet": Network(
        _package("onnx") / "backend/test/data/light/light_squeezenet.onnx",
        {"data_0": (1, 3, 224, 224)},
    ),
}


@pytest.fixture
def model():
    return layer()
