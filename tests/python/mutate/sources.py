# SPDX-License-Identifier: Apache-2.0
"""Models to edit: real networks, ONNX's own small models, and generated ones."""

import functools
import importlib.util
from pathlib import Path

import hypothesis
import onnx
from canonical_reference import domain_of
from graph_strategies import models
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from model.test_canonical import node_tests

from .places import messages

# Networks in wheels: file's package and path. Squeezenet is of IR version 3 (its weights are
# inputs), magika and the first of silero's have weights, the second has nested Ifs and
# everything else in Constants.
NETWORKS = {
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "silero": ("silero_vad", "data/silero_vad_16k_sequence.onnx"),
    "silero_ifs": ("silero_vad", "data/silero_vad.onnx"),
    "squeezenet": ("onnx", "backend/test/data/light/light_squeezenet.onnx"),
}

# What generated models are made of, beside what is drawn at random; most draws are small.
STEPS = ["weight", "weight", "if", "if", "loop", "function", "function", "constant", "split"]
STEPS += ["dropout", "clip", "quantize", "random", "cast", "attribute", "binary", "sparse"]


@functools.cache
def network(name):
    """A real network; None if its package is not installed."""
    package, path = NETWORKS[name]
    spec = importlib.util.find_spec(package)
    return spec and onnx.load(Path(spec.origin).parent / path)


@functools.cache
def onnx_node_tests():
    """ONNX's own models, one or some for each operator, as (name, model)."""
    return node_tests()


def foreign(model):
    """The same model with its nodes in a domain of others: none is of ai.onnx."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for message in messages(copy):
        if isinstance(message, onnx.NodeProto) and domain_of(message.domain) == "":
            message.domain = "com.example"
    for message in [copy, *copy.functions]:
        message.opset_import.add(domain="com.example", version=1)
    return copy


def generated(seed, count):
    """Generated models, no two of which are the same; of some no node is of ai.onnx."""
    found = {}

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.tuples(st.lists(st.sampled_from(STEPS), max_size=4), st.booleans()).flatmap(
            lambda drawn: models(tuple(drawn[0]), dead=drawn[1])
        )
    )
    def collect(model):
        found[model.SerializeToString(deterministic=True)] = model

    collect()
    models_ = list(found.values())
    return [*models_, *map(foreign, models_[::10])]
