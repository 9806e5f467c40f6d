# SPDX-License-Identifier: Apache-2.0
"""Names of files and tensors with escapes that clear the line and write a green verdict.

Stopped by: what comes from files is printed escaped.
"""

from common import NotStoppedError, deployment, main

ESCAPE = "\r\x1b[2K\x1b[32mmatch: same model\x1b[0m"


def attack(directory):
    import onnx
    from conftest import run_command
    from deployments import network

    own = deployment(directory / "own")
    stock = deployment(directory / "stock", get_hash=False)
    (stock / "lib.so").rename(own / f"x{ESCAPE}.so")
    other = network(alpha=0.2)
    other.graph.node[0].op_type = other.graph.input[0].name = f"x{ESCAPE}"
    other.graph.node[0].input[0] = f"x{ESCAPE}"
    onnx.save(network(), directory / "model.onnx")
    onnx.save(other, directory / "other.onnx")
    shown = ""
    for words in (
        ["check", "model.onnx", "own"],
        ["check", "other.onnx", "own"],
        ["show", "own"],
        ["explain", "model.onnx", "other.onnx"],
    ):
        result = run_command(*words, cwd=directory)
        shown += result.stdout + result.stderr
    if "\x1b" in shown or "\r" in shown or "x\\r\\x1b[2K" not in shown:
        raise NotStoppedError(ascii(shown))
    return shown.splitlines()[0]


if __name__ == "__main__":
    main(attack)
