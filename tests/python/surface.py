# SPDX-License-Identifier: Apache-2.0
"""How what is patched looks to a person: help, completion, representations, warnings."""

import contextlib
import functools
import json
import linecache

import pytest
from conftest import run_python

from tvm_model_hash import ModelHashWarning

# Run with the hook and without it. Of each attribute it looks at what a person sees of it.
LOOK = """
import importlib, inspect, json, pydoc, re, rlcompleter, sys

def seen(value, name):
    text = {
        "repr": repr(value),
        "help": pydoc.render_doc(value, renderer=pydoc.plaintext),
        "source": inspect.getsource(value),
    }
    try:
        text["signature"] = str(inspect.signature(value))
    except ValueError:
        text["signature"] = None
    text["names"] = [value.__name__, value.__qualname__, value.__module__]
    text["file"] = inspect.getsourcefile(inspect.unwrap(value))
    return {key: re.sub(" at 0x[0-9a-f]+", "", str(found)) for key, found in text.items()}

found, listed = {}, {}
for module_name, paths in json.loads(sys.argv[1]).items():
    module = importlib.import_module(module_name)
    for path in paths:
        owner_path, _, attribute = path.rpartition(".")
        owner = getattr(module, owner_path) if owner_path else module
        name = f"{module_name}.{path}"
        if hasattr(owner, attribute):
            found[name] = seen(getattr(owner, attribute), attribute)
        where = f"{module_name}.{owner_path}".rstrip(".")
        completer = rlcompleter.Completer({"it": owner})
        listed[where] = sorted({n.rstrip("(") for n in completer.attr_matches("it.")} | {
            f"it.{n}" for n in dir(owner)})
print(json.dumps([found, listed]))
"""


def look(table):
    """Look at what a patch table changes, with the hook and without it.

    Parameters
    ----------
    table : dict
        PATCHES or RELAX_PATCHES.

    Returns
    -------
    ours, stock : list
        For each attribute that is there what is seen of it, and for each place the names that
        are listed there.
    """
    wanted = json.dumps({name: [*replacements] for name, (_, replacements) in table.items()})
    off = {"TVM_MODEL_HASH": "0", "TVM_DEVICE_BACKEND_AUTOLOAD": "0"}
    return [json.loads(run_python(LOOK, wanted, env=env).stdout) for env in ({}, off)]


def assert_as_good(table, importer, keyword):
    """Check that what is patched looks as it did, but for the keyword and the new methods."""
    (ours, ours_listed), (stock, stock_listed) = look(table)
    new = {f"{module}.{path}" for module, (_, paths) in table.items() for path in paths} - {*stock}
    assert {*ours} == {*stock} | new
    assert new
    before, after = stock.pop(importer), ours[importer]
    # A completer and a signature's hint take what inspect.signature gives.
    assert after.pop("signature") == before["signature"].replace(")", f", *, {keyword})", 1)
    documented, shown = (
        [line for line in seen.pop("help").splitlines() if line.strip()] for seen in (before, after)
    )
    begin, end = shown.index("    get_hash : bool, optional"), shown.index("    Returns")
    shown = "\n".join(shown[:begin] + shown[end:])
    assert shown.replace(f", *, {keyword}", "", 1) == "\n".join(documented)
    assert after == {name: before[name] for name in after}
    for name, seen in stock.items():
        assert ours[name] == seen, name
    for name in new:
        assert "Returns" in ours[name]["help"]
    split = functools.partial(str.rsplit, sep=".", maxsplit=1)
    for place, names in stock_listed.items():
        methods = {f"it.{name}" for where, name in map(split, new) if where == place}
        assert {*ours_listed[place]} == {*names} | methods


@contextlib.contextmanager
def warned(file, match):
    """Check that one warning of ours is given, for the line of a file that ends in "# here"."""
    with pytest.warns(ModelHashWarning, match=match) as caught:
        yield
    (warning,) = (one for one in caught if one.category is ModelHashWarning)
    assert warning.filename == file
    assert linecache.getline(file, warning.lineno).endswith("# here\n")
