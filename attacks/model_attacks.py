# SPDX-License-Identifier: Apache-2.0
"""Networks that readers could take for one: edits of tests/python/mutate, made once."""

import random
import warnings

import onnx
from common import NotStoppedError, error


def refused(name):
    """Make an edit at the first models that have a place for it: it has to be refused."""
    import mutate.semantic  # noqa: F401 (registers its edits)
    from mutate import sources
    from mutate.registry import EDITS, NoPlace

    from tvm_model_hash import model_record

    warnings.simplefilter("ignore")  # of numpy, where onnx makes its models
    edit, made = EDITS[name], None
    for number, model in enumerate(sources.generated(1, 40)):
        edited = onnx.ModelProto()
        edited.CopyFrom(model)
        try:
            words = edit.apply(edited, random.Random(number))
        except NoPlace:
            continue
        made = error(lambda edited=edited: model_record(edited), words)
    if made is None:
        raise NotStoppedError(f"no model has a place for: {name}")
    return made
