# SPDX-License-Identifier: Apache-2.0
"""One file that is a tar and a shared library: which one depends on what it is called.

Stopped by: what is both is an error.
"""

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    from checking.test_hidden_parts import make_tar_of_library
    from deployments import network

    own = deployment(directory / "own")
    make_tar_of_library(own / "lib.so")
    return error(lambda: check(network(), own), "is a tar archive and a shared library")


if __name__ == "__main__":
    main(attack)
