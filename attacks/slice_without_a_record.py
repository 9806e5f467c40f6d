# SPDX-License-Identifier: Apache-2.0
"""A universal library of which one slice says what it is of, and the other one is anything.

Stopped by: either all slices carry a record or none does.
"""

from common import error, main

from tvm_model_hash import read_artifact


def attack(directory):
    from binaries import RECORD, library, universal

    path = universal(library("x86_64-macos", RECORD), library("aarch64-macos", None))
    return error(lambda: read_artifact(path), "record")


if __name__ == "__main__":
    main(attack)
