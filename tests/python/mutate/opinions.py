# SPDX-License-Identifier: Apache-2.0
"""What TVM's importer and ONNX Runtime say of two models: is it the same that they read?"""

import contextlib
import io
import logging
import os

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # or TVM waits for the network

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto
from tvm import relay

SAME, OTHER, NOT_TOLD = "same", "other", "not told"

_MAX_BYTES = 1 << 20  # of a model: TVM takes seconds for a network
_onnxruntime = onnxruntime.SessionOptions()
_onnxruntime.log_severity_level = 4
_onnxruntime.intra_op_num_threads = 1
_onnxruntime.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
onnxruntime.set_default_logger_severity(4)

# What makes each run another one.
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
_RANDOM |= {"Multinomial", "Dropout"}


def ask(a, b):
    """Ask both; "not told" where one of the models is not taken, or is too large."""
    if max(a.ByteSize(), b.ByteSize()) > _MAX_BYTES:
        return {}
    return {"TVM's importer": _tvm(a, b), "ONNX Runtime": _runtime(a, b)}


def table(asked):
    """What was said, as a table of Markdown."""
    lines = ["| asked about | | the same | another one | not told |", "|---|---|---:|---:|---:|"]
    for is_same in (False, True):
        about = "equivalent by the digests" if is_same else "semantic mutations, a sample"
        for name in ("TVM's importer", "ONNX Runtime"):
            cells = " | ".join(f"{asked[is_same, name, o]:,}" for o in (SAME, OTHER, NOT_TOLD))
            lines.append(f"| {about} | {name} | {cells} |")
    return "\n".join(lines)


def _tvm(a, b):
    try:
        first, second = _imported(a), _imported(b)
        if tvm.ir.structural_equal(first, second):
            return SAME
        # Random numbers get a seed that is another one in each import.
        is_told = tvm.ir.structural_equal(first, _imported(a))
    except Exception:  # of any kind: the importer checks little
        return NOT_TOLD
    return OTHER if is_told else NOT_TOLD


def _imported(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # the importer writes names into it
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            mod, _ = relay.frontend.from_onnx(copy, freeze_params=True)
    finally:
        logging.disable(logging.NOTSET)
    return mod


def _runtime(a, b):
    if any(node.op_type in _RANDOM for model in (a, b) for node in _all_nodes(model)):
        return NOT_TOLD
    try:
        first = onnxruntime.InferenceSession(a.SerializeToString(), _onnxruntime)
        feed = _feed(a)
        expected = first.run(None, feed)
    except Exception:
        return NOT_TOLD
    try:
        second = onnxruntime.InferenceSession(b.SerializeToString(), _onnxruntime)
    except Exception:
        return NOT_TOLD
    try:
        found = second.run(None, feed)
    except Exception:  # it was loaded, and takes other inputs
        return OTHER
    return SAME if _key(expected) == _key(found) else OTHER


def _all_nodes(model):
    from .places import messages

    return (message for message in messages(model) if isinstance(message, onnx.NodeProto))


def _feed(model):
    given = {tensor.name for tensor in model.graph.initializer}
    rng, feed = np.random.default_rng(0), {}
    for info in model.graph.input:
        if info.name in given:
            continue
        tensor_type = info.type.tensor_type
        shape = [dim.dim_value or 1 for dim in tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        if tensor_type.elem_type == TensorProto.STRING:
            raise ValueError
        feed[info.name] = (rng.normal(size=shape) * 2).astype(dtype)
    return feed


def _key(outputs):
    return [(str(getattr(o, "dtype", "")), np.shape(o), _bytes(o)) for o in outputs]


def _bytes(output):
    return output.tobytes() if isinstance(output, np.ndarray) else repr(output)
