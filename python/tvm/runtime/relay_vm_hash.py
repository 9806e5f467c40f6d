# SPDX-License-Identifier: Apache-2.0
"""The model's identity in a Relay VM executable.

Reading needs what a stock runtime has, ``get_virtual_devices``, and so works on what was loaded
from a file and on a module behind RPC. Writing is done by src/runtime/vm/executable_hash.cc, or,
where that is not built, by rewriting the serialized executable.
"""

import ctypes
import functools
import os
import struct
from contextlib import contextmanager

from tvm._ffi import get_global_func

import tvm_model_hash
from tvm_model_hash import integration
from tvm_model_hash.artifact.carrier import Role
from tvm_model_hash.artifact.graph_json import record_in_graph
from tvm_model_hash.artifact.record_io import read_artifact
from tvm_model_hash.artifact.tensor_list import trailer
from tvm_model_hash.artifact.vm_header import record_from_listing, rewrite_record
from tvm_model_hash.checking import verdict
from tvm_model_hash.checking.deployment import CODE_NAME, CONSTANTS_NAME, LIBRARY_NAME
from tvm_model_hash.errors import ArtifactError, BuildMismatchError
from tvm_model_hash.files import replacing
from tvm_model_hash.integration import (
    checked_deployment,
    directory_path,
    get_hash,
    new_deployment,
    require_same,
    save_hash,
)
from tvm_model_hash.record import conflict
from tvm_model_hash.warning import warn

from .library_hash import (
    get_function,
    get_library_record,
    has_remote_record,
    import_record,
    load_copy,
    refuse_unloadable,
)
from .module import Module
from .params import save_param_dict
from .relay_graph_hash import is_loadable, load_parts, write_parts
from .vm import Executable, VirtualMachine

__all__ = ["get_hash", "save_hash"]  # methods, too

RELAY_VM_KIND = "Relay VM executable"

_SET_RECORD = "runtime.SetExecutableRecord"

# Not again the wheel that was built elsewhere for another TVM.
_BUILD = "pip install --force-reinstall --no-cache-dir --no-binary tvm-model-hash tvm-model-hash"

check_hash = integration.check_hash  # a parameter below has this name too

_load_exec = Executable.load_exec
_move_late_bound_consts = Executable.move_late_bound_consts
_get_late_bound_consts = Executable.get_late_bound_consts
_load_late_bound_consts = Executable.load_late_bound_consts
_load_late_bound_consts_from_map = Executable.load_late_bound_consts_from_map


def get_record(exe):
    """Get the record that a VM executable or a library carries.

    Parameters
    ----------
    exe : Executable, VirtualMachine or tvm.runtime.Module
        The executable, local or remote, or the module of a library.

    Returns
    -------
    record : tvm_model_hash.Record or None
        The record, None where there is none. Of an executable it is that of its code.

    Raises
    ------
    ArtifactError
        If this is none of these.
    RecordError
        If the record is malformed, or there are several.
    """
    mod = _module(exe)
    list_devices = get_function(mod, "get_virtual_devices")
    if list_devices is not None:
        return record_from_listing(list_devices())
    # A graph's record can be had from another machine too, which its library's can't.
    graph = _graph_record(mod) if _is_remote(mod) else None
    return get_library_record(mod) if graph is None else graph


def set_record(exe, record):
    """Put a record into a VM executable and its kernels, in place of the one they may have.

    Parameters
    ----------
    exe : Executable
        The executable; it is changed. Where the C++ library is missing, it is serialized once.
    record : tvm_model_hash.Record
        The record.

    Returns
    -------
    exe : Executable
        The same executable.

    Raises
    ------
    ArtifactError
        If the executable is not one of this process, but one behind RPC for example.
    BuildMismatchError
        If the C++ library was built for another TVM.
    """
    if not _is_local(exe):
        raise ArtifactError(
            f"a record can be set in a local VM executable only, not in a module of type "
            f"{exe.mod.type_key!r}"
        )
    for library in exe.mod.imported_modules:
        import_record(library, record.with_fields(record.build))
    _write_record(exe, record)
    return exe


def _write_record(exe, record):
    """Put a record into the code alone."""
    write = _writer()
    if write is None:
        code, lib = exe.save()
        vars(exe).update(vars(_load_exec(rewrite_record(code, record), lib)))
        return
    write(exe.mod, str(record))
    # The library reaches into a C++ object by the layout it was built with. That TVM itself
    # finds the record there is what shows that its own layout is the same.
    if get_record(exe) != record:
        raise BuildMismatchError(
            f"TVM does not see the record that {_library_path()} has written, because the "
            f"library was built for another TVM than the running one: build it again with {_BUILD}"
        )


@functools.wraps(_load_exec)
def _checked_load_exec(bytecode, lib):
    exe = _load_exec(bytecode, lib)
    reason = _disagreement(exe)
    if reason:
        record, other = get_record(exe), get_library_record(lib)
        raise verdict.ModelHashMismatch(
            verdict.Verdict(verdict.Status.MISMATCH, record, other, reason)
        )
    return exe


load_exec = staticmethod(_checked_load_exec)


@functools.wraps(_move_late_bound_consts)
def move_late_bound_consts(self, path, byte_limit):
    # Behind RPC the path is one of the other machine, where the file stays as TVM wrote it.
    record = get_record(self) if _is_local(self) else None
    if record is None:
        _move_late_bound_consts(self, path, byte_limit)
        return
    # TVM's own function drops the constants while it writes them, whether that succeeds or not.
    constants = _get_late_bound_consts(self, byte_limit)
    try:
        with replacing(os.fspath(path)) as file:
            for data in _tensor_list(constants):
                file.write(data)
            file.write(trailer(record.with_fields(record.build)))
            _write_record(self, record.with_fields(record.build, len(constants)))
    except BaseException:
        if len(constants):
            _load_late_bound_consts_from_map(self, constants)
        _write_record(self, record)
        raise


def _tensor_list(tensors):
    """What ``save_param_dict`` would give, a tensor at a time: constants may be large."""
    names = [str(name) for name in tensors]
    # Of one tensor: magic number and reserved bytes; 1, its name; 1, the tensor itself.
    lists = (bytes(save_param_dict({name: tensors[name]})) for name in names)
    head = bytes(save_param_dict({}))[:16]
    strings = (struct.pack("<Q", len(name.encode())) + name.encode() for name in names)
    count = struct.pack("<Q", len(names))
    yield b"".join([head, count, *strings, count])
    for name, data in zip(names, lists, strict=True):
        yield memoryview(data)[16 + 8 + 8 + len(name.encode()) + 8 :]


@functools.wraps(_get_late_bound_consts)
def get_late_bound_consts(self, byte_limit):
    constants = _get_late_bound_consts(self, byte_limit)  # which takes them off the executable
    record = get_record(self) if _is_local(self) else None
    if record is not None:
        _write_record(self, record.with_fields(record.build, len(constants)))
    return constants


@functools.wraps(_load_late_bound_consts)
def load_late_bound_consts(self, path, check_hash=True):
    record = get_record(self) if _is_local(self) else None
    if record is None:
        _load_late_bound_consts(self, path)
        return
    constants = read_artifact(path)
    if check_hash and constants.record is not None:
        reason = conflict(record, constants.record)
        if reason:
            raise verdict.ModelHashMismatch(
                verdict.Verdict(
                    verdict.Status.MISMATCH,
                    record,
                    constants.record,
                    f"the executable and the constants in {os.fspath(path)!r} are of {reason}",
                )
            )
    is_known = not check_hash or constants.record is not None
    with _unknown_constants(self, record, 0 if is_known else len(constants.tensors)):
        _load_late_bound_consts(self, path)


@functools.wraps(_load_late_bound_consts_from_map)
def load_late_bound_consts_from_map(self, map, check_hash=True):
    record = get_record(self) if _is_local(self) else None
    if record is None:
        _load_late_bound_consts_from_map(self, map)
        return
    # Arrays say nothing of the model that they are of.
    with _unknown_constants(self, record, len(map) if check_hash else 0):
        _load_late_bound_consts_from_map(self, map)


@contextmanager
def _unknown_constants(exe, record, count):
    """Say in the record how many constants that get bound are not known to be the model's.

    Whoever binds them in another way leaves there what :func:`move_late_bound_consts` wrote.
    """
    changed = record.params != count
    if changed:
        # Before they are bound, while the executable is small: it may have to be serialized.
        _write_record(exe, record.with_fields(record.build, count))
    try:
        yield
    except BaseException:
        if changed:
            _write_record(exe, record)
        raise


def save(
    vm_exec,
    directory,
    byte_limit=None,
    *,
    library=LIBRARY_NAME,
    overwrite=False,
    seal=True,
    **export_options,
):
    """Save a whole deployment: all of it, or nothing.

    The directory is laid out as ONNX Runtime's TVM provider reads it: ``lib.so``, ``code.ro``,
    ``hash.txt``, and ``consts`` with late-bound constants. That of a graph executor has
    ``lib.so``, ``graph.json``, ``params`` and ``hash.txt``; of AOT, ``lib.so`` and ``hash.txt``.

    Parameters
    ----------
    vm_exec : Executable or tvm.relay.backend.executor_factory.ExecutorFactoryModule
        An executable with a hash, or what ``relay.build`` returned.
    directory : str, os.PathLike or tvm.contrib.utils.TempDirectory
        The directory to make, and those above it; an empty one that exists is replaced.
    byte_limit : int, optional
        Constants of this size in bytes or more are bound late. By default they all stay in
        ``code.ro``. Of a virtual machine only: a graph's parameters have a file anyway.
    library : str
        The name of the library's file.
    overwrite : bool
        Whether a deployment that is there is replaced; what else is there never is.
    seal : bool
        Whether the directory gets a manifest, ``SHA256SUMS``.
    **export_options
        As for ``Module.export_library``: ``fcompile``, and what that takes.

    Returns
    -------
    directory : str
        The path of the directory.

    Raises
    ------
    tvm_model_hash.NoHashError
        If the executable carries no hash.
    tvm_model_hash.HashConflictError
        If the parts of a factory are not known to be of one model.
    tvm_model_hash.OutputError
        If the directory is not empty, or cannot be written.
    """
    is_vm = isinstance(vm_exec, Executable)
    if not is_vm and byte_limit is not None:
        raise ArtifactError(
            "byte_limit is for the constants of a VM executable: the parameters of a graph lie in "
            "a file of their own without it, and those of AOT in the library"
        )
    with new_deployment(vm_exec, directory, overwrite, seal) as temporary:
        if not is_vm:
            write_parts(vm_exec, temporary, library, export_options)
            return directory_path(directory)
        constants = os.path.join(temporary, CONSTANTS_NAME)
        if byte_limit is not None:
            move_late_bound_consts(vm_exec, constants, byte_limit)
        try:
            code, lib = vm_exec.save()
            with open(os.path.join(temporary, CODE_NAME), "wb") as file:
                file.write(code)
            lib.export_library(os.path.join(temporary, library), **export_options)
        finally:
            if byte_limit is not None:
                # The executable goes on working as it did before.
                load_late_bound_consts(vm_exec, constants)
    return directory_path(directory)


def load(directory, device, expected, memory_cfg=None):
    """Check a deployment against a model, and only then load it.

    No native code of a deployment that is refused is loaded, and what is loaded is what was
    checked, whoever writes to the directory meanwhile.

    Parameters
    ----------
    directory : str, os.PathLike or tvm.contrib.utils.TempDirectory
        A directory as :func:`save` writes it.
    device : tvm.runtime.Device or list of tvm.runtime.Device
        The device or devices to run on.
    expected : onnx.ModelProto, tvm_model_hash.Record, str or os.PathLike, or None
        The model, as for :func:`check_hash`. None means: of whichever model it is, as long as its
        parts are of one.
    memory_cfg : str or dict, optional
        As for ``VirtualMachine``. The other executors have none.

    Returns
    -------
    vm : VirtualMachine, GraphModule or AotModule
        Ready to run.

    Raises
    ------
    tvm_model_hash.ModelHashMismatch
        If the deployment is not of that model.
    tvm_model_hash.HashConflictError
        If no model is expected, and the parts are of different ones.
    tvm_model_hash.BrokenSealError
        If a sealed file was changed.
    tvm_model_hash.UnloadableArtifactError
        If the running TVM can't load a part: it is for another machine, or of another TVM.
    tvm_model_hash.ModelHashError
        If the deployment or the model cannot be read.
    """
    with checked_deployment(directory, expected) as deployment:
        if is_loadable(deployment.parts[0]):
            return load_parts(deployment, device)
        executable = deployment.only(Role.EXECUTABLE)
        kernels = deployment.only(Role.KERNELS)
        constants = deployment.only(Role.PARAMETERS)
        if executable is None or executable.artifact.kind != RELAY_VM_KIND:
            found = deployment.parts[0]
            raise ArtifactError(
                f"{found.name!r} in {deployment.directory!r} is a {found.artifact.kind}, expected "
                f"a {RELAY_VM_KIND}, a graph executor or AOT"
            )
        refuse_unloadable(deployment, executable, kernels)
        code = deployment.files[executable.name]
        if kernels is None:
            vm_exec = Executable(load_copy(code))
        else:
            library = load_copy(deployment.files[kernels.name])
            with open(code, "rb") as file:
                vm_exec = _checked_load_exec(file.read(), library)
        if constants is not None:
            # They have been compared, or are covered by the seal.
            load_late_bound_consts(vm_exec, deployment.files[constants.name], check_hash=False)
        require_same(get_record(vm_exec), deployment)
        return VirtualMachine(vm_exec, device, memory_cfg)


@verdict.read.register(Executable)
@verdict.read.register(VirtualMachine)
@verdict.read.register(Module)
def _read(artifact):
    record = get_record(artifact)
    exe = getattr(artifact, "_exec", artifact)
    mod = _module(exe)
    if get_function(mod, "get_graph_json") is not None:
        return verdict.Found(
            record,
            lambda: None,
            record and _graph_disagreement(mod),
            record and _unknown_graph(mod),
        )
    if get_function(mod, "get_virtual_devices") is None:
        return verdict.Found(record, lambda: None)
    exe = exe if isinstance(exe, Executable) else Executable(exe)
    return verdict.Found(
        record,
        lambda: exe.get_function_params("main"),
        record and _disagreement(exe),
        record and _unknown(exe, record),
    )


def _graph_record(mod):
    """The record in the graph of a library for the graph executor, None without one."""
    get_graph = get_function(mod, "get_graph_json")
    return None if get_graph is None else record_in_graph(str(get_graph()))


def _graph_disagreement(mod):
    record, other = _graph_record(mod), None if _is_remote(mod) else get_library_record(mod)
    reason = conflict(record, other) if record and other else None
    return reason and f"the graph and its library are of {reason}"


def _unknown_graph(mod):
    known = has_remote_record(mod) if _is_remote(mod) else get_library_record(mod)
    missing = "library" if not known else "graph" if _graph_record(mod) is None else None
    if missing:
        return (
            f"nothing says which model the {missing} is of: compile the model again with "
            "get_hash=True, and save all parts"
        )
    if not _is_remote(mod):
        count = known.params - len(mod["get_graph_params"]())
        if count > 0:
            return (
                f"{count} of the graph's parameters {'is' if count == 1 else 'are'} not in the "
                "library, and nothing says here of which model: vm_hash.load compares the record "
                "in the file of the parameters"
            )
    return None


def _is_remote(mod):
    return mod.type_key == "rpc"


def _disagreement(exe):
    """What says that code and kernels don't belong together, None if nothing does."""
    record, other = get_record(exe), get_library_record(exe.mod) if _is_local(exe) else None
    reason = conflict(record, other) if record and other else None
    return reason and f"the executable's code and its library are of {reason}"


def _unknown(exe, record):
    # Of a library behind RPC it is known only whether it has a record; it came with the code.
    known = get_library_record(exe.mod) if _is_local(exe) else has_remote_record(exe.mod)
    if not known:
        return (
            "nothing says which model the executable's library is of: compile the model again "
            "with get_hash=True, and save both parts"
        )
    if record.params:
        return (
            f"nothing says which model {record.params} constants of the executable are of: "
            "load_late_bound_consts compares the record in their file"
        )
    return None


def _module(exe):
    mod = getattr(exe, "_exec", exe)
    mod = getattr(mod, "mod", mod)
    if not isinstance(mod, Module):
        raise ArtifactError(
            f"expected an Executable, a VirtualMachine or a Module, found {type(exe).__name__}"
        )
    return mod


def _is_local(exe):
    return exe.mod.type_key == "VMExecutable"


def _library_path():
    # CMake gives a module this ending on macOS too.
    return os.path.join(os.path.dirname(tvm_model_hash.__file__), "lib", "libtvm_model_hash.so")


@functools.cache
def _writer():
    """The C++ writer, None where it was not built."""
    # In a TVM that was built with executable_hash.cc it is there already.
    if get_global_func(_SET_RECORD, allow_missing=True) is None:
        path = _library_path()
        if not os.path.exists(path):
            return None
        try:
            # TVM's own library is loaded with global symbols, which this one refers to.
            ctypes.CDLL(path)
        except OSError as error:
            warn(
                f"{path} does not fit the running TVM ({error}), and executables are rewritten in "
                "Python instead, which takes a copy in memory. Build it again for this TVM: "
                f"{_BUILD}"
            )
            return None
    return get_global_func(_SET_RECORD)
