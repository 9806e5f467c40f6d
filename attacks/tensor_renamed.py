# SPDX-License-Identifier: Apache-2.0
"""A weight in a file beside a Relax library gets another name, so that another one takes its place.

Stopped by: the library names the tensors that it needs; one that is missing or left over is an
error.
"""

from common import error, main, relax_deployment

from tvm_model_hash import check, read_record, write_record

TVM = "relax"


def attack(directory):
    import numpy as np
    import safetensors.numpy
    from deployments import network

    own = relax_deployment(directory / "own", "save_safetensors")
    path = own / "weights.safetensors"
    record = read_record(path)
    safetensors.numpy.save_file({"v": np.zeros((16, 32), "float32")}, path)
    write_record(path, record)
    return error(lambda: check(network(), own), "'[wv]'")


if __name__ == "__main__":
    main(attack)
