# SPDX-License-Identifier: Apache-2.0
"""The model's identity in the libraries of TVM 0.25 and later.

A library carries it in two functions, which a runtime that knows nothing of it calls by their
names, and in a constant, which tvm_model_hash reads from the file. In the process that compiles
it is an attribute of the module in Python.
"""

import functools
import os
import tempfile

from tvm_model_hash.artifact.library_record import RECORD_FUNCTION, source
from tvm_model_hash.artifact.tvm_library import RECORD_SOURCE_NAME
from tvm_model_hash.checking import verdict
from tvm_model_hash.errors import ArtifactError
from tvm_model_hash.integration import check_hash, get_hash  # noqa: F401 (for a bare module)
from tvm_model_hash.record import Record

from .module import Module

_ATTRIBUTE = "_model_hash_record"

_export_library = Module.export_library


def get_record(artifact):
    """Get the record that a compiled or loaded module carries.

    Parameters
    ----------
    artifact : tvm.runtime.Executable, tvm.runtime.vm.VirtualMachine or tvm.runtime.Module
        The module, local or remote, or what holds it.

    Returns
    -------
    record : tvm_model_hash.Record or None
        The record, None where there is none.

    Raises
    ------
    ArtifactError
        If this is none of these.
    RecordError
        If the record is malformed.
    """
    mod = _module(artifact)
    if _ATTRIBUTE in vars(mod):
        return vars(mod)[_ATTRIBUTE]
    try:
        function = mod.get_function(RECORD_FUNCTION, query_imports=True)
    except AttributeError:
        return None
    return Record.parse(str(function()))


def set_record(executable, record):
    """Make the libraries that are exported from an executable carry a record.

    Parameters
    ----------
    executable : tvm.runtime.Executable or tvm.runtime.Module
        The executable, in the process that compiled it; it is changed.
    record : tvm_model_hash.Record
        The identities of the model that it was compiled from.
    """
    setattr(_module(executable), _ATTRIBUTE, record)


def keep_record(source, target):
    """Carry over what :func:`set_record` has set, if it has.

    Parameters
    ----------
    source : tvm.runtime.Executable or tvm.runtime.Module
        The executable.
    target : tvm.runtime.vm.VirtualMachine
        What was made from it; it is changed.
    """
    record = vars(_module(source)).get(_ATTRIBUTE)
    if record is not None:
        set_record(target, record)


@functools.wraps(_export_library)
def export_library(self, file_name, *, addons=None, **kwargs):
    record = vars(self).get(_ATTRIBUTE)
    if record is None:
        return _export_library(self, file_name, addons=addons, **kwargs)
    # A source, because only the compiler that makes the library knows for which machine it is.
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, RECORD_SOURCE_NAME)
        with open(path, "w", encoding="ascii") as file:
            file.write(source(record))
        return _export_library(self, file_name, addons=[*(addons or []), path], **kwargs)


def _module(artifact):
    # An Executable has it as mod, a VirtualMachine as module. Asked for another name, a Module
    # would look for a function.
    if not isinstance(artifact, Module) and hasattr(artifact, "__dict__"):
        artifact = vars(artifact).get("mod", vars(artifact).get("module", artifact))
    if not isinstance(artifact, Module):
        raise ArtifactError(
            f"expected an Executable, a VirtualMachine or a Module, found {type(artifact).__name__}"
        )
    return artifact


def read(artifact):
    """Read what a check needs, as ``tvm_model_hash.checking.verdict.read`` does of files.

    Parameters
    ----------
    artifact : tvm.runtime.Executable, tvm.runtime.vm.VirtualMachine or tvm.runtime.Module
        As in :func:`get_record`.

    Returns
    -------
    found : tvm_model_hash.checking.verdict.Found
    """
    # No names of inputs: the importer has changed them.
    return verdict.Found(get_record(artifact), lambda: None)


verdict.read.register(Module, read)
