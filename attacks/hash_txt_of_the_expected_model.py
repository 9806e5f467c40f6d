# SPDX-License-Identifier: Apache-2.0
"""Another model's deployment with the expected model's hash in its hash.txt.

Stopped by: hash.txt is no part; one that contradicts the parts' records is a mismatch.
"""

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from deployments import network

    from tvm_model_hash import model_hash

    own = deployment(directory / "own", scale=2.0)
    (own / "hash.txt").write_text(model_hash(network()))
    return verdict(network(), own, Status.MISMATCH, "hash.txt")


if __name__ == "__main__":
    main(attack)
