# SPDX-License-Identifier: Apache-2.0
"""For the tests of the hook: what it has patched, and copies of TVM with a change."""

import importlib.util
import os
import pathlib

from conftest import run_python

TVM = pathlib.Path(importlib.util.find_spec("tvm").origin).parent

# Says which of the places that are patched with Relay are patched.
REPORT = """
import importlib, sys
def report():
    import tvm
    from tvm import relay
    from tvm.runtime.vm import Executable, VirtualMachine
    compiler = getattr(relay.vm, "VMCompiler", None)
    ours = [relay.frontend.from_onnx, relay.frontend.onnx.from_onnx, relay.quantize.quantize,
            getattr(compiler, "lower", None), getattr(compiler, "get_exec", None)]
    return "".join([*("01"[hasattr(f, "__wrapped__")] for f in ours),
                    *("01"[hasattr(c, "get_hash")] for c in (Executable, VirtualMachine)),
                    "01"[hasattr(Executable, "save_hash")]])
"""
PATCHED, STOCK = "1" * 8, "0" * 8


def report(code, **env):
    """Run code in a process of its own, and what is patched then."""
    return run_python(REPORT + code + "\nprint(report())", env=env).stdout.strip()


def changed_tvm(directory, changes):
    """Make a copy of the installed TVM, in links, some of whose files are changed.

    Parameters
    ----------
    directory : pathlib.Path
        Where to make it; to be put on the path.
    changes : dict of str to (str, str)
        For each file, what stands in it once, and what is to stand there.

    Returns
    -------
    env : dict
        The environment in which that TVM is the one that is imported.
    """
    _link(TVM, directory / "tvm", changes)
    # The libraries are looked for beside files that are no links any more.
    path = os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "TVM_LIBRARY_PATH": str(TVM)}


def _link(source, target, changes):
    target.mkdir()
    for entry in source.iterdir():
        within = {
            name.partition("/")[2]: change
            for name, change in changes.items()
            if name.partition("/")[0] == entry.name
        }
        if "" in within:
            old, new = within[""]
            text = entry.read_text()
            assert text.count(old) == 1, (entry, old)
            (target / entry.name).write_text(text.replace(old, new))
        # What Python compiles anew must not land in the real TVM.
        elif within or entry.name == "__pycache__":
            _link(entry, target / entry.name, within)
        else:
            (target / entry.name).symlink_to(entry)
