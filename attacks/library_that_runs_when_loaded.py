# SPDX-License-Identifier: Apache-2.0
"""A library of another model that runs code as soon as it is loaded.

Stopped by: a check reads files and loads nothing; `vm_hash.load` checks before it loads.
"""

import shutil

from common import deployment, error, main, verdict
from library_that_brings_another import evil_library

from tvm_model_hash import Status


def attack(directory):
    import tvm
    from deployments import network
    from tvm.runtime import vm_hash

    own = deployment(directory / "own")
    shutil.copy(evil_library(directory), own / "lib.so")
    error(lambda: vm_hash.load(own, tvm.cpu(), network()), ".")
    error(lambda: verdict(network(), own, Status.MATCH, ""), ".", Exception)
    found = error(lambda: vm_hash.load(own, tvm.cpu(), expected=None), ".")
    assert not (directory / "was_run").exists()
    return found


if __name__ == "__main__":
    main(attack)
