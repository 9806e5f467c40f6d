# SPDX-License-Identifier: Apache-2.0
"""For the tests of the hook: what it has patched, and copies of TVM with a change."""

import importlib.util
import os
import pathlib
import shutil

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
        For each file, what stands in it once, and what is to stand there; None removes the file.

    Returns
    -------
    env : dict
        The environment in which that TVM is the one that is imported.
    """
    shutil.copytree(TVM, directory / "tvm", copy_function=os.symlink, dirs_exist_ok=True)
    for name, change in changes.items():
        path = directory / "tvm" / name
        text = path.read_text()
        path.unlink()
        if change is not None:
            assert text.count(change[0]) == 1, (name, change)
            path.write_text(text.replace(*change))
    # The libraries are looked for beside files that are no links any more.
    return {"PYTHONPATH": str(directory), "TVM_LIBRARY_PATH": str(TVM)}
