# SPDX-License-Identifier: Apache-2.0
"""The handshake on a real network: from an ONNX file to files that say which model they are.

The network is magika's, which tells the type of a file from its first and last kilobyte. It is
compiled here; a new process loads what was saved, compares the hashes and runs it; and onnxruntime
runs the ONNX file itself as the reference.

    python examples/handshake.py [DIRECTORY]
"""

import contextlib
import hashlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import tvm
from rich.console import Console
from tvm import relay

NETWORK = (
    pathlib.Path(importlib.util.find_spec("magika").origin).parent / "models" / "standard_v3_3"
)
SUBJECT = pathlib.Path(__file__)
console = Console(highlight=False, soft_wrap=True)


@contextlib.contextmanager
def step(text):
    """Show a step, a spinner while it runs, and the time it took."""
    start = time.perf_counter()
    with console.status(text):
        yield
    console.print(f"[green]✓[/] {text} [dim]({time.perf_counter() - start:.1f} s)[/]")


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
    for path in sorted(directory.iterdir()):
        console.print(f"    {path.name:10} {path.stat().st_size:>9,} bytes")


def deploy(directory):
    """Load the saved files and run them, as another machine would; print what came out."""
    lib = tvm.runtime.load_module(str(directory / "lib.so"))
    code = (directory / "code.ro").read_bytes()
    des_exec = tvm.runtime.vm.Executable.load_exec(code, lib)
    des_exec.load_late_bound_consts(str(directory / "consts"))
    des_vm = tvm.runtime.vm.VirtualMachine(des_exec, tvm.cpu())
    output = des_vm.run(network_input(SUBJECT)).numpy()
    print(json.dumps({"hash": des_vm.get_hash(), "output": output.tolist()}))


def main(directory):
    build(directory)
    with step("Load and run them in a new process"):
        command = [sys.executable, __file__, "--deploy", str(directory)]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        deployed = json.loads(result.stdout)
    with step("Run the ONNX file with onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(NETWORK / "model.onnx")
        (reference,) = session.run(None, {"bytes": network_input(SUBJECT)})

    hashes = {
        "sha256sum of model.onnx": hashlib.sha256(
            (NETWORK / "model.onnx").read_bytes()
        ).hexdigest(),
        "hash.txt": (directory / "hash.txt").read_text(),
        "get_hash() after loading": deployed["hash"],
    }
    console.print("\nThe model's hash")
    for source, value in hashes.items():
        console.print(f"    {source:25} {value}")
    output = np.array(deployed["output"], "float32")
    difference = float(np.abs(output - reference).max())
    labels = json.loads((NETWORK / "config.min.json").read_text())["target_labels_space"]
    best = int(output.argmax())
    console.print(f"\nThe network's verdict on {SUBJECT.name}")
    console.print(f"    compiled by TVM           {labels[best]}, {output[0, best]:.1%}")
    console.print(
        f"    onnxruntime               {labels[int(reference.argmax())]}, {reference.max():.1%}"
    )
    console.print(f"    largest difference        {difference:.1e}")
    if len(set(hashes.values())) != 1 or difference > 1e-4:
        raise SystemExit("The hashes or the outputs differ.")
    console.print("\n[green]The hashes are equal, and so are the outputs.[/]")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--deploy"]:
        deploy(pathlib.Path(sys.argv[2]))
    elif len(sys.argv) > 1:
        main(pathlib.Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(pathlib.Path(temporary))
