# SPDX-License-Identifier: Apache-2.0
"""What a document shows, run as its reader would: in a fresh directory, from top to bottom.

A block of Python with a title is a file of that name. In a block ``console`` each line that begins
with ``$`` is a command, and the lines behind it are what it prints; ``...`` stands for anything.
``$ echo $?`` shows the status of the command before it, which has to be 0 otherwise. Each line of
a block ``sh`` is a command that succeeds.
"""

import doctest
import os
import re
import subprocess
import sys

BLOCK = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# With the lines that a backslash leads to.
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def follow(text, directory):
    """Do what a document says, and compare what comes out with what it shows.

    Returns
    -------
    commands : list of str
        What was run.
    """
    commands = []
    for language, title, content in BLOCK.findall(text):
        if language == "python" and title:
            (directory / title).write_text(content)
        elif language == "sh":
            for command in content.splitlines():
                _run(command, None, 0, directory, commands)
        elif language == "console":
            assert content.startswith("$ "), f"no command in front of {content!r}"
            status = 0
            for command, shown in COMMAND.findall(content):
                assert status == 0 or command == "echo $?", f"{commands[-1]!r}: status {status}"
                status = _run(command, shown, status, directory, commands)
            assert status == 0, f"{commands[-1]!r}: status {status}"
    return commands


def _run(command, shown, status, directory, commands):
    commands.append(command)
    programs = os.path.dirname(sys.executable)
    result = subprocess.run(
        ["bash", "-c", f"(exit {status}); {command}"],
        cwd=directory,
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
    )
    printed = result.stdout
    if shown is None:
        assert result.returncode == 0, f"{command!r}: {printed}{result.stderr}"
    else:
        printed += "\n" if printed and not printed.endswith("\n") else ""
        same = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)
        assert same, f"{command!r} printed\n{printed}{result.stderr}and not\n{shown}"
    return result.returncode
