# SPDX-License-Identifier: Apache-2.0
"""A model whose weights lie in a file outside of its directory: a digest would tell of a secret.

Stopped by: external data are in a regular file below the model's directory, or an error.
"""

import os

from common import error, main

from tvm_model_hash import model_record


def attack(directory):
    import onnx
    from deployments import network

    model = network()
    weight = model.graph.initializer[0]
    data = onnx.numpy_helper.to_array(weight).tobytes()
    (directory / "secret").write_bytes(data)
    (directory / "models").mkdir()
    os.symlink("../secret", directory / "models" / "link")
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    path = directory / "models" / "model.onnx"
    for location in ("../secret", str(directory / "secret"), "link", "../models/../secret"):
        del weight.external_data[:]
        weight.external_data.add(key="location", value=location)
        onnx.save(model, path)
        found = error(lambda: model_record(path), ".")
    return found


if __name__ == "__main__":
    main(attack)
