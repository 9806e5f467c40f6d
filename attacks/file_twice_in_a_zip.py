# SPDX-License-Identifier: Apache-2.0
"""An .npz in which an array stands twice: NumPy takes the last one, others the first.

Stopped by: a name that stands twice is an error.
"""

import io
import warnings
import zipfile

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    import numpy as np
    from deployments import network

    own = deployment(directory / "own")
    data = io.BytesIO()
    np.save(data, np.ones(3))
    with zipfile.ZipFile(own / "weights.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that it is twice
        archive.writestr("p_0.npy", data.getvalue())
        archive.writestr("p_0.npy", data.getvalue())
    return error(lambda: check(network(), own), "weights.npz")


if __name__ == "__main__":
    main(attack)
