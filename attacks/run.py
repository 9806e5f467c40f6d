# SPDX-License-Identifier: Apache-2.0
"""Run the attacks, all or those named, and say what stopped each: python attacks/run.py [NAME ...].

Each is a file of its own, and can be run alone. Its docstring says what it tries and what stops it.
With --table it prints the table of docs/security.md instead. Some need TVM with Relay, some the
one with Relax: those for the other one are skipped.
"""

import argparse
import importlib
import importlib.util
import pathlib
import re
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
HELPERS = {"common", "model_attacks", "run"}
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)


def load(name):
    """Import an attack."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(name)


def runs_here(module):
    """Whether this environment's TVM is the one that an attack needs."""
    has_relay = importlib.util.find_spec("tvm.relay") is not None
    return has_relay != (getattr(module, "TVM", "relay") == "relax")


def described(module):
    """What an attack tries, and what stops it."""
    tries, _, stops = module.__doc__.partition("Stopped by: ")
    return tuple(re.sub(r"\s+", " ", text).strip() for text in (tries, stops))


def table():
    """All attacks as a table of Markdown."""
    lines = ["| attack | tries | stopped by |", "|---|---|---|"]
    for name in NAMES:
        tries, stops = described(load(name))
        lines.append(f"| [{name}](../attacks/{name}.py) | {tries} | {stops} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--table", action="store_true", help="print what each tries")
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    failed = 0
    for name in options.names or NAMES:
        module = load(name)
        if not runs_here(module):
            print(f"{name}: skipped, it needs the other TVM")
            continue
        try:
            with tempfile.TemporaryDirectory() as directory:
                stopped = module.attack(pathlib.Path(directory))
            shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in stopped)
            print(f"{name}: stopped: {shown[:200]}")
        except Exception as error:  # one that goes through hides no other
            failed += 1
            print(f"{name}: NOT STOPPED: {type(error).__name__}: {error}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
