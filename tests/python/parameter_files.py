# SPDX-License-Identifier: Apache-2.0
"""The same arrays in every format for parameters, and a graph, written by their own tools."""

import functools
import os
import pathlib

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # or TVM waits for the network

import numpy as np
import safetensors.numpy
import tvm
from tvm import relay
from tvm.contrib import tvmjs

from tvm_model_hash.record import Record

RECORD = Record("0123456789abcdef" * 4, "a" * 64, "b" * 64)
# Each kind of character that a value may have and JSON writes in another way.
OTHER_RECORD = Record("f" * 64, extra=(("note", 'a"b\\c/d?'),))

ARRAYS = {
    "w": np.linspace(-1, 1, 512, dtype="float32").reshape(32, 16),
    "schicht/größe": np.arange(-3, 4, dtype="int8"),
    "scalar": np.array(7, "int64"),
}

#: The name of the file in each format that is written.
PARAMETERS = {
    "tvm": "weights.params",
    "npz": "weights.npz",
    "compressed npz": "compressed.npz",
    "tensor cache": "ndarray-cache.json",
    "bf16 tensor cache": "ndarray-cache-b16.json",
    "safetensors": "weights.safetensors",
    "safetensors with metadata": "metadata.safetensors",
}
GRAPH = "graph.json"
#: All of them: what can be tagged.
FILES = {**PARAMETERS, "graph": GRAPH}


def write_parameters(directory, arrays):
    tensors = {name: tvm.nd.array(array) for name, array in arrays.items()}
    tvm.runtime.save_param_dict_to_file(tensors, str(directory / "weights.params"))
    np.savez(directory / "weights.npz", **arrays)
    np.savez_compressed(directory / "compressed.npz", **arrays)
    tvmjs.dump_ndarray_cache(arrays, str(directory), show_progress=False)
    safetensors.numpy.save_file(arrays, directory / "weights.safetensors")
    metadata = {"format": "np", "title": "größe"}
    safetensors.numpy.save_file(arrays, directory / "metadata.safetensors", metadata)


@functools.cache
def factory():
    """A layer for the graph executor."""
    x = relay.var("x", shape=(1, 16))
    w = relay.var("w", shape=(32, 16))
    layer = relay.Function([x, w], relay.nn.relu(relay.nn.dense(x, w)))
    return relay.build(tvm.IRModule.from_expr(layer), "llvm", params={"w": ARRAYS["w"]})


def write_all(directory):
    """Write a file of each kind into a directory."""
    directory = pathlib.Path(directory)
    write_parameters(directory, ARRAYS)
    (directory / GRAPH).write_text(factory().get_graph_json())
