# SPDX-License-Identifier: Apache-2.0
"""A sample of the mutations that run.py counts, and that it counts what is false."""

import collections
import random

import onnx
import pytest
from deployments import network
from mutate import opinions, run
from mutate.anything import ANYTHING
from mutate.registry import EDITS

SEED = 8


@pytest.fixture(scope="module")
def pool():
    return run.Pool(SEED, generated=200, networks=())


@pytest.mark.filterwarnings("ignore")  # of numpy, in onnx's making of its models
@pytest.mark.parametrize(("is_cosmetic", "rounds"), [(False, 4), (True, 10)])
def test_no_verdict_is_false(is_cosmetic, rounds, pool):
    edits = [e for e in EDITS.values() if (e.rule == "unchanged") is is_cosmetic]
    counts, _ = run.run(pool, SEED, range(len(edits) * rounds), edits)
    assert not any(result in run.FALSE for _, result, _ in counts), counts
    made = collections.Counter()
    for (name, result, _), number in counts.items():
        made[name] += number if result != "no place" else 0
    of_networks = {"two attributes exchange their values"}  # there is a place in no other model
    assert {edit.name for edit in edits if not made[edit.name]} <= of_networks


@pytest.mark.filterwarnings("ignore")
def test_what_is_equivalent_whatever_was_changed_is_the_same_to_others(pool):
    counts, asked = run.run(pool, SEED, range(300), [ANYTHING])
    assert not any(result in run.FALSE for _, result, _ in counts), counts
    assert {result for _, result, _ in counts} >= {run.FOUND, run.REFUSED, run.SAME}
    assert sum(asked.values()) > 0


def test_what_is_false_is_counted(pool):
    """Edits that break their promise, each in its way."""
    model, same, renamed, other = network(), network(), network(), network(alpha=0.2)
    renamed.graph.node[0].name = "another"
    semantic, cosmetic = (
        next(edit for edit in EDITS.values() if edit.rule == rule)
        for rule in ("graph", "unchanged")
    )
    for edit, edited, expected in (
        (semantic, same, run.FALSE_MATCH),
        (semantic, renamed, run.FALSE_EQUIVALENT),
        (semantic, other, run.FOUND),
        (cosmetic, other, run.FALSE_MISMATCH),
        (cosmetic, renamed, run.SAME),
        (ANYTHING, renamed, run.SAME),
        (ANYTHING, same, run.FALSE_MATCH),
    ):
        assert run.outcome(pool, edit, model, edited) == expected
    del other.graph.input[:]
    assert run.outcome(pool, semantic, model, other) == run.REFUSED


def test_the_others_tell_networks_apart():
    names = ("TVM's importer", "ONNX Runtime")
    for variant, opinion in (({}, opinions.SAME), ({"scale": 2.0}, opinions.OTHER)):
        other = network(**variant)
        other.graph.node[0].name = "another"
        assert opinions.ask(network(), other) == dict.fromkeys(names, opinion)
    other = network()
    other.graph.node[0].op_type = "Unknown"
    assert opinions.ask(network(), other) == dict.fromkeys(names, opinions.NOT_TOLD)


def test_a_mutation_depends_on_seed_and_number_only(pool):
    edits = list(EDITS.values())
    made = [
        run.mutant(pool, edits[number], random.Random(f"1/{number}"))
        for _ in range(2)
        for number in (0, 30, 60)
    ]
    written = [onnx.ModelProto.SerializeToString(edited) for _, _, edited in made]
    assert written[:3] == written[3:]
