# SPDX-License-Identifier: Apache-2.0
"""A VM executable whose header says that 2^40 constants follow.

Stopped by: what is said to follow has to be there, and no memory is taken for it before.
"""

import struct

from common import deployment, error, main

from tvm_model_hash import read_artifact


def attack(directory):
    path = deployment(directory / "own") / "code.ro"
    data = path.read_bytes()
    at = data.index(struct.pack("<QQ", 1, 4) + b"main") + 20  # the only global; then the constants
    path.write_bytes(data[:at] + struct.pack("<Q", 2**40) + data[at + 8 :])
    return error(lambda: read_artifact(path), "code.ro")


if __name__ == "__main__":
    main(attack)
