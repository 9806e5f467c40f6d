# SPDX-License-Identifier: Apache-2.0
"""Progress: on a terminal, for what takes over a second, and nowhere else."""

import re
import subprocess
import sys

import pytest
from conftest import on_a_terminal

CODE = """
import sys, time
from tvm_model_hash.progress import hashing
with hashing(int(sys.argv[1]), "weights.bin") as progress:
    progress.update(1 << 20)
    time.sleep(float(sys.argv[2]))
    progress.update(1 << 20)
print("tqdm" in sys.modules)
"""


def command(size, seconds):
    return [sys.executable, "-c", CODE, str(size), str(seconds)]


def test_a_bar_on_a_terminal_after_a_second(tmp_path):
    shown = on_a_terminal(command(1 << 30, 1.2), tmp_path)
    assert "weights.bin:" in shown
    assert "2.10M/1.07G" in shown
    assert shown.endswith("\rTrue\r\n")  # it is gone afterwards


@pytest.mark.parametrize(("size", "seconds"), [(1 << 30, 0), (1 << 20, 1.2)])
def test_no_bar_for_what_is_soon_done(size, seconds, tmp_path):
    assert "weights.bin" not in on_a_terminal(command(size, seconds), tmp_path)


def test_no_bar_and_no_import_where_there_is_no_terminal():
    result = subprocess.run(
        command(1 << 30, 1.2),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.stdout == "False\n"


# Sizes and times as of a large model: half of it in the time before there is an estimate.
LONG = """
import time
from tvm_model_hash.progress import hashing
with hashing(3 << 30, "\\x1b[2Jmodel_weights_of_a_large_network.onnx_data") as progress:
    progress.update(1 << 20)
    time.sleep(1)
    for _ in range(26):
        progress.update(50 << 20)
        time.sleep(0.1)
"""


@pytest.mark.parametrize(("columns", "has_bar"), [(40, False), (80, True)])
def test_a_bar_fits_the_terminal_and_does_not_guess(columns, has_bar, tmp_path):
    shown = on_a_terminal([sys.executable, "-c", LONG], tmp_path, columns=columns)
    assert "\x1b" not in shown
    states = [state for state in shown.split("\r") if "%" in state]
    assert len(states) > 5
    assert max(map(len, states)) < columns
    assert all(("|" in state) == has_bar for state in states)
    assert all("/3.22G" in state for state in states)
    assert states[0].startswith("\\x1b[2Jmod")
    # The first piece took a second; by that it would be an hour.
    estimates = re.findall(r"\d\d:\d\d", shown)
    assert "?" in states[0]
    assert estimates
    assert all(minutes.startswith("00:0") for minutes in estimates)
