# SPDX-License-Identifier: Apache-2.0
"""Weights in an .npz whose first file is a text, so that it does not look like parameters.

Stopped by: an archive is parameters if any of its files is an array.
"""

import io
import zipfile

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    import numpy as np
    from checking.test_hidden_parts import foreign_weights
    from deployments import network

    own = deployment(directory / "own")
    with zipfile.ZipFile(own / "notes.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing to see")
        for name, array in foreign_weights(own).items():
            data = io.BytesIO()
            np.save(data, array)
            archive.writestr(f"{name}.npy", data.getvalue())
    return verdict(network(), own, Status.NO_RECORD, "'notes.zip'")


if __name__ == "__main__":
    main(attack)
