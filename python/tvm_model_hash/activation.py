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
    "tvm.runtime.params": (
        "tvm.runtime.params_hash",
        {
            "save_param_dict": "save_param_dict",
            "save_param_dict_to_file": "save_param_dict_to_file",
        },
    ),
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
        {"BuildModule.build": "build"},
    ),
    "tvm.relay.backend.executor_factory": (
        "tvm.relay.backend.executor_factory_hash",
        {
            "ExecutorFactoryModule.get_hash": "get_hash",
            "ExecutorFactoryModule.save_hash": "save_hash",
            "ExecutorFactoryModule.check_hash": "check_hash",
        },
    ),
    "tvm.driver.tvmc.main": (
        "tvm.driver.tvmc.main_hash",
        {"_main": "checked_main"},
    ),
    "tvm.relay.quantize.quantize": (
        "tvm.relay.quantize.quantize_hash",
        {"quantize": "quantize"},
    ),
}

RELAX_PATCHES = {
    "tvm.runtime.params": (
        "tvm.runtime.params_hash",
        {
            "save_param_dict": "save_param_dict",
            "save_param_dict_to_file": "save_param_dict_to_file",
        },
    ),
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

# In which a failed activation is told of: by what gets the keyword get_hash, when it is given.
_ENTRANCE = "from_onnx"

# What the code in a library with a record calls, in TVM with Relax.
_RELAX_C_FUNCTIONS = ("TVMFFIStringFromByteArray",)

_finder = None  # ours, as long as it is active
_applied: list = []  # (owner, attribute, original or _MISSING, replacement) of what is patched
_patched: dict = {}  # name of a module of TVM -> the spec of its execution that was patched
_made_for: dict = {}  # the same of the execution that the loaded integration was made for
_faults: dict = {}  # name of a module of TVM -> why it could not be patched
_busy: set = set()  # names of the modules that are being executed or patched
_recognized: tuple = (None, {}, "")  # TVM, its patch table, why it has none
_told = False  # it was said that this version of TVM is not tested
_wanted = os.environ.get("TVM_MODEL_HASH") != "0"  # or what install and uninstall have said since


def start() -> None:
    """Activate, unless the environment variable ``TVM_MODEL_HASH`` is ``0``."""
    if _wanted:
        install()


def install() -> None:
    """Activate in this process.

    Modules of TVM that are imported already are patched now, the others when they are
    imported. Does nothing where it is active already.
    """
    global _finder, _wanted
    _wanted = True
    if _finder is None:
        _finder = _Finder()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _patch_loaded()


def uninstall() -> None:
    """Deactivate in this process: give TVM's modules back what they had.

    A ``from_onnx`` that was imported by name before keeps its keyword, and what was compiled
    keeps its hash.
    """
    global _finder, _wanted
    _wanted = False
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _finder = None
    while _applied:
        owner, attribute, original, replacement = _applied.pop()
        for place in _places(owner):
            # Somebody else may have patched it since, and theirs is not ours to remove.
            if vars(place).get(attribute) is not replacement:
                continue
            if original is _MISSING:
                delattr(place, attribute)
            else:
                setattr(place, attribute, original)
    for name in _packages(_both()):
        path = sys.modules[name].__path__
        if _directory(name) in path:
            path.remove(_directory(name))
    _patched.clear()
    _faults.clear()


def is_installed() -> bool:
    """Whether TVM's modules are patched in this process, or will be when they are imported.

    What another importer has loaded is patched first, where it was not yet.

    Returns
    -------
    installed : bool
        False after :func:`uninstall`, with ``TVM_MODEL_HASH=0`` in the environment, and beside
        a TVM that can't be patched. Also False where something else has replaced what was patched.
    """
    if _finder not in sys.meta_path:
        return False
    _patch_loaded()
    loaded = _loaded()
    if not loaded:
        return True
    table = _table()
    return not (_recognized[2] or _faults) and all(
        _is_in_place(sys.modules[name], *table[name]) for name in loaded if name in table
    )


def require() -> None:
    """Make sure that the TVM of this process does all that ``get_hash=True`` promises.

    Says once in a process that this version of TVM is not a tested one, where that is so. Does
    nothing where this package is not active.

    Raises
    ------
    UnsupportedTVMError
        If something that is needed of TVM is missing, with what it is.
    """
    global _told
    if _finder is None or sys.modules.get("tvm") is None:
        return
    _patch_loaded()
    from .versions import RELAX_TVM_VERSIONS, RELAY_TVM_VERSIONS

    table = _table()
    faults = [_recognized[2]] if _recognized[2] else [*_faults.values(), *_missing(table)]
    if faults:
        raise _unsupported(faults)
    if not _told and _version() not in RELAY_TVM_VERSIONS + RELAX_TVM_VERSIONS:
        _told = True
        from .warning import warn

        warn(
            f"tvm-model-hash is not tested with TVM {_version()}. Everything that it needs is "
            f"there; what it is tested with is TVM {_tested()}."
        )


def is_hash_default() -> bool:
    """Whether ``from_onnx`` takes the hash where it is not told to, by ``TVM_MODEL_HASH=import``.

    Returns
    -------
    is_default : bool
    """
    return os.environ.get("TVM_MODEL_HASH") == "import"


class _Finder:
    """A meta path finder that finds nothing itself, and has patched what the others find.

    It stays when all is patched: for :func:`importlib.reload`, and because who takes a finder out
    of ``sys.meta_path`` makes an import in another thread miss one of the others.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tvm" and fullname not in PATCHES and fullname not in RELAX_PATCHES:
            if sys.modules.get("tvm") is not None:
                _catch_up()
            return None
        spec = _find(fullname, path, target)
        if hasattr(getattr(spec, "loader", None), "exec_module"):
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """The loader that was found, after which TVM's module is patched.

    One around it, because a loader may be one of many modules, or not let itself be changed.
    """

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(vars(self).get("_loader"), name)

    def exec_module(self, module):
        # From here on it is as if this loader had never been.
        if module.__spec__.loader is self:
            module.__spec__.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        name = module.__spec__.name
        _busy.add(name)
        try:
            self._loader.exec_module(module)
        finally:
            _busy.discard(name)
        if _finder is not None:
            if name != "tvm":
                _patch(module)
            _patch_loaded()


def _find(fullname, path=None, target=None):
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec(fullname, path, target) if find_spec and finder is not _finder else None
        if spec is not None:
            return spec
    return None


def _catch_up():
    """Patch what an importer that comes before ours has loaded, and come before it from now on."""
    if _finder in sys.meta_path and sys.meta_path[0] is not _finder:
        # In one step, by which the others only move back: imports in other threads miss none.
        sys.meta_path[:] = [_finder, *(other for other in sys.meta_path if other is not _finder)]
    # Another thread's import of TVM is not ours to meddle with.
    if not _is_initializing(sys.modules["tvm"]):
        _patch_loaded()


def _is_initializing(module):
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _loaded():
    """The names of the modules to patch that are imported, beside a TVM that is."""
    if sys.modules.get("tvm") is None:
        return []
    return [
        name
        for name in _both()
        if sys.modules.get(name) is not None
        and name not in _busy
        and not _is_initializing(sys.modules[name])
    ]


def _patch_loaded():
    for name in _loaded():
        _patch(sys.modules[name])


def _patch(module):
    """Patch one of TVM's modules. Never raises: TVM without this package beats no TVM."""
    spec = getattr(module, "__spec__", None)
    name = getattr(spec, "name", None)
    # Executed again, a module has a new spec. Whatever others do after the patch is theirs.
    if sys.modules.get("tvm") is None or name in _busy or _patched.get(name) is spec:
        return
    _busy.add(name)
    try:
        _faults.pop(name, None)
        table = _table()
        if name in table:
            _apply(module, *table[name])
        elif _recognized[2]:
            _refuse(module, _recognized[2])
    except Exception as error:
        # Nobody may want a hash, so it is told who asks for one.
        _faults[name] = (
            str(error)
            if isinstance(error, _MissingError)
            else f"{name}: {type(error).__name__}: {error}"
        )
        _refuse(module, _faults[name])
    finally:
        _patched[name] = spec
        _busy.discard(name)


class _MissingError(Exception):
    """Something that is needed of TVM is missing."""


def _both():
    return {**PATCHES, **RELAX_PATCHES}


def _table():
    """The patch table for the TVM of this process."""
    global _recognized
    tvm = sys.modules.get("tvm")
    if _recognized[0] is not tvm:
        _recognized = (tvm, *_recognize(tvm))
    return _recognized[1]


def _recognize(tvm):
    """Which patch table fits a TVM, and why none does."""
    from .versions import RELAY_TVM_RELEASES, is_relay_version

    first, last = RELAY_TVM_RELEASES[0], RELAY_TVM_RELEASES[-1]
    if _find("tvm.relay", tvm.__path__):
        if is_relay_version(_version()):
            return PATCHES, ""
        return {}, f"the layout of its VM executables is not known; it is for TVM {first} to {last}"
    if "tvm_ffi" in sys.modules:
        return RELAX_PATCHES, ""
    return {}, (
        f"it has neither the package tvm.relay, as TVM {first} to {last}, nor tvm_ffi, as TVM "
        "0.25 and later"
    )


def _version():
    # In TVM 0.19, libinfo has the version before the package has it.
    found = sys.modules["tvm._ffi.libinfo" if "tvm._ffi.libinfo" in sys.modules else "tvm"]
    return str(getattr(found, "__version__", "of an unknown version"))


def _tested():
    from .versions import RELAX_TVM_VERSIONS, RELAY_TVM_VERSIONS

    return f"{', '.join(RELAY_TVM_VERSIONS)} (Relay) and {', '.join(RELAX_TVM_VERSIONS)} (Relax)"


def _unsupported(faults):
    from .errors import UnsupportedTVMError

    return UnsupportedTVMError(
        f"get_hash=True does not work with this TVM {_version()}: {'; '.join(faults)}. "
        f"tvm-model-hash is tested with TVM {_tested()}: if yours is one of these, reinstall it "
        "with pip install --force-reinstall tvm-model-hash"
    )


def _refuse(module, fault):
    """Let the importer say what is wrong when it is asked for a hash, and not before."""
    original = vars(module).get(_ENTRANCE)
    if original is None or _ENTRANCE not in {path for _, t in _tables_of(module) for path in t}:
        return
    import functools

    @functools.wraps(original)
    def refusing(*args, **kwargs):
        get_hash = kwargs.pop("get_hash", None)
        if is_hash_default() if get_hash is None else get_hash:
            raise _unsupported([fault])
        return original(*args, **kwargs)

    _set(module, _ENTRANCE, original, refusing)


def _tables_of(module):
    return [t[module.__name__] for t in (PATCHES, RELAX_PATCHES) if module.__name__ in t]


def _missing(table):
    """What is needed of TVM besides what was patched, and is not there."""
    for name in table:
        package = name
        while package not in sys.modules:
            child, package = package, package.rpartition(".")[0]
            # A module that is there is patched when it is imported.
            if package in sys.modules and not _find(child, sys.modules[package].__path__):
                yield f"it has no module {child}"
    if table is RELAX_PATCHES:
        library = getattr(sys.modules["tvm_ffi"], "LIB", None)
        for function in _RELAX_C_FUNCTIONS:
            if not hasattr(library, function):
                yield f"the library of tvm_ffi has no function {function}"


def _packages(table):
    """The packages of TVM that are imported and that our files extend."""
    integrations = {integration.rpartition(".")[0] for integration, _ in table.values()}
    return ({"tvm.ir"} | integrations) & set(sys.modules)


def _apply(module, integration, replacements):
    # As further directories of TVM's own packages: a file of TVM's own comes first.
    for name in _packages(_table()):
        path = sys.modules[name].__path__
        if _directory(name) not in path:
            path.append(_directory(name))
    for path in replacements:
        if _place(module, path)[0] is None:
            raise _MissingError(f"{module.__name__} has no {path.rpartition('.')[0]}")
    source = _integration(module, integration)
    found = []
    for path, name in replacements.items():
        replacement = getattr(source, name)
        owner, attribute = _place(module, path)
        original = vars(owner).get(attribute, _MISSING)
        if original is not replacement:
            _probe(module, path, getattr(owner, attribute, None), replacement)
            found.append((owner, attribute, original, replacement))
    for patch in found:
        _set(*patch)


def _integration(module, name):
    """Import an integration, again where TVM's module was executed again."""
    import importlib

    spec = module.__spec__
    again = name in sys.modules and _made_for.get(spec.name, spec) is not spec
    source = importlib.reload(sys.modules[name]) if again else importlib.import_module(name)
    _made_for[spec.name] = spec
    return source


def _probe(module, path, original, replacement):
    """Check that what is replaced takes what the replacement hands on to it."""
    function = getattr(replacement, "__func__", replacement)
    if not hasattr(function, "__wrapped__"):
        return  # it is new
    if not callable(original):
        raise _MissingError(f"{module.__name__} has no {path}")
    import inspect

    code = function.__code__
    needed = code.co_varnames[: code.co_argcount - len(function.__defaults__ or ())]
    parameters = inspect.signature(original).parameters
    if tuple(parameters)[: len(needed)] != needed:
        raise _MissingError(
            f"{module.__name__}.{path} has the parameters ({', '.join(parameters)}), expected "
            f"({', '.join(needed)}) to be the first"
        )


def _set(owner, attribute, original, replacement):
    # Where a module was reloaded, its package still has what was set before.
    stale = [new for where, name, _, new in _applied if where is owner and name == attribute]
    for place in _places(owner):
        found = vars(place).get(attribute, _MISSING)
        if any(found is known for known in (original, *stale)):
            setattr(place, attribute, replacement)
    _applied.append((owner, attribute, original, replacement))


def _is_in_place(module, integration, replacements):
    source = sys.modules.get(integration)
    if source is None:
        return False
    for path, name in replacements.items():
        owner, attribute = _place(module, path)
        found = None if owner is None else vars(owner).get(attribute)
        # Others may have wrapped it.
        while found is not None and found is not getattr(source, name):
            found = getattr(found, "__wrapped__", None)
        if found is None:
            return False
    return True


def _place(module, path):
    """The module, or the class of it, that has an attribute, and that one's name."""
    scope, _, attribute = path.rpartition(".")
    return (getattr(module, scope, None) if scope else module), attribute


def _places(owner):
    yield owner
    if isinstance(owner, type(sys)):
        # The package has a copy of the module's function (from .onnx import from_onnx).
        yield sys.modules[owner.__name__.rpartition(".")[0]]


def _directory(package):
    return os.path.join(os.path.dirname(__file__), *package.split("."))
