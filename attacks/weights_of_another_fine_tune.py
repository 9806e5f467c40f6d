# SPDX-License-Identifier: Apache-2.0
"""The weights of another fine-tune, which the code takes without complaint.

Stopped by: the record behind the constants; parts of two models are a mismatch.
"""

import shutil

from common import deployment, error, main, verdict

from tvm_model_hash import Status


def attack(directory):
    import tvm
    from deployments import network
    from tvm.runtime import vm_hash

    own = deployment(directory / "own")
    shutil.copy(deployment(directory / "other", scale=2.0) / "consts", own)
    error(lambda: vm_hash.load(own, tvm.cpu(), network()), "of different models")
    return verdict(network(), own, Status.MISMATCH, "of different models")


if __name__ == "__main__":
    main(attack)
