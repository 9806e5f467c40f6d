# SPDX-License-Identifier: Apache-2.0
"""The model's identity in Relax's executable and virtual machine, and whole deployments."""

import os

import numpy

from tvm_model_hash.artifact.carrier import Role
from tvm_model_hash.artifact.library_record import RELAX_VM
from tvm_model_hash.artifact.tensor_list import trailer
from tvm_model_hash.checking import verdict
from tvm_model_hash.checking.deployment import LIBRARY_NAME, RELAX_PARAMETERS_NAME
from tvm_model_hash.errors import ArtifactError, HashConflictError
from tvm_model_hash.integration import (
    check_hash,
    checked_deployment,
    directory_path,
    get_hash,
    new_deployment,
    require_same,
)

from ._tensor import tensor
from .executable import Executable
from .library_hash import (
    get_library_record,
    get_parameter_names,
    import_record,
    load_copy,
    refuse_unloadable,
)
from .module import Module
from .params import load_param_dict_from_file, save_param_dict_to_file
from .vm import VirtualMachine

__all__ = ["check_hash", "get_hash"]  # methods, too

# What is loaded; a check knows further ones.
_LOADED_KINDS = ("TVM parameters", "NumPy arrays")


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
    return get_library_record(_module(artifact))


def set_record(executable, record, names=()):
    """Put a record into compiled code, in place of the one that it may have.

    Parameters
    ----------
    executable : tvm.runtime.Executable or tvm.runtime.Module
        The executable, in the process that compiled it; it is changed.
    record : tvm_model_hash.Record
        The record.
    names : sequence of str
        Names of the parameters that lie outside of it.

    Returns
    -------
    executable : tvm.runtime.Executable or tvm.runtime.Module
        The same executable.
    """
    import_record(_module(executable), record.with_fields(record.build, len(names)), names)
    return executable


class BoundVirtualMachine(VirtualMachine):
    """A virtual machine with the parameters that its functions take behind the inputs.

    ``vm["main"](*inputs)``, ``set_input`` and ``save_function`` take the inputs alone, as those of
    a machine whose weights lie in the library do: a program need not know which of both it has.

    Parameters
    ----------
    rt_mod : tvm.runtime.Module
        The library.
    device : tvm.runtime.Device or list of tvm.runtime.Device
        As for ``VirtualMachine``.
    memory_cfg : str or dict, optional
        As for ``VirtualMachine``.
    params : dict of str to tvm.runtime.Tensor
        The parameters by their names.
    """

    #: Whether their record was compared with the library's.
    params_are_known = False

    def __init__(self, rt_mod, device, memory_cfg=None, *, params):
        super().__init__(rt_mod, device, memory_cfg)
        first = device[0] if isinstance(device, (list, tuple)) else device
        self._params = {
            name: value if value.device == first else value.copyto(first)
            for name, value in params.items()
        }

    def __getitem__(self, key):
        function, params = super().__getitem__(key), self.params_of(key)
        return (lambda *inputs: function(*inputs, *params)) if params else function

    def set_input(self, func_name, *args, **kwargs):
        super().set_input(func_name, *args, *self.params_of(func_name), **kwargs)

    def save_function(self, func_name, saved_name, *args, **kwargs):
        args = (*args, *self.params_of(func_name))
        super().save_function(func_name, saved_name, *args, **kwargs)

    def params_of(self, func_name):
        """Get the parameters of a function, in their order.

        Parameters
        ----------
        func_name : str
            The name of the function.

        Returns
        -------
        params : list of tvm.runtime.Tensor
            Empty for a function that takes none of them, or is not the model's.
        """
        try:
            names = _parameter_names(self.module, func_name)
        except ValueError:  # a function of another module, or one that was saved
            return []
        return [self._params[name] for name in names if name in self._params]


def save(
    executable,
    directory,
    params=None,
    *,
    library=LIBRARY_NAME,
    overwrite=False,
    seal=True,
    **export_options,
):
    """Save a whole deployment: all of it, or nothing.

    It is a library, ``hash.txt``, and ``params.bin`` if parameters were detached, which stock TVM
    loads by ``tvm.runtime.load_param_dict_from_file``.

    Parameters
    ----------
    executable : tvm.runtime.Executable
        An executable with a hash.
    directory : str, os.PathLike or TVM's TempDirectory
        The directory to make, and those above it; an empty one that exists is replaced.
    params : dict or list, optional
        The parameters that lie outside of the library: what ``detach_params`` returned, the list of
        them for one function, or a dictionary of tensors by their names.
    library : str
        The name of the library's file.
    overwrite : bool
        Whether a deployment that is there is replaced; what else is there never is.
    seal : bool
        Whether the directory gets a manifest, ``SHA256SUMS``.
    **export_options
        As for ``export_library``: ``fcompile``, ``addons``, and what they take.

    Returns
    -------
    directory : str
        The path of the directory.

    Raises
    ------
    tvm_model_hash.NoHashError
        If the executable carries no hash.
    tvm_model_hash.HashConflictError
        If these are not the parameters that the executable needs.
    tvm_model_hash.OutputError
        If the directory is not empty, or cannot be written.
    """
    with new_deployment(executable, directory, overwrite, seal) as temporary:
        record = get_record(executable)
        tensors = _by_name(executable, params, record.params)
        executable.export_library(os.path.join(temporary, library), **export_options)
        if tensors:
            path = os.path.join(temporary, RELAX_PARAMETERS_NAME)
            save_param_dict_to_file(tensors, path)
            with open(path, "ab") as file:
                # Of no build: another compilation of the model takes the same parameters.
                file.write(trailer(record.with_fields(None)))
    return directory_path(directory)


def load(directory, device, expected, memory_cfg=None):
    """Check a deployment against a model, and only then load it.

    No native code of a deployment that is refused is loaded, and what is loaded is what was
    checked, whoever writes to the directory meanwhile.

    Parameters
    ----------
    directory : str, os.PathLike or TVM's TempDirectory
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
        Ready to run: ``vm["main"](*inputs)``. Where parameters lie outside of the library, they are
        bound (:class:`BoundVirtualMachine`).

    Raises
    ------
    tvm_model_hash.ModelHashMismatch
        If the deployment is not of that model.
    tvm_model_hash.HashConflictError
        If no model is expected, and the parts are of different ones; or if the parameters are not
        the ones that the library needs.
    tvm_model_hash.BrokenSealError
        If a sealed file was changed.
    tvm_model_hash.UnloadableArtifactError
        If the running TVM can't load a part: it is for another machine, or of another TVM.
    tvm_model_hash.ModelHashError
        If the deployment or the model cannot be read.
    """
    with checked_deployment(directory, expected) as deployment:
        executable = deployment.only(Role.EXECUTABLE)
        if executable is None:
            raise ArtifactError(f"{deployment.directory!r} holds no library with an executable")
        if executable.artifact.kind != RELAX_VM:
            raise ArtifactError(
                f"{executable.name!r} in {deployment.directory!r} is a {executable.artifact.kind}, "
                f"expected a {RELAX_VM}: load it with a TVM that has Relay"
            )
        refuse_unloadable(deployment, executable)
        library = load_copy(deployment.files[executable.name])
        record = get_library_record(library)
        require_same(record, deployment)
        parameters = deployment.only(Role.PARAMETERS)
        if parameters is None:
            return VirtualMachine(library, device, memory_cfg)
        if parameters.artifact.kind not in _LOADED_KINDS:
            raise ArtifactError(
                f"{parameters.name!r} in {deployment.directory!r} has {parameters.artifact.kind}, "
                f"expected {' or '.join(_LOADED_KINDS)}, which can be loaded"
            )
        tensors = _load_tensors(deployment.files[parameters.name], executable.artifact.needs)
        vm = BoundVirtualMachine(library, device, memory_cfg, params=tensors)
        vm.params_are_known = True
        return vm


@verdict.read.register(Executable)
@verdict.read.register(VirtualMachine)
@verdict.read.register(Module)
def _read(artifact):
    record = get_record(artifact)
    unknown = None
    if record and record.params and not getattr(artifact, "params_are_known", False):
        unknown = (
            f"nothing says which model the {record.params} parameters are of that the library "
            "takes from outside: vm_hash.load compares the record in their file, and binds them"
        )
    # No names of inputs: the importer has changed them.
    return verdict.Found(record, lambda: None, unknown=unknown)


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


def _by_name(executable, params, count):
    """The parameters by the names by which the library knows them."""
    if params is None:
        params = {}
    if not isinstance(params, dict):
        params = {"main": list(params)}
    machine = _module(executable)["vm_load_executable"]()
    tensors = {}
    for key, value in params.items():
        if isinstance(value, (list, tuple)):  # all those of one function
            names = _parameter_names(machine, key)
            tensors.update(zip(names[len(names) - len(value) :], value, strict=False))
        else:
            tensors[key] = value
    needed = get_parameter_names(_module(executable))
    if len(tensors) != count or not set(needed) <= set(tensors):
        raise HashConflictError(
            f"the executable needs {count} parameters, {_some(needed)}, and was given "
            f"{len(tensors)}, {_some(tensors)}: pass what detach_params returned"
        )
    return tensors


def _load_tensors(path, names):
    """Load a file of parameters, by the names by which the library knows them."""
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with numpy.load(path, allow_pickle=False) as arrays:
            tensors = {name: tensor(arrays[name]) for name in arrays.files}
    else:
        tensors = dict(load_param_dict_from_file(path))
    if set(tensors) != set(names) and len(tensors) == len(names):
        # A list, whose names are numbers behind one word.
        numbered = sorted(tensors, key=lambda name: (len(name), name))
        tensors = {name: tensors[old] for name, old in zip(names, numbered, strict=True)}
    if set(tensors) != set(names):
        raise HashConflictError(
            f"the library needs the parameters {_some(names)}, and {path!r} has {_some(tensors)}"
        )
    return tensors


def _parameter_names(machine, function):
    count = machine["get_function_arity"](function)
    return [str(machine["get_function_param_name"](function, i)) for i in range(count)]


def _some(names):
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "") or "none"
