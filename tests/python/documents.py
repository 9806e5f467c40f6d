# SPDX-License-Identifier: Apache-2.0
"""What a document shows, run as its reader would: in a fresh directory, from top to bottom.

A block of Python with a title is a file of that name. In a block ``console`` each line that begins
with ``$`` is a command, and the lines behind it are what it prints; ``...`` stands for anything.
``$ echo $?`` shows the status of the command before it, which has to be 0 otherwise.
"""

import doctest
import os
import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# With the lines that a backslash leads to.
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def follow(path, directory):
    """Do what a document says, and compare what comes out with what it shows.

    Returns
    -------
    commands : list of str
        What was run.
    """
    commands = []
    for language, title, text in BLOCK.findall(pathlib.Path(path).read_text()):
        if language == "python" and title:
            (directory / title).write_text(text)
        elif language == "console":
            status = 0
            # In front of the first command stands nothing.
            assert text.startswith("$ "), f"{path}: a console begins with {text.splitlines()[0]!r}"
            for command, shown in COMMAND.findall(text):
                asks = command == "echo $?"
                assert asks or status == 0, f"{path}: {commands[-1]!r} ended with {status}"
                result = _run(f"(exit {status}); {command}", directory)
                status = result.returncode
                commands.append(command)
                printed = result.stdout
                if printed and not printed.endswith("\n"):
                    printed += "\n"
                same = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)
                assert same, (
                    f"{path}: {command!r} printed\n{printed}{result.stderr}and not\n{shown}"
                )
            assert status == 0, f"{path}: {commands[-1]!r} ended with {status}"
    return commands


def _run(command, directory):
    programs = os.path.dirname(sys.executable)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
    )
