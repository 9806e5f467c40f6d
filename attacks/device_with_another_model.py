# SPDX-License-Identifier: Apache-2.0
"""A device behind RPC has another model's library under the expected name.

Stopped by: `check --rpc` has the device send the file, and reads its record here.
"""

from common import NotStoppedError, deployment, main


def attack(directory):
    from conftest import run_command, servers
    from deployments import network

    from tvm_model_hash import model_hash

    own = deployment(directory / "own", "Relay VM, single file", scale=2.0)
    with servers() as start:
        address = f"127.0.0.1:{start('server')}"
        shown = run_command(
            "check", model_hash(network()), "--rpc", address, "--remote", own / "single.so",
            cwd=directory,
        )  # fmt: skip
    if shown.returncode != 1 or not shown.stdout.startswith("mismatch"):
        raise NotStoppedError(str(shown))
    return shown.stdout.splitlines()[0]


if __name__ == "__main__":
    main(attack)
