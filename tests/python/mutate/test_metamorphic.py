# SPDX-License-Identifier: Apache-2.0
"""What the digests of a model depend on, and what not, by editing models.

Each test is an edit, made at random places of generated models and of real networks.
"""

import functools
import random

import mutate.cosmetic
import mutate.semantic  # noqa: F401 (both register their edits)
import onnx
import pytest
from graph_strategies import models
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from mutate.registry import EDITS, NoPlace
from mutate.sources import foreign, network

from tvm_model_hash.errors import InvalidModelError
from tvm_model_hash.model.digest import model_record

CASES = [
    (edit, source)
    for edit in EDITS.values()
    for source in (*["generated"] * (edit.kinds is not None), *edit.networks)
]


@functools.cache
def network_and_record(name):
    model = network(name)
    if model is None:
        pytest.skip(f"the package of {name} is not installed")
    return model, model_record(model)


@pytest.mark.parametrize(
    ("edit", "source"), CASES, ids=[f"{edit.name}-{source}" for edit, source in CASES]
)
def test_edit(edit, source):
    is_generated = source == "generated"
    cases = (
        models(edit.kinds).map(lambda model: (model, model_record(model)))
        if is_generated
        else st.just(network_and_record(source))
    )

    @settings(max_examples=12 if is_generated else 2, deadline=None)
    @given(cases, st.integers(0, 2**32))
    def run(case, seed):
        model, before = case
        edited = onnx.ModelProto()
        edited.CopyFrom(model)
        try:
            message = edit.apply(edited, random.Random(seed))
        except NoPlace:
            reject()
        if edit.rule == "refused":
            with pytest.raises(InvalidModelError, match=message):
                model_record(edited)
            return
        after = model_record(edited)
        if after.model == before.model:
            reject()
        is_changed = after.graph != before.graph, after.weights != before.weights
        expected = {
            "unchanged": [(False, False)],
            "graph": [(True, False), (True, True)],
            "only graph": [(True, False)],
            "only weights": [(False, True)],
        }
        assert is_changed in expected[edit.rule]

    run()


@settings(max_examples=20, deadline=None)
@given(models())
def test_the_version_of_ai_onnx_counts_though_no_node_is_of_it(model):
    model = foreign(model)
    before = model_record(model)
    EDITS["the version of ai onnx changes though no node is of it"].apply(model, random.Random(0))
    after = model_record(model)
    assert after.graph != before.graph
    assert after.weights == before.weights
