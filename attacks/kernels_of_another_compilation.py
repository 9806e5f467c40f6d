# SPDX-License-Identifier: Apache-2.0
"""The machine code of the same model from another compilation, which may have other options.

Stopped by: `build` in the records, which two compilations never share.
"""

import shutil

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    shutil.copy(deployment(directory / "other", compilation=2) / "lib.so", own)
    return verdict(network(), own, Status.MISMATCH, "two compilations of this model")


if __name__ == "__main__":
    main(attack)
