# SPDX-License-Identifier: Apache-2.0
"""Kernels of a stock compilation get a record that was cut out of a library of the model.

Stopped by: not by a check alone, as a record is no signature: by a seal that was made before, the
manifest of which is kept elsewhere (or signed).
"""

import shutil

from common import deployment, main, verdict
from record_grafted_beside_the_own import graft

from tvm_model_hash import Status, check, read_record, seal


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    seal(own)
    record = str(read_record(own / "lib.so")).encode()
    stock = deployment(directory / "stock", get_hash=False, scale=2.0)
    shutil.copy(stock / "lib.so", own)
    graft(record, own / "lib.so")
    sealed = verdict(network(), own, Status.BROKEN_SEAL, "lib.so")
    (own / "SHA256SUMS").unlink()
    assert check(network(), own).status is Status.MATCH  # what a record does not promise
    return sealed


if __name__ == "__main__":
    main(attack)
