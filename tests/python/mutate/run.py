# SPDX-License-Identifier: Apache-2.0
"""Mutations of models, counted: python tests/python/mutate/run.py --count 100000 --seed 1.

Each edit of the registry is made at random places of generated models, of ONNX's own small models
and of real networks, and the verdict of a check of the model against the mutant's record is
counted: a semantic mutation must never be a match or equivalent, a cosmetic one never a mismatch.

One edit more ("anything") sets, drops, repeats or exchanges any field of any message. What it
does is not known; if the verdict is equivalent, TVM's importer has to read the same program, and
ONNX Runtime to compute the same. A sample of the other edits is shown to the two as well.
"""

import argparse
import collections
import datetime
import gc
import multiprocessing
import os
import pathlib
import random
import sys
import time
import warnings

if __name__ == "__main__":
    tests = pathlib.Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(tests / place) for place in ("../reference", "python", "python/model")]

import mutate.cosmetic
import mutate.semantic  # noqa: F401 (both register their edits)
import onnx
from mutate import opinions, sources
from mutate.anything import ANYTHING
from mutate.registry import EDITS, NoPlace

from tvm_model_hash import ModelHashError, Status
from tvm_model_hash.checking.verdict import compare
from tvm_model_hash.model.digest import model_record

# Shares of generated models, of ONNX's and of real networks: these take a hundred times as long.
SHARES = {"generated": 0.39, "onnx": 0.6, "networks": 0.01}
GENERATED = 600
ATTEMPTS = 200  # to find a model with a place for an edit
# One mutation in so many is shown to the others, by the edit's rule: TVM takes its time.
ASKED = {"unknown": 20, "unchanged": 50}
ASKED_ELSE = 1000

# What became of a mutant.
FOUND, REFUSED, SAME = "found", "refused", "same"
FALSE_MATCH, FALSE_EQUIVALENT, FALSE_MISMATCH = (
    "false match",
    "false equivalent",
    "false mismatch",
)
FALSE = (FALSE_MATCH, FALSE_EQUIVALENT, FALSE_MISMATCH)


class Pool:
    """The models, with their records."""

    def __init__(self, seed, generated=GENERATED, networks=tuple(sources.NETWORKS)):
        self.models = {
            "generated": sources.generated(seed, generated),
            "onnx": [model for _, model in sources.onnx_node_tests()],
            "networks": [model for model in map(sources.network, networks) if model],
        }
        self.names = dict(zip(networks, self.models["networks"], strict=False))
        self.records = {}

    def record(self, model):
        if id(model) not in self.records:
            self.records[id(model)] = model_record(model)
        return self.records[id(model)]

    def draw(self, edit, rng):
        """A kind of models, and one of them."""
        (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
        if kind == "onnx" and edit.kinds:  # ONNX's have one node, and rarely what it needs
            kind = "generated"
        if kind == "networks":
            wanted = self.names if edit.rule == "unknown" else edit.networks
            names = [name for name in wanted if name in self.names]
            if names:
                return kind, self.names[rng.choice(names)]
            kind = "generated"
        return kind, rng.choice(self.models[kind])


def mutant(pool, edit, rng):
    """A model, and the same with one edit; None if no model was found that has a place for it."""
    cosmetic = [other for other in EDITS.values() if other.rule == "unchanged"]
    for _ in range(ATTEMPTS):
        kind, model = pool.draw(edit, rng)
        edited = onnx.ModelProto()
        edited.CopyFrom(model)
        try:
            if rng.random() < 0.25:  # behind another one, which changes nothing
                rng.choice(cosmetic).apply(edited, rng)
            before = edited.SerializeToString()
            edit.apply(edited, rng)
        except NoPlace:
            continue
        # Two that cancel each other out give the model itself.
        if edited.SerializeToString() not in (before, model.SerializeToString()):
            return kind, model, edited
    return None


def outcome(pool, edit, model, edited):
    """What a check says to the mutant, and whether that is as it should be."""
    try:
        found = model_record(edited)
    except ModelHashError:
        return REFUSED
    status = compare(pool.record(model), found).status
    if status is Status.MATCH:
        return FALSE_MATCH
    if edit.rule == "unchanged":
        return SAME if status is Status.EQUIVALENT else FALSE_MISMATCH
    if status is Status.MISMATCH:
        return FOUND
    return SAME if edit.rule == "unknown" else FALSE_EQUIVALENT


def run(pool, seed, numbers, edits, keep=None):
    """Make the mutations with these numbers; each depends on seed and number only."""
    counts, asked = collections.Counter(), collections.Counter()
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        edit = edits[number % len(edits)]
        made = mutant(pool, edit, rng)
        if made is None:
            counts[edit.name, "no place", ""] += 1
            continue
        kind, model, edited = made
        result = outcome(pool, edit, model, edited)
        is_sample = rng.randrange(ASKED.get(edit.rule, ASKED_ELSE)) == 0
        if is_sample and (result == SAME or (result == FOUND and edit.rule != "unknown")):
            is_same = result == SAME
            for name, opinion in opinions.ask(model, edited).items():
                asked[is_same, name, opinion] += 1
                if is_same and opinion == opinions.OTHER:
                    result = FALSE_EQUIVALENT
        counts[edit.name, result, kind] += 1
        if result in FALSE and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            onnx.save(model, keep / f"{seed}-{number}-a.onnx")
            onnx.save(edited, keep / f"{seed}-{number}-b.onnx")
            print(f"mutation {number}, {edit.name}: {result}", file=sys.stderr, flush=True)
    return counts, asked


# The columns of a table by what becomes of an edit that is as it should be.
COLUMNS = {
    FOUND: ("refused", "found", "**false match**", "**false equivalent**"),
    SAME: ("refused", "equivalent", "**false match**", "**false mismatch**"),
}


def tables(counts, edits):
    """The counts as tables of Markdown: a line for each group of edits, then one for each edit."""
    semantic = [edit for edit in edits if edit.rule not in ("unchanged", "unknown")]
    cosmetic = [edit for edit in edits if edit.rule == "unchanged"]
    groups = collections.defaultdict(list)
    for edit in semantic:
        groups[edit.group].append(edit)
    lines = _head("of", "edits", "tried", *COLUMNS[FOUND])
    for group, members in groups.items():
        lines.append(_line([group, len(members)], counts, members, FOUND))
    lines.append(_line(["**together**", len(semantic)], counts, semantic, FOUND))
    lines += ["", *_head("", "edits", "tried", *COLUMNS[SAME])]
    lines.append(_line(["cosmetic", len(cosmetic)], counts, cosmetic, SAME))
    if ANYTHING.name in [edit.name for edit in edits]:
        columns = ("refused", "found", "equivalent", "**false match**", "**false equivalent**")
        lines += ["", *_head("", "tried", *columns)]
        lines.append(_line([ANYTHING.name], counts, [ANYTHING], FOUND, SAME))
    for members, result in ((semantic, FOUND), (cosmetic, SAME)):
        lines += ["", *_head("of", "edit", "tried", *COLUMNS[result])]
        lines += [_line([e.group, e.name], counts, [e], result) for e in members]
    return lines


def _head(*names):
    return [f"| {' | '.join(names)} |", "|---" * 2 + "|---:" * (len(names) - 2) + "|"]


def _line(cells, counts, edits, *results):
    false = (FALSE_MATCH, FALSE_MISMATCH if results == (SAME,) else FALSE_EQUIVALENT)
    of = [
        sum(counts[edit.name, result, kind] for edit in edits for kind in SHARES)
        for result in (REFUSED, *results, *false)
    ]
    return (
        f"| {' | '.join(f'{c:,}' if isinstance(c, int) else c for c in [*cells, sum(of), *of])} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="semantic mutations (100000)")
    parser.add_argument("--cosmetic", type=int, help="cosmetic edits (a tenth of the count)")
    parser.add_argument("--anything", type=int, help="edits of any field (a tenth of the count)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument(
        "--keep", type=pathlib.Path, help="where to put models with a false verdict"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of numpy, in onnx's making of its models
    start = time.monotonic()
    pool = Pool(options.seed)
    tenth = options.count // 10
    parts = [
        ([e for e in EDITS.values() if e.rule != "unchanged"], options.count),
        (
            [e for e in EDITS.values() if e.rule == "unchanged"],
            tenth if options.cosmetic is None else options.cosmetic,
        ),
        ([ANYTHING], tenth if options.anything is None else options.anything),
    ]
    # Forked, so that each has the pool; which stays as it is.
    gc.freeze()
    tasks = [
        (options.seed, range(first, min(first + 500, count)), edits, options.keep)
        for edits, count in parts
        for first in range(0, count, 500)
    ]
    counts, asked = collections.Counter(), collections.Counter()
    _Task.pool = pool
    with multiprocessing.get_context("fork").Pool(options.jobs) as processes:
        for done, (some, opinion) in enumerate(processes.imap_unordered(_Task.run, tasks), 1):
            counts.update(some)
            asked.update(opinion)
            print(f"\r{done} of {len(tasks)} parts", end="", file=sys.stderr, flush=True)
    edits = [edit for part, _ in parts for edit in part]
    sizes = ", ".join(f"{len(models):,} {kind}" for kind, models in pool.models.items())
    print(
        f"`run.py --count {options.count} --seed {options.seed}`, {datetime.date.today()}, onnx "
        f"{onnx.__version__}, models: {sizes}; {time.monotonic() - start:.0f} s\n"
    )
    print(*tables(counts, edits), sep="\n")
    print(f"\nSecond opinions\n\n{opinions.table(asked)}")
    made = [edit for edits, count in parts if count for edit in edits]
    missing = [edit.name for edit in made if not any(counts[edit.name, o, k] for _, o, k in counts)]
    false = sum(number for (_, result, _), number in counts.items() if result in FALSE)
    for name in missing:
        print(f"no mutation was made: {name}", file=sys.stderr)
    sys.exit(bool(false or missing))


class _Task:
    pool = None

    @classmethod
    def run(cls, task):
        seed, numbers, edits, keep = task
        return run(cls.pool, seed, numbers, edits, keep)


if __name__ == "__main__":
    main()
