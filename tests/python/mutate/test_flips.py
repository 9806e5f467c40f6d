# SPDX-License-Identifier: Apache-2.0
"""A sample of what flips.py does: no bit of a sealed deployment changes unnoticed."""

import collections

import pytest
from checking.test_coverage import build
from conftest import run_command
from deployments import network
from mutate import flips

from tvm_model_hash import model_record, seal


@pytest.mark.parametrize(
    "form", ["Relay VM, constants apart", "Relay VM, single file", "Relay graph executor, apart"]
)
def test_flipped_bits(form):
    rows, records, files = flips.run_form(
        form,
        lambda directory, variant: build(form, directory, **variant),
        30,
        1,
        in_records=150,
    )
    for _, name, _, count, unsealed, sealed in rows:
        assert sealed == {flips.FOUND: count}, name
        assert unsealed is None or unsealed[flips.MISSED] == 0, name
    assert records["`model`", flips.FOUND] > 10
    assert records["`model`", flips.NOT_VERIFIED] == 0
    assert not any(outcome == flips.MISSED for _, outcome in [*records, *files])


def test_the_output_says_that_contents_were_not_verified(tmp_path):
    """A flipped bit of machine code is no difference of models: what a seal is for."""
    directory = build("Relay VM", tmp_path / "d")
    (tmp_path / "hash.txt").write_text(model_record(network()).model)
    data = bytearray((directory / "lib.so").read_bytes())
    data[len(data) // 2] ^= 1
    (directory / "lib.so").write_bytes(data)
    assert flips.look(model_record(network()), directory) == flips.NOT_VERIFIED
    shown = run_command("check", "hash.txt", "d", cwd=tmp_path)
    assert shown.returncode == 0
    assert "not sealed: whose the files are was checked, not their contents" in shown.stdout
    seal(directory)
    data[len(data) // 2] ^= 2
    (directory / "lib.so").write_bytes(data)
    assert flips.look(model_record(network()), directory) == flips.FOUND


def test_a_bit_that_is_not_found_is_counted(tmp_path):
    """The count is no better than what looks: behind the end of a seal's files nothing is."""
    directory = build("Relay VM", tmp_path / "d")
    seal(directory)
    (directory / "labels.txt").write_text("cat")  # which the seal does not list
    outcomes = flips.flip(model_record(network()), directory, "labels.txt", range(24))
    assert collections.Counter(outcomes.values()) == {flips.MISSED: 24}
