# SPDX-License-Identifier: Apache-2.0
"""A named pipe that is called like a library: who opens it waits for ever.

Stopped by: what is no regular file is not opened.
"""

import os

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    os.mkfifo(own / "more.so")
    return verdict(network(), own, Status.MATCH, "same model")


if __name__ == "__main__":
    main(attack)
