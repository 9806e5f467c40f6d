# SPDX-License-Identifier: Apache-2.0
"""What the demos on Relay and on Relax share: the order of the steps, and how they are shown."""

import contextlib
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from rich.console import Console

console = Console(highlight=False, soft_wrap=True)


@contextlib.contextmanager
def step(text):
    """Show a step, a spinner while it runs, and the time it took."""
    start = time.perf_counter()
    with console.status(text):
        yield
    console.print(f"[green]✓[/] {text} [dim]({time.perf_counter() - start:.1f} s)[/]")


def handshake(demo, model_file, inputs, *, build, deploy, tell):
    """Compile, load and run in a new process, and compare with the ONNX file.

    ``build(directory)`` compiles the model and saves everything; ``deploy(directory)`` loads it,
    and returns the hash and the output; ``tell(output)`` says what an output means.
    """
    if sys.argv[1:2] == ["--deploy"]:
        model_hash, output = deploy(pathlib.Path(sys.argv[2]))
        print(json.dumps({"hash": model_hash, "output": output.tolist()}))
    elif len(sys.argv) > 1:
        directory = pathlib.Path(sys.argv[1])
        _handshake(demo, model_file, inputs, build=build, tell=tell, directory=directory)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            directory = pathlib.Path(temporary)
            _handshake(demo, model_file, inputs, build=build, tell=tell, directory=directory)


def _handshake(demo, model_file, inputs, *, build, tell, directory):
    build(directory)
    for path in sorted(directory.iterdir()):
        console.print(f"    {path.name:10} {path.stat().st_size:>9,} bytes")
    with step("Load and run them in a new process"):
        command = [sys.executable, demo, "--deploy", str(directory)]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        deployed = json.loads(result.stdout)
    with step("Run the ONNX file with onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model_file, options)
        reference = session.run(None, inputs)[0]

    hashes = {
        f"sha256sum of {model_file.name}": hashlib.sha256(model_file.read_bytes()).hexdigest(),
        "hash.txt": (directory / "hash.txt").read_text(),
        "get_hash() after loading": deployed["hash"],
    }
    width = max(map(len, hashes))
    console.print("\nThe model's hash")
    for source, value in hashes.items():
        console.print(f"    {source:{width}} {value}")
    output = np.array(deployed["output"], "float32")
    difference = float(np.abs(output - reference).max())
    console.print("\nThe network's verdict")
    console.print(f"    {'compiled by TVM':{width}} {tell(output)}")
    console.print(f"    {'onnxruntime':{width}} {tell(reference)}")
    console.print(f"    {'largest difference':{width}} {difference:.1e}")
    if len(set(hashes.values())) != 1 or difference > 1e-4:
        raise SystemExit("The hashes or the outputs differ.")
    console.print("\n[green]The hashes are equal, and so are the outputs.[/]")
