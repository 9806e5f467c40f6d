# SPDX-License-Identifier: Apache-2.0
"""The model's identity in a Relay VM executable.

Reading needs what a stock runtime has, ``get_virtual_devices``, and so works on what was loaded
from a file and on a module behind RPC. Writing is done by src/runtime/vm/executable_hash.cc, or,
where that is not built, by rewriting the serialized executable.
"""

import ctypes
import dataclasses
import functools
import os
import warnings

from tvm._ffi import get_global_func

import tvm_model_hash
from tvm_model_hash import integration
from tvm_model_hash.artifact.record_io import read_record
from tvm_model_hash.artifact.tensor_list import trailer
from tvm_model_hash.artifact.vm_header import record_from_listing, rewrite_record
from tvm_model_hash.checking import verdict
from tvm_model_hash.checking.deployment import CODE_NAME, CONSTANTS_NAME, LIBRARY_NAME, Deployment
from tvm_model_hash.errors import (
    ArtifactError,
    BuildMismatchError,
    HashConflictError,
)
from tvm_model_hash.files import new_directory
from tvm_model_hash.integration import directory_path, get_hash, no_hash, save_hash

from .module import Module, load_module
from .vm import Executable, VirtualMachine

_SET_RECORD = "runtime.SetExecutableRecord"

check_hash = integration.check_hash  # a parameter below has this name too

_move_late_bound_consts = Executable.move_late_bound_consts
_load_late_bound_consts = Executable.load_late_bound_consts


def get_record(exe):
    """Get the record that a VM executable carries.

    Parameters
    ----------
    exe : Executable, VirtualMachine or tvm.runtime.Module
        The executable, local or remote.

    Returns
    -------
    record : tvm_model_hash.Record or None
        The record, None where there is none.

    Raises
    ------
    ArtifactError
        If this is not a VM executable.
    RecordError
        If the record is malformed, or there are several.
    """
    mod = getattr(exe, "_exec", exe)
    mod = getattr(mod, "mod", mod)
    if not isinstance(mod, Module):
        raise ArtifactError(
            f"expected an Executable, a VirtualMachine or a Module, found {type(exe).__name__}"
        )
    try:
        listing = mod["get_virtual_devices"]()
    except AttributeError as error:
        raise ArtifactError(
            f"the module of type {mod.type_key!r} is not a VM executable, which has the function "
            "'get_virtual_devices'"
        ) from error
    return record_from_listing(listing)


def set_record(exe, record):
    """Put a record into a VM executable, in place of the one it may have.

    Parameters
    ----------
    exe : Executable
        The executable.
    record : tvm_model_hash.Record
        The identities of the model that it was compiled from.

    Returns
    -------
    exe : Executable
        The same executable, changed in place; or, where the C++ library is missing, another one
        with the same content, for which the executable is serialized once.

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
    write = _writer()
    if write is None:
        code, lib = exe.save()
        return Executable.load_exec(rewrite_record(code, record), lib)
    write(exe.mod, str(record))
    # The library reaches into a C++ object by the layout it was built with. That TVM itself
    # finds the record there is what shows that its own layout is the same.
    if get_record(exe) != record:
        raise BuildMismatchError(
            f"TVM does not see the record that {_library_path()} has written, because the "
            "library was built for another TVM than the running one: build it again with "
            "pip install --force-reinstall --no-cache-dir tvm-model-hash"
        )
    return exe


@functools.wraps(_move_late_bound_consts)
def move_late_bound_consts(self, path, byte_limit):
    _move_late_bound_consts(self, path, byte_limit)
    # Behind RPC the path is one of the other machine, where the file stays as TVM wrote it.
    record = get_record(self) if _is_local(self) else None
    if record is not None:
        with open(path, "ab") as file:
            file.write(trailer(record))


@functools.wraps(_load_late_bound_consts)
def load_late_bound_consts(self, path, check_hash=True):
    if check_hash and _is_local(self):
        record = get_record(self)
        constants = None if record is None else read_record(path)
        if constants is not None:
            found = verdict.compare(record, constants)
            reason = f"the constants in {os.fspath(path)!r}: {found.reason}"
            dataclasses.replace(found, reason=reason).require()
    _load_late_bound_consts(self, path)


def save(vm_exec, directory, byte_limit=None):
    """Save a whole deployment: all of it, or nothing.

    The directory is laid out as ONNX Runtime's TVM provider reads it: ``lib.so``, ``code.ro``,
    ``hash.txt``, and ``consts`` with late-bound constants.

    Parameters
    ----------
    vm_exec : Executable
        An executable with a hash.
    directory : str, os.PathLike or tvm.contrib.utils.TempDirectory
        The directory to make; an empty one that exists is replaced.
    byte_limit : int, optional
        Constants of this size in bytes or more are bound late. By default they all stay in
        ``code.ro``.

    Returns
    -------
    directory : str
        The path of the directory.

    Raises
    ------
    tvm_model_hash.NoHashError
        If the executable carries no hash.
    tvm_model_hash.OutputError
        If the directory is not empty, or cannot be written.
    """
    if get_hash(vm_exec) is None:
        raise no_hash()
    with new_directory(directory_path(directory)) as temporary:
        constants = os.path.join(temporary, CONSTANTS_NAME)
        if byte_limit is not None:
            move_late_bound_consts(vm_exec, constants, byte_limit)
        try:
            code, lib = vm_exec.save()
            with open(os.path.join(temporary, CODE_NAME), "wb") as file:
                file.write(code)
            lib.export_library(os.path.join(temporary, LIBRARY_NAME))
            save_hash(vm_exec, temporary)
        finally:
            if byte_limit is not None:
                # The executable goes on working as it did before.
                _load_late_bound_consts(vm_exec, constants)
    return directory_path(directory)


def load(directory, device, expected, memory_cfg=None):
    """Check a deployment against a model, and only then load it.

    No native code of a deployment that is refused is loaded.

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
        As for ``VirtualMachine``.

    Returns
    -------
    vm : VirtualMachine
        Ready to run.

    Raises
    ------
    tvm_model_hash.ModelHashMismatch
        If the deployment is not of that model.
    tvm_model_hash.HashConflictError
        If no model is expected, and the parts are of different ones.
    tvm_model_hash.BrokenSealError
        If a sealed file was changed.
    tvm_model_hash.ModelHashError
        If the deployment or the model cannot be read.
    """
    deployment = Deployment.read(directory_path(directory))
    if expected is not None:
        verdict.check(expected, deployment).require()
    elif deployment.disagreement:
        raise HashConflictError(f"{deployment.directory!r}: {deployment.disagreement}")
    library = load_module(deployment.library)
    if deployment.code is None:
        vm_exec = Executable(library)
    else:
        with open(deployment.code, "rb") as file:
            vm_exec = Executable.load_exec(file.read(), library)
    if deployment.constants is not None:
        load_late_bound_consts(vm_exec, deployment.constants)
    return VirtualMachine(vm_exec, device, memory_cfg)


@verdict.read.register(Executable)
@verdict.read.register(VirtualMachine)
@verdict.read.register(Module)
def _read(artifact):
    record = get_record(artifact)
    exe = getattr(artifact, "_exec", artifact)
    exe = exe if isinstance(exe, Executable) else Executable(exe)
    return verdict.Found(record, lambda: exe.get_function_params("main"))


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
            warnings.warn(
                f"{path} does not fit the running TVM ({error}), and executables are rewritten in "
                "Python instead, which takes a copy in memory. Build it again for this TVM: "
                "pip install --force-reinstall --no-cache-dir tvm-model-hash",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
    return get_global_func(_SET_RECORD)
