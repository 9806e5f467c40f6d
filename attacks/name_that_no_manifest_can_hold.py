# SPDX-License-Identifier: Apache-2.0
"""A file whose name holds a line end, to put a line of its own into the manifest.

Stopped by: a directory with a name that not every system takes as it is can't be sealed.
"""

from common import deployment, error, main

from tvm_model_hash import seal


def attack(directory):
    own = deployment(directory / "own")
    (own / f"a\n{'0' * 64}  lib.so").write_text("")
    return error(lambda: seal(own), ".")


if __name__ == "__main__":
    main(attack)
