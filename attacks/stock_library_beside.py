# SPDX-License-Identifier: Apache-2.0
"""One more library, compiled without a hash, for whoever loads all there is.

Stopped by: every part has to say what it is of; one that does not is named.
"""

import shutil

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    other = deployment(directory / "other", get_hash=False, scale=2.0)
    shutil.copy(other / "lib.so", own / "labels.txt")
    return verdict(network(), own, Status.NO_RECORD, "nothing says which model 'labels.txt'")


if __name__ == "__main__":
    main(attack)
