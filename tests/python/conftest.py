# SPDX-License-Identifier: Apache-2.0
import contextlib
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


COMMAND = os.path.join(os.path.dirname(sys.executable), "tvm-model-hash")


def run_command(*arguments, cwd):
    """Run the command, and give its status and output."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, check=False, text=True, capture_output=True
    )


# Each ends when its standard input does.
RPC_PROCESSES = {
    "server": """
tracker = ("127.0.0.1", int(sys.argv[2])) if len(sys.argv) > 2 else None
process = rpc.Server(
    "127.0.0.1", 19090, 29090, key=sys.argv[1], tracker_addr=tracker, custom_addr="127.0.0.1",
    silent=True,
)""",
    "tracker": """
from tvm.rpc.tracker import Tracker
process = Tracker("127.0.0.1", 29190, 39190, silent=True)""",
}


@contextlib.contextmanager
def servers():
    """Start servers and trackers of stock TVM on loopback, and end these."""
    processes = []

    def start(kind, key="", *arguments):
        code = (
            "import sys, warnings\nsys.modules['tvm_model_hash'] = None\n"
            f"warnings.simplefilter('ignore')\nfrom tvm import rpc{RPC_PROCESSES[kind]}\n"
            "print(process.port, flush=True)\nsys.stdin.read()\nprocess.terminate()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, key, *map(str, arguments)],
            env={**os.environ, "TVM_MODEL_HASH": "0"},
            cwd=os.sep,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a server logs what it does
        )
        processes.append(process)
        return int(process.stdout.readline())

    try:
        yield start
    finally:
        for process in reversed(processes):
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=60)


def on_a_terminal(command, directory, columns=80, **env):
    """Run a command on a terminal, and give what it shows there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
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
