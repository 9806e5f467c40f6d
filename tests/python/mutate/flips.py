# SPDX-License-Identifier: Apache-2.0
"""Bits of deployments flipped one by one, and what a check says.

python tests/python/mutate/flips.py --count 10000 --seed 1

For each form of a deployment in docs/coverage.md, of Relay or of Relax as the environment has
it: --count bits of each file, or all if it has no more. Of a sealed deployment
each has to be found. Of an unsealed one a flipped bit is found, or the verdict says that the
contents were not verified; one in a record's text is counted by what it hits.
"""

import argparse
import collections
import importlib
import multiprocessing
import os
import pathlib
import random
import re
import sys
import tempfile

if __name__ == "__main__":
    tests = pathlib.Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(tests / place) for place in ("../reference", "python", "python/model")]
    os.environ.setdefault("TOPHUB_LOCATION", "NONE")

from deployments import network

from tvm_model_hash import ModelHashError, Status, check, model_record, seal

FOUND, NOT_VERIFIED, MISSED = "found", "not verified", "missed"

_RECORD = re.compile(rb"model-hash/1(?: [a-z][a-z0-9_-]*=[!-~]+)+")
_FIELD = re.compile(rb" ([a-z]+)=([!-~]+)")


def look(record, directory):
    """What a check says of a deployment in which something was changed."""
    try:
        verdict = check(record, directory)
    except ModelHashError:
        return FOUND
    if not verdict.ok:
        return FOUND
    is_said = any("not their contents bit by bit" in remark for remark in verdict.remarks)
    return NOT_VERIFIED if is_said and not verdict.sealed else MISSED


def places(data):
    """For each bit of each record's text: which record, and which key's value, if any."""
    found = {}
    for match in _RECORD.finditer(data):
        text = dict.fromkeys(range(match.start() * 8, match.end() * 8), "other text")
        for field in _FIELD.finditer(match[0]):
            start, end = (match.start() + place for place in field.span(2))
            text.update(dict.fromkeys(range(start * 8, end * 8), f"`{field[1].decode()}`"))
        found.update({bit: (match.start(), what) for bit, what in text.items()})
    return found


def count_records(hit, outcomes):
    """Count the flipped bits of records by what they hit.

    A library has the record where it is read, and copies that its functions return: in these no
    bit is found.
    """
    read = {record for bit, (record, what) in hit.items() if outcomes.get(bit) == FOUND}
    counts = collections.Counter()
    for bit, (record, what) in hit.items():
        if bit in outcomes:
            kind = what if record in read else "copies that functions return"
            counts[kind, outcomes[bit]] += 1
    return counts


def chosen(data, count, rng):
    """The bits to flip: so many, or all."""
    return sorted(rng.sample(range(len(data) * 8), min(count, len(data) * 8)))


def flip(record, directory, name, bits):
    """Flip each bit of a file, check, and flip it back: what was found, by bit."""
    path = pathlib.Path(directory, name)
    outcomes = {}
    with open(path, "r+b", buffering=0) as file:
        for bit in bits:
            (byte,) = os.pread(file.fileno(), 1, bit // 8)
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)
            outcomes[bit] = look(record, directory)
            os.pwrite(file.fileno(), bytes([byte]), bit // 8)
    return outcomes


def change_files(record, directory, other):
    """Change whole files: what was found, by what was done."""
    outcomes = {}
    for path in sorted(pathlib.Path(directory).iterdir()):
        data = path.read_bytes()
        moved = path.with_name(f"moved-{path.name}")
        for what, changed in {
            "a byte 0 appended": data + b"\0",
            "text appended": data + b"more\n",
            "the last byte cut off": data[:-1],
            "cut in half": data[: len(data) // 2],
            "emptied": b"",
            "another model's": (pathlib.Path(other) / path.name).read_bytes(),
        }.items():
            path.write_bytes(changed)
            outcomes[path.name, what] = look(record, directory)
        path.write_bytes(data)
        path.rename(moved)
        outcomes[path.name, "renamed"] = look(record, directory)
        moved.rename(path)
    return outcomes


def forms():
    """The forms of this environment's TVM: for each name how to make it in a directory."""
    import tvm

    if hasattr(tvm, "relay"):
        module = importlib.import_module("checking.test_coverage")
        return {form: lambda d, v, f=form: module.build(f, d, **v) for form in module.FORMS}
    module = importlib.import_module("relax.test_relax_coverage")

    def make(save, directory, variant):
        directory.mkdir()
        save(network(**variant), directory, True)

    found = {form: save for form, (save, _) in module.FORMS.items()}
    if hasattr(module.tvmjs, "dump_tensor_cache"):
        found["Relax, weights in a tensor cache"] = module.save_cache
    return {form: lambda d, v, s=save: make(s, d, v) for form, save in found.items()}


def run_form(form, make, count, seed, in_records=None):
    """Flip bits of a form, unsealed and sealed, and change whole files.

    Returns rows of files, how many bits in records were found, and how many changes of files.
    ``in_records`` is how many bits of the records in a file are flipped, by default all.
    """
    rng = random.Random(f"{seed}/{form}")
    record = model_record(network())
    rows, fields, whole = [], collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        first, other = pathlib.Path(root, "first"), pathlib.Path(root, "other")
        make(first, {})
        make(other, {"scale": 2.0})
        for cache in ("tensor-cache-b16.json", "ndarray-cache-b16.json"):  # TVM writes them, too
            for directory in (first, other):
                (directory / cache).unlink(missing_ok=True)
        is_covered = check(record, first).status is Status.MATCH
        (first / "hash.txt").write_text(record.model)
        (other / "hash.txt").write_text(model_record(network(scale=2.0)).model)
        bits = {}
        for path in sorted(first.iterdir()):
            data = path.read_bytes()
            bits[path.name] = chosen(data, count, rng)
            if is_covered:
                hit = places(data)
                more = (
                    hit if in_records is None else rng.sample(list(hit), min(in_records, len(hit)))
                )
                outcomes = flip(record, first, path.name, sorted({*bits[path.name], *more}))
                fields.update(count_records(hit, outcomes))
                found = [outcomes[bit] for bit in bits[path.name]]
            else:  # some part needs a seal
                found = []
            rows.append(
                [form, path.name, len(data), len(bits[path.name]), collections.Counter(found)]
            )
        if is_covered:
            unsealed = change_files(record, first, other)
            whole.update(("unsealed", outcome) for outcome in unsealed.values())
        for directory in (first, other):
            seal(directory)
        assert check(record, first).status is Status.MATCH
        names = [*bits, "SHA256SUMS"]
        data = (first / "SHA256SUMS").read_bytes()
        bits["SHA256SUMS"] = chosen(data, count, rng)
        rows.append([form, "SHA256SUMS", len(data), len(bits["SHA256SUMS"]), None])
        for row, name in zip(rows, names, strict=True):
            outcomes = flip(record, first, name, bits[name])
            row.append(collections.Counter(outcomes.values()))
        changed = change_files(record, first, other)
        # Renamed, a manifest is a file as others are: there is no seal any more, and it is said.
        whole.update(("sealed", outcome) for outcome in changed.values())
        missed = {key for key, outcome in changed.items() if outcome != FOUND}
        assert missed <= {("SHA256SUMS", "renamed")}, missed
    return rows, fields, whole


def table(rows, fields, whole):
    """The rows as tables of Markdown, a line for each form."""
    lines = [
        "| form | files (bytes) | bits flipped | sealed: found | **missed** | "
        "not sealed: found | said to be not verified |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    sums = collections.Counter()
    for form in dict.fromkeys(row[0] for row in rows):
        of, files = collections.Counter(), []
        for _, name, size, bits, unsealed, sealed in (row for row in rows if row[0] == form):
            files.append(f"`{name}` ({size:,})")
            of.update(bits=bits, found=sealed[FOUND], missed=bits - sealed[FOUND])
            if unsealed:
                of.update(apart=unsealed[FOUND], said=unsealed[NOT_VERIFIED])
                of.update(missed=unsealed[MISSED])
        sums.update(of)
        lines.append(f"| {form} | {', '.join(files)} | {_cells(of, *COLUMNS)} |")
    lines.append(f"| **together** | | {_cells(sums, *COLUMNS)} |")
    lines += ["", "| not sealed, of records | flipped | found | said to be not verified |"]
    lines.append("|---|---:|---:|---:|")
    for field in sorted({field for field, _ in fields}):
        cells = {outcome: fields[field, outcome] for outcome in (FOUND, NOT_VERIFIED)}
        cells["flipped"] = sum(cells.values())
        lines.append(f"| {field} | {_cells(cells, 'flipped', FOUND, NOT_VERIFIED)} |")
    lines += ["", "| files cut, lengthened, emptied, exchanged, renamed | done | found |"]
    lines.append("|---|---:|---:|")
    for state in ("sealed", "unsealed"):
        cells = {FOUND: whole[state, FOUND], NOT_VERIFIED: whole[state, NOT_VERIFIED]}
        cells["done"] = sum(cells.values())
        name = "sealed" if state == "sealed" else "not sealed"
        lines.append(f"| {name} | {_cells(cells, 'done', FOUND)} |")
    return "\n".join(lines)


COLUMNS = ("bits", "found", "missed", "apart", "said")


def _cells(counts, *keys):
    return " | ".join(f"{counts[key]:,}" for key in keys)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="bits of each file (10000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    tasks = [(form, options.count, options.seed) for form in forms()]
    rows, fields, whole = [], collections.Counter(), collections.Counter()
    # A process for each form: TVM does not like to be forked behind its first compilation.
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as processes:
        for some, more, others in processes.imap(_run, tasks, chunksize=1):
            rows += some
            fields += more
            whole += others
            print(table(some, more, others), file=sys.stderr, flush=True)
    print(table(rows, fields, whole))
    sys.exit(any(sealed[FOUND] != bits or (un and un[MISSED]) for *_, bits, un, sealed in rows))


def _run(task):
    form, count, seed = task
    return run_form(form, forms()[form], count, seed)


if __name__ == "__main__":
    main()
