# SPDX-License-Identifier: Apache-2.0
"""Imports in the core point downwards only, as the order of the rooms is, and go in no circle."""

import ast

import pytest
from conftest import ROOT

CORE = ROOT / "python" / "tvm_model_hash"
# What each room may import, besides itself.
GROUND = {
    "record",
    "recipe",
    "errors",
    "versions",
    "files",
    "progress",
    "remote",
    "warning",
    "limits",
    "boundary",
}
BELOW = {
    "ground": set(),
    "model": {"ground"},
    "containers": {"ground"},
    "artifact": {"ground", "containers"},
    "checking": {"ground", "containers", "model", "artifact"},
    "integration": {"ground", "containers", "model", "artifact", "checking", "activation"},
    "cli": {"ground", "containers", "model", "artifact", "checking"},
    "activation": {"ground"},
    "__main__": {"cli"},
}
FILES = {
    ".".join(path.relative_to(CORE).with_suffix("").parts): path
    for path in CORE.rglob("*.py")
    if "tvm" not in path.relative_to(CORE).parts and path.name != "__init__.py"
}


def room(module):
    first = module.partition(".")[0]
    return "ground" if first in GROUND else first


def imports(module):
    """The modules of the core that one imports, wherever in its file."""
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) + 1 - node.level] + (node.module or "").split(".")
            base = ".".join(filter(None, base))
            names = {".".join(filter(None, (base, alias.name))) for alias in node.names}
            found |= {base} if base in FILES else names
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not {n.partition(".")[0] for n in names} & {"tvm"}, f"{module} imports tvm"
    return found


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_file_imports_from_its_room_and_those_below(module):
    assert {room(m) for m in imports(module)} <= BELOW[room(module)] | {room(module)}


def test_no_files_import_each_other_in_a_circle():
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a circle: {path} -> {module}"
        if module not in done:
            path.append(module)
            for other in imports(module):
                visit(other)
            done.add(path.pop())

    for module in FILES:
        visit(module)
