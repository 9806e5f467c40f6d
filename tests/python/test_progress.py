# SPDX-License-Identifier: Apache-2.0
"""Progress: on a terminal, for what takes over a second, and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest

CODE = """
import sys, time
from tvm_model_hash.progress import hashing
with hashing(int(sys.argv[1]), "weights.bin") as progress:
    progress.update(1 << 20)
    time.sleep(float(sys.argv[2]))
    progress.update(1 << 20)
print("tqdm" in sys.modules)
"""


def run(size, seconds, stderr):
    return subprocess.run(
        [sys.executable, "-c", CODE, str(size), str(seconds)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def on_a_terminal(size, seconds):
    master, slave = pty.openpty()
    result = run(size, seconds, slave)
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return result.stdout, shown.decode()


def test_a_bar_on_a_terminal_after_a_second():
    _, shown = on_a_terminal(1 << 30, 1.2)
    assert "weights.bin:" in shown
    assert "2.10M/1.07G" in shown
    assert shown.endswith("\r")  # and is gone afterwards


@pytest.mark.parametrize(("size", "seconds"), [(1 << 30, 0), (1 << 20, 1.2)])
def test_no_bar_for_what_is_soon_done(size, seconds):
    _, shown = on_a_terminal(size, seconds)
    assert shown == ""


def test_no_bar_and_no_import_where_there_is_no_terminal():
    result = run(1 << 30, 0, subprocess.STDOUT)
    assert result.stdout == "False\n"
