# SPDX-License-Identifier: Apache-2.0
"""The handshake on a real network: from an ONNX file to files that say which model they are.

The network is magika's, which tells the type of a file from its first and last kilobyte. It is
compiled here; a new process loads what was saved, compares the hashes and runs it; and onnxruntime
runs the ONNX file itself as the reference.

    python examples/handshake.py [DIRECTORY]
"""

import importlib.util
import json
import pathlib

import numpy as np
import onnx
import tvm
from steps import handshake, step
from tvm import relay

NETWORK = (
    pathlib.Path(importlib.util.find_spec("magika").origin).parent / "models" / "standard_v3_3"
)
SUBJECT = pathlib.Path(__file__)


def network_input(path):
    """What magika's network takes: bytes of the beginning and the end of a file."""
    content = path.read_bytes().strip()
    assert len(content) >= 1024, "shorter files need padding"
    return np.frombuffer(content[:1024] + content[-1024:], "uint8").astype("int32")[None]


def build(directory):
    """Compile the network and save all its files."""
    with step(f"Load magika's network, {NETWORK.name}/model.onnx"):
        onnx_model = onnx.load(NETWORK / "model.onnx")
    with step("Import it, with get_hash=True"):
        mod, _ = relay.frontend.from_onnx(
            onnx_model, shape={"bytes": (1, 2048)}, freeze_params=True, get_hash=True
        )
    with step("Compile it"):
        vm_exec = relay.vm.compile(mod, "llvm")
    with step("Save code.ro, lib.so, consts and hash.txt"):
        vm_exec.move_late_bound_consts(str(directory / "consts"), byte_limit=256)
        code, lib = vm_exec.save()
        lib.export_library(str(directory / "lib.so"))
        (directory / "code.ro").write_bytes(code)
        vm_exec.save_hash(directory)


def deploy(directory):
    """Load the saved files and run them, as another machine would."""
    lib = tvm.runtime.load_module(str(directory / "lib.so"))
    code = (directory / "code.ro").read_bytes()
    des_exec = tvm.runtime.vm.Executable.load_exec(code, lib)
    des_exec.load_late_bound_consts(str(directory / "consts"))
    des_vm = tvm.runtime.vm.VirtualMachine(des_exec, tvm.cpu())
    return des_vm.get_hash(), des_vm.run(network_input(SUBJECT)).numpy()


def tell(output):
    """Which type of file the network takes this program for."""
    labels = json.loads((NETWORK / "config.min.json").read_text())["target_labels_space"]
    best = int(output.argmax())
    return f"{SUBJECT.name} is {labels[best]}, {output[0, best]:.1%}"


if __name__ == "__main__":
    inputs = {"bytes": network_input(SUBJECT)}
    handshake(__file__, NETWORK / "model.onnx", inputs, build=build, deploy=deploy, tell=tell)
