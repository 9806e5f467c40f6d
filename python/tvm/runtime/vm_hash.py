# SPDX-License-Identifier: Apache-2.0
"""The model's identity in a Relay VM executable.

Reading needs what a stock runtime has, ``get_virtual_devices``, and so works on what was loaded
from a file and on a module behind RPC. Writing is done by src/runtime/vm/executable_hash.cc, or,
where that is not built, by rewriting the serialized executable.
"""

import ctypes
import functools
import os
import warnings

from tvm._ffi import get_global_func
from tvm.contrib.utils import TempDirectory

import tvm_model_hash
from tvm_model_hash.errors import ArtifactError, BuildMismatchError, NoHashError
from tvm_model_hash.hash_file import write_hash_file
from tvm_model_hash.vm_header import record_from_listing, rewrite_record

from .module import Module
from .vm import Executable

_SET_RECORD = "runtime.SetExecutableRecord"


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
    if exe.mod.type_key != "VMExecutable":
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


def get_hash(self):
    """Get the hash of the ONNX model that was compiled.

    Returns
    -------
    model_hash : str or None
        SHA-256 of the serialized model, 64 lowercase hexadecimal digits; None if the executable
        carries none.

    Raises
    ------
    tvm_model_hash.RecordError
        If what it carries is malformed.
    """
    record = get_record(self)
    return None if record is None else record.model


def save_hash(self, directory):
    """Write the hash of the ONNX model that was compiled to ``hash.txt``.

    Parameters
    ----------
    directory : str, os.PathLike or tvm.contrib.utils.TempDirectory
        A directory that exists; a ``hash.txt`` in it is replaced.

    Returns
    -------
    path : str
        The path of the file, which holds 64 lowercase hexadecimal digits and nothing else.

    Raises
    ------
    tvm_model_hash.NoHashError
        If the executable carries no hash; nothing is written.
    tvm_model_hash.OutputError
        If the directory does not exist, is none, or cannot be written to.
    """
    model_hash = get_hash(self)
    if model_hash is None:
        raise NoHashError(
            "the executable carries no model hash to save: import its model with "
            "relay.frontend.from_onnx(..., get_hash=True)"
        )
    if isinstance(directory, TempDirectory):
        directory = directory.temp_dir
    return write_hash_file(directory, model_hash)


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
