# SPDX-License-Identifier: Apache-2.0
"""Python modules called like those that the command imports, in the directory it is started in.

Stopped by: the command takes modules from its own environment only.
"""

from common import NotStoppedError, deployment, main


def attack(directory):
    from conftest import run_command
    from deployments import network

    from tvm_model_hash import model_hash

    own = deployment(directory / "own")
    for name in ("onnx", "numpy", "tvm", "tvm_model_hash", "sitecustomize", "json"):
        (own / f"{name}.py").write_text(f"open({str(directory / 'was_run')!r}, 'w')")
    shown = run_command("check", model_hash(network()), ".", cwd=own)
    if (directory / "was_run").exists() or shown.returncode != 0:
        raise NotStoppedError(str(shown))
    return f"none was imported; {shown.stdout.splitlines()[0]}"


if __name__ == "__main__":
    main(attack)
