# SPDX-License-Identifier: Apache-2.0
"""The library is a symbolic link to a place outside, where it can be exchanged after the check.

Stopped by: a part that is a link out of the directory is an error.
"""

import shutil

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    shutil.move(own / "lib.so", directory / "elsewhere.so")
    (own / "lib.so").symlink_to(directory / "elsewhere.so")
    return error(lambda: check(network(), own), "is a symbolic link")


if __name__ == "__main__":
    main(attack)
