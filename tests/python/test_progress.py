# SPDX-License-Identifier: Apache-2.0
"""Progress: on a terminal, for what takes over a second, and nowhere else."""

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
