# SPDX-License-Identifier: Apache-2.0
"""The model's identity in compiled code, of either engine.

What TVM compiles is a tree of modules. One more of them, made by TVM for the same target, carries
the record. Whatever TVM does with the tree it does with this one: run it in the process, export it
to a file of any kind, load it in a runtime that knows nothing of it.
"""

import functools
import os
import tempfile

from tvm_model_hash.artifact.record_module import (
    RECORD_FUNCTION,
    Engine,
    Machine,
    c_source,
    llvm_ir,
    names_in,
    payload,
    payload_in_c,
    payload_in_ir,
)
from tvm_model_hash.checking import loadable
from tvm_model_hash.errors import ArtifactError, DuplicateRecordError
from tvm_model_hash.integration import check_hash, get_hash  # noqa: F401 (for a bare module)
from tvm_model_hash.record import Record, conflict
from tvm_model_hash.warning import warn

from .module import Module, enabled, load_module

try:
    from tvm._ffi import get_global_func
except ImportError:
    from tvm_ffi import get_global_func

#: The engine of the TVM that is running. What is one attribute in both has another name in each.
ENGINE = Engine.RELAX if hasattr(Module, "kind") else Engine.RELAY
_KIND, _IMPORTS, _SOURCE = {
    Engine.RELAY: ("type_key", "imported_modules", "get_source"),
    Engine.RELAX: ("kind", "imports", "inspect_source"),
}[ENGINE]


def kind(module):
    """Get what TVM calls a module's kind, or its type key.

    Parameters
    ----------
    module : tvm.runtime.Module
        The module.

    Returns
    -------
    kind : str
    """
    return str(getattr(module, _KIND))


def get_function(module, name, query_imports=False):
    """Get a function of a module.

    Parameters
    ----------
    module : tvm.runtime.Module
        The module.
    name : str
        The function's name.
    query_imports : bool
        Whether those that it imports are asked too.

    Returns
    -------
    function : callable or None
        None if there is no such function.
    """
    try:
        return module.get_function(name, query_imports)
    except AttributeError:
        return None


def get_library_record(module):
    """Get the record in compiled code.

    Parameters
    ----------
    module : tvm.runtime.Module
        A module that was compiled here or loaded, with all that it imports.

    Returns
    -------
    record : tvm_model_hash.Record or None
        The record, None where there is none.

    Raises
    ------
    ArtifactError
        If it lies behind RPC, from where Relay's TVM can't get it.
    DuplicateRecordError
        If there are records of several models, or of several compilations.
    RecordError
        If a record is malformed.
    """
    records = [record for node in _tree(module) if (record := _own_record(node)) is not None]
    for record in records[1:]:
        reason = conflict(records[0], record)
        if reason:
            raise DuplicateRecordError(f"the modules of one library are of {reason}")
    return records[0] if records else None


def has_remote_record(module):
    """Find out whether a module behind RPC has a library with a record.

    Parameters
    ----------
    module : tvm.runtime.Module
        The module.

    Returns
    -------
    has_record : bool
    """
    return _record_function(module) is not None


def get_parameter_names(module):
    """Get the names of the parameters that compiled code needs from outside.

    Parameters
    ----------
    module : tvm.runtime.Module
        The root of what was compiled, in the process that compiled it.

    Returns
    -------
    names : list of str
        Empty where that is not known here, as of what was loaded.
    """
    payloads = filter(None, map(_own_payload, _tree(module)))
    return [name for data in payloads for name in names_in(data)]


def import_record(module, record, names=()):
    """Put a record into compiled code, in place of the one that it may have.

    Parameters
    ----------
    module : tvm.runtime.Module
        The root of what was compiled, in the process that compiled it; it is changed.
    record : tvm_model_hash.Record
        The record.
    names : iterable of str
        Names of the tensors that the code needs from a file of parameters.
    """
    data = payload(record, names)
    if data in [_own_payload(node) for node in _tree(module)]:
        return
    for node in _tree(module):
        imports = list(getattr(node, _IMPORTS))
        others = [child for child in imports if _own_payload(child) is None]
        if len(others) < len(imports):
            node.clear_imports()
            for child in others:
                node.import_module(child)
    compiled = {kind(node): node for node in reversed(_tree(module))}
    if "llvm" in compiled:
        place = compiled["llvm"]
        is_system_lib = place.get_function("__tvm_is_system_module")()
        prefix = place.get_function("__tvm_get_system_lib_prefix")() if is_system_lib else None
        if is_system_lib and prefix is None:
            prefix = ""
        made = _llvm_module(data, str(place.get_function("_get_target_string")()), prefix)
    elif "c" in compiled:
        # For a model that computes nothing TVM has an empty one of this kind.
        place, made = compiled["c"], _c_module(data)
    else:
        if get_library_record(module) != record:
            warn(
                "the compiled code gets no record of its model, and no check of it will pass: it "
                f"has modules of the kinds {', '.join(compiled)}, and a record is put beside code "
                "that TVM compiled with LLVM or to C"
            )
        return
    place.import_module(made)


def refuse_unloadable(deployment, *parts):
    """Refuse parts of a deployment that the running TVM would fail to load.

    Parameters
    ----------
    deployment : tvm_model_hash.checking.deployment.Deployment
        The deployment.
    *parts : tvm_model_hash.checking.parts.Part or None
        What is to be loaded of it.

    Raises
    ------
    UnloadableArtifactError
        If it can't load one of them.
    """
    from tvm import __version__

    present = [part for part in parts if part is not None]
    loadable.refuse_unloadable(deployment.directory, present, __version__, enabled)


def load_copy(path):
    """Load a library from a private copy.

    Parameters
    ----------
    path : str
        The path of the copy, as it is; another name of the same file may mean another library to
        the loader.

    Returns
    -------
    module : tvm.runtime.Module
    """
    if path.endswith(".tar"):
        return load_module(path)
    # load_module would resolve the path, and take the format from its suffix.
    if ENGINE is Engine.RELAY:
        return get_global_func("runtime.ModuleLoadFromFile")(path, "so")
    module = get_global_func("ffi.Module.load_from_file.so")(path, "so")
    get_global_func("ffi.ModuleGlobalsAdd")(module)  # as load_module does
    return module


def _tree(module):
    """A module and all that it imports, each before its imports."""
    nodes = [module]
    for node in nodes:
        if kind(node) != "rpc":  # what that one imports is on the other machine
            nodes += [child for child in getattr(node, _IMPORTS) if child not in nodes]
    return nodes


def _own_record(module):
    if kind(module) in ("library", "rpc"):
        function = _record_function(module)
        if function is None:
            return None
        if ENGINE is Engine.RELAY and kind(module) == "rpc":
            raise ArtifactError(
                "the record of a library behind RPC stays on the other machine; get it by "
                f"session.get_function('runtime.GetFFIString')(module[{RECORD_FUNCTION!r}]())"
            )
        return Record.parse(str(function()))
    data = _own_payload(module)
    return None if data is None else Record.decode(data.partition(b"\n")[0])


def _own_payload(module):
    """The payload of a module that was made here, None of any other."""
    # To ask the module's functions would compile all code of a module of kernels; and that of
    # another machine can't run here. One that was made from text knows no names of functions.
    if kind(module) == "llvm":
        names = get_function(module, "get_func_names")
        return None if names is None or names() else payload_in_ir(getattr(module, _SOURCE)("ll"))
    return payload_in_c(getattr(module, _SOURCE)("c")) if kind(module) == "c" else None


def _record_function(module):
    return get_function(module, RECORD_FUNCTION, query_imports=kind(module) == "rpc")


def _llvm_module(data, target, system_lib_prefix=None):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "record.ll")
        with open(path, "w", encoding="ascii", newline="\n") as file:
            file.write(llvm_ir(data, _machine(target), ENGINE, system_lib_prefix))
        return load_module(path)


def _c_module(data):
    return get_global_func("runtime.CSourceModuleCreate")(c_source(data, ENGINE), "c", [], [])


@functools.cache
def _machine(target):
    from tvm import IRModule
    from tvm.target import Target

    # Of an empty module, because to write the kernels' IR as text takes long if they are large.
    empty = get_global_func("target.build.llvm")(IRModule({}), Target(target))
    return Machine.of_ir(getattr(empty, _SOURCE)("ll"))
