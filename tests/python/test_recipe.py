# SPDX-License-Identifier: Apache-2.0
"""How a part was compiled, as its record says, and what may be required of it."""

import json
from dataclasses import replace
from functools import partial

import formats_reference
import numpy as np
import pytest
from conftest import ROOT, layer
from test_record import expand

from tvm_model_hash import Record, RecordError, RequirementError, Status, check, write_record
from tvm_model_hash.checking.requirements import (
    compare_records,
    is_met,
    parse_requirements,
)
from tvm_model_hash.checking.verdict import check_consistent
from tvm_model_hash.cli import main
from tvm_model_hash.limits import RECORD_BYTES
from tvm_model_hash.model.digest import model_record
from tvm_model_hash.recipe import MAX_VALUE_BYTES, kinds, shortened, with_recipe
from tvm_model_hash.record import conflict

A, B = "a" * 64, "b" * 64
RECIPES = json.loads(
    (ROOT / "tests/vectors/records.json").read_text(),
    object_hook=lambda fields: {
        key: expand(value) if isinstance(value, str) else value for key, value in fields.items()
    },
)["recipes"]


@pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: str(entry["fields"])[:60])
def test_a_recipe_has_its_fields(entry):
    inputs = entry["inputs"] and [[expand(name), shape] for name, shape in entry["inputs"]]
    arguments = entry["tvm"], entry["targets"], entry["inputs"] if inputs is None else inputs
    assert formats_reference.recipe(*arguments) == entry["fields"]
    record = with_recipe(Record(A), *arguments)
    assert dict(record.extra) == entry["fields"]
    assert Record.parse(str(record)) == record


def record(build=None, params=0, **fields):
    return Record(A, extra=tuple(fields.items())).with_fields(build, params)


def test_a_recipe_replaces_another_and_goes_with_the_compilation():
    old = record("1", 2, tvm="0.18.0", target="c", shapes="x:1", signer="me")
    new = with_recipe(old, "0.19.0", [("llvm", None)], None).with_fields("2", 3)
    assert str(new).endswith(" build=2 params=3 tvm=0.19.0 target=llvm signer=me")
    assert new.with_fields("2", 4).field("tvm") == "0.19.0"
    assert new.with_fields(None).extra == (("signer", "me"),)


def test_all_fields_of_the_largest_size_fit_into_a_record():
    long = "x" * MAX_VALUE_BYTES
    full = with_recipe(
        Record(A, A, A), long, [(long, None)], [("x" * (MAX_VALUE_BYTES - 2), (1,))]
    ).with_fields("0" * 32, 10**9 - 1)
    assert all(len(full.field(key)) == MAX_VALUE_BYTES for key in ("tvm", "target", "shapes"))
    assert len(str(full)) <= RECORD_BYTES
    foreign = Record(A, A, A, (("pad", "x" * 700),))
    with pytest.raises(RecordError, match="more than the limit of 1024"):
        with_recipe(foreign, long, [("llvm", None)], None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llvm:x86_64-linux-gnu", ("llvm",)),
        ("cuda:x,llvm:y,llvm:z", ("cuda", "llvm")),
        ("c", ("c",)),
        (f"sha256:{A}", ()),
    ],
)
def test_the_kinds_of_targets(text, expected):
    assert kinds(record(target=text, build="1")) == expected
    assert kinds(record()) == kinds(None) == ()


@pytest.mark.parametrize("key", ["tvm", "target", "shapes"])
def test_parts_of_one_build_with_two_recipes_are_of_two_compilations(key):
    one, other = (record("1", **{key: value}) for value in ("x", "y"))
    assert conflict(one, other) == conflict(other, one) == "two compilations of this model"
    assert conflict(one, record("1")) is conflict(one, record("1", **{key: "x"})) is None


X86, ARM = "llvm:x86_64-linux-gnu", "llvm:aarch64-linux-gnu"


@pytest.mark.parametrize(
    ("key", "required", "found", "expected"),
    [
        ("tvm", "0.19.0", "0.19.0", True),
        ("tvm", "0.19", "0.19.0", False),
        ("shapes", "x:1x16", "x:1x16", True),
        ("shapes", "x:1", "x:1x16", False),
        ("shapes", "x" * 201, shortened("x" * 201), True),
        ("shapes", "y" * 201, shortened("x" * 201), False),
        ("signer", "x" * 201, shortened("x" * 201), False),
        ("target", X86, X86, True),
        ("target", X86, ARM, False),
        ("target", "llvm", X86, True),
        ("target", "llvm:x86_64", X86, True),
        ("target", "llvm:x86_64-linux", X86, True),
        ("target", "llvm:x86", X86, False),
        ("target", "llv", X86, False),
        ("target", "c", X86, False),
        ("target", X86, "llvm", False),
        ("target", "llvm", f"cuda:x86_64,{X86}", False),
        ("target", "cuda", f"cuda:x86_64,{X86}", False),
        ("target", "cuda,llvm", f"cuda:x86_64,{X86}", True),
        ("target", "llvm,cuda", f"cuda:x86_64,{X86}", True),
        ("target", "cuda,llvm", X86, False),
        ("target", "x" * 201, shortened("x" * 201), True),
        ("signer", "llvm", X86, False),
    ],
)
def test_what_meets_a_requirement(key, required, found, expected):
    assert is_met(key, required, found) is expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["tvm=0.19.0"], {"tvm": "0.19.0"}),
        (["target=cuda,llvm,tvm=0.19.0"], {"target": "cuda,llvm", "tvm": "0.19.0"}),
        (["shapes=x:1x2,y:?", "build=1"], {"shapes": "x:1x2,y:?", "build": "1"}),
        (["n=a=b"], {"n": "a=b"}),
    ],
)
def test_requirements_are_parsed(texts, expected):
    assert parse_requirements(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "'' is required, which is not KEY=VALUE"),
        (["llvm"], "'llvm' is required, which is not KEY=VALUE"),
        (["tvm="], "no record has a field 'tvm='"),
        (["=1"], "no record has a field '=1'"),
        (["TVM=1"], "no record has a field 'TVM=1'"),
        (["shapes=x: 1"], "no record has a field 'shapes=x: 1'"),
        (["tvm=1,tvm=2"], "'tvm=2' is required, which repeats its key"),
        (["tvm=1", "tvm=1"], "'tvm=1' is required, which repeats its key"),
        ([f"model=sha256:{A}"], "'model' can't be required"),
    ],
)
def test_a_malformed_requirement_is_an_error(texts, message):
    with pytest.raises(RequirementError, match=message):
        parse_requirements(texts)


def test_each_part_has_to_meet_what_is_required_and_those_that_compute_have_to_say():
    good, bad, silent = record("1", tvm="2"), record("1", tvm="3"), record("1")

    def answer(*records):
        named = [(f"'{i}'", one, has_to_say) for i, (one, has_to_say) in enumerate(records)]
        return compare_records({"tvm": "2"}, named)

    assert answer((good, True), (silent, False), (None, False)) == (None, None)
    assert answer((good, True), (bad, False)).unmet == "'1' has tvm=3, and tvm=2 is required"
    # What is known to be wrong goes before what is not known.
    assert answer((silent, True), (bad, True)).unmet
    for one in (silent, None):
        found = answer((good, True), (one, True))
        assert found.unmet is None
        assert found.unknown.startswith("'1' does not say its 'tvm', and tvm=2 is required")


def weights(directory, **fields):
    """A file with a record of a compilation, or one that was tagged."""
    path = directory / f"{'-'.join(fields) or 'tagged'}.npz"
    np.savez(path, w=np.ones(4))
    tagged = model_record(layer())
    write_record(path, replace(tagged, extra=tuple(fields.items())))
    return path


def test_a_file_that_was_tagged_does_not_say_how_it_was_compiled(tmp_path):
    path = weights(tmp_path)
    for verdict in (
        check(layer(), path, require={"tvm": "0.19.0"}),
        check_consistent(path, require={"tvm": "0.19.0"}),
    ):
        assert verdict.status is Status.NO_RECORD
        assert verdict.reason.startswith("the artifact does not say its 'tvm', and tvm=0.19.0 is")
    for refused in (check_consistent, partial(check, layer())):
        assert refused(path).status is Status.MATCH
        assert refused(path, require={}).status is Status.MATCH
        with pytest.raises(RequirementError):
            refused(path, require={"tvm": ""})


def test_another_model_is_told_before_what_is_required(tmp_path):
    verdict = check(layer(2), weights(tmp_path, tvm="1"), require={"tvm": "2"})
    assert verdict.status is Status.MISMATCH
    assert verdict.reason == "same graph, other weights"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--require", "tvm=1,target=llvm"], 0, "match: same model"),
        (["--require", "tvm=1", "--require", "shapes=x:1x2,y:3"], 0, "match: same model"),
        (["--require", "target=c"], 1, f"mismatch: the artifact has target={X86}, and target=c is"),
        (["--require", "build=1"], 3, "no record: the artifact does not say its 'build', and"),
        (["--require", "llvm"], 2, "'llvm' is required, which is not KEY=VALUE"),
    ],
)
def test_the_command_requires(arguments, status, line, tmp_path, capsys):
    path = weights(tmp_path, tvm="1", target=X86, shapes="x:1x2,y:3")
    for expected, of_model in (
        (model_record(layer()).model, "same model"),
        ("--consistent", "all of it is of model"),
    ):
        assert main(["check", expected, str(path), *arguments]) == status
        output = capsys.readouterr()
        assert line.replace("same model", of_model) in output.out + output.err


def test_the_command_shows_how_it_was_compiled(tmp_path, capsys):
    path = str(weights(tmp_path, tvm="1", target=X86, shapes="x:1x2,y:3"))
    assert main(["show", path]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(f"\ntvm      1\ntarget   {X86}\nshapes   x:1x2,y:3\n")
