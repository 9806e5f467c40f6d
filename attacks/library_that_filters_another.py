# SPDX-License-Identifier: Apache-2.0
"""A good library whose symbols another one provides when it is loaded (DT_FILTER).

Stopped by: filters and auxiliary libraries count as libraries that are loaded with it.
"""

from common import error, main
from library_that_brings_another import evil_library, saved


def attack(directory):
    import tvm
    from deployments import network
    from tvm.runtime import vm_hash

    evil_library(directory)
    own = saved(directory, "-Wl,-f,libevil.so", "-Wl,-rpath,$ORIGIN/..")
    found = error(lambda: vm_hash.load(own, tvm.cpu(), network()), "has the library 'libevil.so'")
    assert not (directory / "was_run").exists()
    return found


if __name__ == "__main__":
    main(attack)
