# SPDX-License-Identifier: Apache-2.0
"""An .npz whose array is a pickle that runs a command when it is read.

Stopped by: no array is read, only the archive's directory; and it is of no model.
"""

import pathlib

from common import deployment, main, verdict

from tvm_model_hash import Status


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def attack(directory):
    import numpy as np
    from deployments import network

    own = deployment(directory / "own")
    np.savez(own / "weights.npz", np.array([Evil(directory / "was_run")], dtype=object))
    found = verdict(network(), own, Status.NO_RECORD, "'weights.npz'")
    assert not (directory / "was_run").exists()
    return found


if __name__ == "__main__":
    main(attack)
