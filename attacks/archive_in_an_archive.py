# SPDX-License-Identifier: Apache-2.0
"""A stock library in an archive in an archive beside a good deployment.

Stopped by: an archive in a package is an error, whatever is in it.
"""

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    from checking.test_hidden_parts import pack
    from deployments import network

    own = deployment(directory / "own")
    other = deployment(directory / "other", get_hash=False)
    inner = pack(directory / "inner.tar", other / "lib.so", mode="w:gz")
    pack(own / "data.bin", inner)
    return error(lambda: check(network(), own), "is an archive in an archive")


if __name__ == "__main__":
    main(attack)
