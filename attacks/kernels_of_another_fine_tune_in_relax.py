# SPDX-License-Identifier: Apache-2.0
"""With Relax: the library of another fine-tune beside the weights of the expected one.

Stopped by: a record in each part; parts of two models are a mismatch.
"""

import shutil

from common import main, relax_deployment, verdict

from tvm_model_hash import Status

TVM = "relax"


def attack(directory):
    from deployments import network

    own = relax_deployment(directory / "own", "save_list")
    other = relax_deployment(directory / "other", "save_list", scale=2.0)
    shutil.copy(other / "lib.so", own)
    return verdict(network(), own, Status.MISMATCH, "of different models")


if __name__ == "__main__":
    main(attack)
