# SPDX-License-Identifier: Apache-2.0
"""Whole deployments of Relay's graph executor and AOT executor."""

import os

from tvm_model_hash.artifact.carrier import Role
from tvm_model_hash.artifact.library_record import AOT_EXECUTOR, GRAPH_EXECUTOR
from tvm_model_hash.checking import verdict
from tvm_model_hash.checking.deployment import GRAPH_NAME, PARAMETERS_NAME
from tvm_model_hash.errors import ArtifactError, HashConflictError
from tvm_model_hash.integration import require_same

from .library_hash import get_library_record, load_copy, refuse_unloadable
from .params import save_param_dict


def write_parts(factory, directory, library, export_options):
    """Write what a factory is made of.

    Parameters
    ----------
    factory : tvm.relay.backend.executor_factory.ExecutorFactoryModule
        What ``relay.build`` returned, with a hash.
    directory : str
        The directory.
    library : str
        The name of the library's file.
    export_options : dict
        As for ``Module.export_library``.

    Raises
    ------
    HashConflictError
        If its parts are not known to be of one model.
    """
    found = verdict.read(factory)
    reason = found.disagreement or found.unknown
    is_graph = hasattr(factory, "get_graph_json")
    params = factory.get_params()
    if not reason and is_graph:
        # The seal would vouch for whatever is in that file.
        is_original = getattr(params, "is_original", None)
        if params and not (is_original and is_original()):
            reason = "nothing says which model the parameters are of: they were exchanged"
    if reason:
        raise HashConflictError(f"the factory cannot be saved: {reason}")
    # The AOT executor's library is all that it has.
    kernels = factory.get_lib() if is_graph else factory
    kernels.export_library(os.path.join(directory, library), **export_options)
    if is_graph:
        with open(os.path.join(directory, GRAPH_NAME), "w", encoding="utf-8", newline="\n") as file:
            file.write(factory.get_graph_json())
        if params:
            with open(os.path.join(directory, PARAMETERS_NAME), "wb") as file:
                file.write(save_param_dict(params))


def load_parts(deployment, device):
    """Load a deployment that was checked.

    Parameters
    ----------
    deployment : tvm_model_hash.checking.deployment.Deployment
        The deployment, of a graph executor or AOT.
    device : tvm.runtime.Device or list of tvm.runtime.Device
        The device or devices to run on.

    Returns
    -------
    module : tvm.contrib.graph_executor.GraphModule or tvm.runtime.executor.AotModule
        Ready to run.

    Raises
    ------
    ArtifactError
        If it is of neither, or has several parts of a role.
    UnloadableArtifactError
        If the running TVM can't load it.
    ModelHashMismatch
        If what was loaded has another record than its file.
    """
    from tvm.contrib import graph_executor

    executable, graph = deployment.only(Role.EXECUTABLE), deployment.only(Role.GRAPH)
    params = deployment.only(Role.PARAMETERS)
    if executable is not None and graph is not None:
        raise ArtifactError(
            f"{deployment.directory!r} has two parts to be run, {executable.name!r} and "
            f"{graph.name!r}: put the files that belong together into a directory"
        )
    # That there are kernels beside a graph was checked.
    code = executable or deployment.only(Role.KERNELS)
    refuse_unloadable(deployment, code)
    library = load_copy(deployment.files[code.name])
    require_same(get_library_record(library), deployment, code)
    if code.artifact.kind == AOT_EXECUTOR:
        from .executor import AotModule

        devices = device if isinstance(device, (list, tuple)) else [device]
        return AotModule(library[library["list_module_names"]()[0]](*devices))
    if graph is not None:
        with open(deployment.files[graph.name], encoding="utf-8") as file:
            text = file.read()
    else:
        text = library["get_graph_json"]()
    # Not by the library's own function, which has the name that the model was given.
    module = graph_executor.create(text, library, device)
    if graph is None:
        for name, array in library["get_graph_params"]().items():
            module.set_input(name, array)
    if params is not None:
        with open(deployment.files[params.name], "rb") as file:
            module.load_params(file.read())
    return module


def is_loadable(part):
    """Find out whether a deployment is one for :func:`load_parts`.

    Parameters
    ----------
    part : tvm_model_hash.checking.parts.Part
        Its first part.

    Returns
    -------
    is_loadable : bool
    """
    artifact = part.artifact
    return artifact.role is Role.GRAPH or artifact.kind in (GRAPH_EXECUTOR, AOT_EXECUTOR)
