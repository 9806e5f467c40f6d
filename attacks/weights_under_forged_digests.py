# SPDX-License-Identifier: Apache-2.0
"""Constants whose record has the right model, and the weights' digest of another one.

Stopped by: records with one model and other digests contradict each other.
"""

from dataclasses import replace

from common import deployment, main, verdict

from tvm_model_hash import Status, read_record, write_record


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    write_record(own / "consts", replace(read_record(own / "consts"), weights="0" * 64))
    return verdict(network(), own, Status.MISMATCH, "'consts' is of weights")


if __name__ == "__main__":
    main(attack)
