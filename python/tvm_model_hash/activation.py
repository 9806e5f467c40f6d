# SPDX-License-Identifier: Apache-2.0
"""Puts the integrations into TVM, at the moment TVM's modules are imported.

Every interpreter of the environment runs :func:`start` when it starts, by way of
tvm_model_hash.pth. It must stay cheap there: nothing but ``sys`` and ``os`` is imported
until TVM is. TVM 0.25 and later runs it as an entry point of the group ``tvm.backends`` too, at
the end of ``import tvm``, so that it is not missing where .pth files are not read.
"""

import os
import sys

# The patch tables, for TVM with Relay and with Relax: for each module of TVM, the integration that
# patches it, and what it sets there: attribute of TVM's module -> attribute of the integration. The
# integrations' files lie under tvm/ beside this one as they would in TVM's tree.
PATCHES = {
    "tvm.runtime.vm": (
        "tvm.runtime.relay_vm_hash",
        {
            "Executable.get_hash": "get_hash",
            "Executable.save_hash": "save_hash",
            "Executable.check_hash": "check_hash",
            "Executable.move_late_bound_consts": "move_late_bound_consts",
            "Executable.get_late_bound_consts": "get_late_bound_consts",
            "Executable.load_late_bound_consts": "load_late_bound_consts",
            "Executable.load_late_bound_consts_from_map": "load_late_bound_consts_from_map",
            "Executable.load_exec": "load_exec",
            "VirtualMachine.get_hash": "get_hash",
            "VirtualMachine.check_hash": "check_hash",
        },
    ),
    "tvm.relay.frontend.onnx": (
        "tvm.relay.frontend.onnx_hash",
        {"from_onnx": "from_onnx"},
    ),
    "tvm.relay.backend.vm": (
        "tvm.relay.backend.vm_hash",
        {
            "VMCompiler.set_params": "set_params",
            "VMCompiler.lower": "lower",
            "VMCompiler.get_exec": "get_exec",
        },
    ),
    "tvm.relay.build_module": (
        "tvm.relay.build_module_hash",
        {"build": "build"},
    ),
    "tvm.relay.quantize.quantize": (
        "tvm.relay.quantize.quantize_hash",
        {"quantize": "quantize"},
    ),
}

RELAX_PATCHES = {
    "tvm.runtime.vm": (
        "tvm.runtime.relax_vm_hash",
        {
            "VirtualMachine.get_hash": "get_hash",
            "VirtualMachine.check_hash": "check_hash",
        },
    ),
    "tvm.relax.vm_build": (
        "tvm.relax.vm_build_hash",
        {
            "build": "build",
            "VMExecutable.get_hash": "get_hash",
            "VMExecutable.save_hash": "save_hash",
            "VMExecutable.check_hash": "check_hash",
        },
    ),
    "tvm.relax.frontend.onnx.onnx_frontend": (
        "tvm.relax.frontend.onnx.onnx_hash",
        {"from_onnx": "from_onnx"},
    ),
}

_MISSING = object()

_finder = None  # the finder in sys.meta_path, while there is one
_applied: list = []  # (module, path, original or _MISSING, replacement) of what is patched
_refused = False  # a TVM that is not supported was found, and warned about
_wanted = os.environ.get("TVM_MODEL_HASH") != "0"  # or what install and uninstall have said since


def start():
    """Activate, unless the environment variable ``TVM_MODEL_HASH`` is ``0``."""
    if _wanted:
        install()


def install():
    """Activate in this process.

    Modules of TVM that are imported already are patched now, the others when they are
    imported. Does nothing where it is active already.
    """
    global _finder, _wanted
    _wanted = True
    table = _table()
    if _finder is None and set(table) - set(sys.modules):
        _finder = _Finder()
        sys.meta_path.insert(0, _finder)
    for name in table:
        if name in sys.modules:
            _patch(sys.modules[name])


def uninstall():
    """Deactivate in this process: give TVM's modules back what they had.

    A ``from_onnx`` that was imported by name before keeps its keyword, and what was compiled
    keeps its hash.
    """
    global _refused, _wanted
    _refused = _wanted = False
    _remove_finder()
    while _applied:
        module, path, original, replacement = _applied.pop()
        for owner, attribute in _places(module, path):
            # Somebody else may have patched it since, and theirs is not ours to remove.
            if vars(owner).get(attribute) is not replacement:
                continue
            if original is _MISSING:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, original)
    for name in _packages({**PATCHES, **RELAX_PATCHES}):
        path = sys.modules[name].__path__
        if _directory(name) in path:
            path.remove(_directory(name))


def is_installed():
    """Whether TVM's modules are patched in this process, or will be when they are imported.

    Returns
    -------
    installed : bool
        False after :func:`uninstall`, with ``TVM_MODEL_HASH=0`` in the environment, and beside
        a TVM of a version that is not supported.
    """
    return not _refused and (_finder is not None or bool(_applied))


class _Finder:
    """A meta path finder that finds nothing itself, and has patched what the others find."""

    def __init__(self):
        self.pending = set(_table()) - set(sys.modules)

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.pending:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            spec = find_spec(fullname, path, target) if find_spec and finder is not self else None
            if spec is not None:
                self.patch_after_exec(spec.loader)
                return spec
        return None

    def patch_after_exec(self, loader):
        # The loader that was found, and not one of ours around it, so that whatever else it
        # offers (source, resources) stays. It is one for each spec, and a spec that was only
        # looked at is never executed.
        exec_module = loader.exec_module

        def exec_and_patch(module):
            del loader.exec_module
            exec_module(module)
            _patch(module)
            self.pending.discard(module.__name__)
            self.pending &= set(_table())  # now that it is known which TVM it is
            if not self.pending and _finder is self:
                _remove_finder()

        loader.exec_module = exec_and_patch


def _remove_finder():
    global _finder
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder = None


def _patch(module):
    """Patch one of TVM's modules. Never raises: TVM without this package beats no TVM."""
    try:
        table = _table()
        if module.__name__ in table:
            _apply(module, *table[module.__name__])
    except Exception as error:
        _warn(
            f"tvm-model-hash could not patch {module.__name__}, which stays as it was "
            f"({type(error).__name__}: {error}). Reinstall it with pip install --force-reinstall "
            "tvm-model-hash, or switch it off with TVM_MODEL_HASH=0 in the environment."
        )


def _table():
    """The patch table for the TVM of this process, and both as long as there is none."""
    global _refused
    if _refused:
        return {}
    if sys.modules.get("tvm") is None:
        return {**PATCHES, **RELAX_PATCHES}
    from .versions import RELAX_TVM_VERSIONS, RELAY_TVM_VERSIONS

    # In TVM 0.19, libinfo has the version before the package has it.
    found = sys.modules["tvm._ffi.libinfo" if "tvm._ffi.libinfo" in sys.modules else "tvm"]
    version = getattr(found, "__version__", "of an unknown version")
    if version in RELAY_TVM_VERSIONS:
        return PATCHES
    if version in RELAX_TVM_VERSIONS:
        return RELAX_PATCHES
    _refused = True
    _warn(
        f"tvm-model-hash does not support TVM {version} and left it unchanged; it supports TVM "
        f"{', '.join(RELAY_TVM_VERSIONS)} (Relay) and {', '.join(RELAX_TVM_VERSIONS)} (Relax). "
        "TVM_MODEL_HASH=0 in the environment switches it off, and this warning too."
    )
    return {}


def _packages(table):
    """The packages of TVM that are imported and that our files extend."""
    integrations = {integration.rpartition(".")[0] for integration, _ in table.values()}
    return ({"tvm.ir"} | integrations) & set(sys.modules)


def _apply(module, integration, replacements):
    import importlib

    # As further directories of TVM's own packages: a file of TVM's own comes first.
    for name in _packages(_table()):
        path = sys.modules[name].__path__
        if _directory(name) not in path:
            path.append(_directory(name))
    source = importlib.import_module(integration)
    for path, name in replacements.items():
        replacement = getattr(source, name)
        owner, attribute = next(_places(module, path))
        original = vars(owner).get(attribute, _MISSING)
        if original is replacement:
            continue
        for owner, attribute in _places(module, path):
            if vars(owner).get(attribute, _MISSING) is original:
                setattr(owner, attribute, replacement)
        _applied.append((module, path, original, replacement))


def _places(module, path):
    # Where an attribute lies: in the module or a class of it, and the copy that TVM's packages
    # make of a module's function (from .onnx import from_onnx).
    scope, _, attribute = path.rpartition(".")
    yield (getattr(module, scope) if scope else module), attribute
    if not scope:
        yield sys.modules[module.__name__.rpartition(".")[0]], attribute


def _directory(package):
    return os.path.join(os.path.dirname(__file__), *package.split("."))


def _warn(message):
    import warnings

    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # warnings are errors here, but import tvm has to work
        sys.stderr.write(f"{message}\n")
