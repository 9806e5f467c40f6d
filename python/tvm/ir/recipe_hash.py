# SPDX-License-Identifier: Apache-2.0
"""How a module is compiled: the recipe that goes into the record, with either engine."""

from tvm_model_hash.recipe import with_recipe

from ..runtime.library_hash import get_global_func


def record_of_compilation(record, targets, function, num_inputs=None, params=()):
    """Put into a record how a module is compiled.

    Parameters
    ----------
    record : tvm_model_hash.Record
        The record of the part.
    targets : sequence of tvm.target.Target
        What is compiled for.
    function : tvm.relay.Function, tvm.relax.Function or None
        The function ``main``; None if it is not known, and so no shapes are.
    num_inputs : int, optional
        How many of its parameters are inputs, and no weights; by default all.
    params : collection of str
        Names of its parameters that are no inputs.

    Returns
    -------
    record : tvm_model_hash.Record

    Raises
    ------
    RecordError
        If the record gets too long.
    """
    from tvm import __version__

    return with_recipe(
        record,
        __version__,
        [(target.kind.name, _triple(target, targets)) for target in targets],
        None
        if function is None
        else [
            (name, _shape(variable))
            for variable in function.params[:num_inputs]
            if (name := variable_name(variable)) not in params
        ],
    )


def relay_targets(target, host):
    """Get the targets that Relay's compilers are told.

    Parameters
    ----------
    target : any multi-target like object, see Target.canon_multi_target
        The target or targets.
    host : any target-like object, see Target.canon_target, or None
        The host of those that have none.

    Returns
    -------
    targets : list of tvm.target.Target
        Empty where nothing is said, which is for the compiler to tell.
    """
    from ..target import Target

    targets = list(Target.canon_multi_target(target) or ())
    if host is not None and targets and targets[0].host is None:
        # Not by canon_multi_target_and_host, which would warn of the host a second time.
        return [one.with_host(Target.canon_target(host)) for one in targets]
    return targets


def main_function(mod, function_type):
    """Get the function whose inputs are those of the model.

    Parameters
    ----------
    mod : tvm.IRModule
        The module; or a function, which is the one then.
    function_type : type
        The engine's type of functions; those of other types are kernels.

    Returns
    -------
    function : tvm.relay.Function, tvm.relax.Function or None
        ``main``, or the only function; None if there are several others.
    """
    functions = getattr(mod, "functions", None)
    if functions is None:
        return mod
    found = {
        str(variable.name_hint): function
        for variable, function in functions.items()
        if isinstance(function, function_type)
    }
    if "main" not in found and len(found) == 1:
        return next(iter(found.values()))
    return found.get("main")


def variable_name(variable):
    """Get the name of a parameter of a function.

    Parameters
    ----------
    variable : tvm.relay.Var or tvm.relax.Var
        The parameter.

    Returns
    -------
    name : str
    """
    # It is name in TVM 0.26 and later.
    return str(variable.name if hasattr(variable, "name") else variable.name_hint)


def _triple(target, targets):
    """The triple of the machine that a target's code, or the code that calls it, is for."""
    machine = _host(target, targets)
    triple = machine.attrs.get("mtriple")
    if not triple and machine.kind.name == "llvm":
        find = get_global_func("target.llvm_get_system_triple", allow_missing=True)
        triple = find and find()
    return str(triple) if triple else None


def _host(target, targets):
    from ..target import Target

    if target.kind.name == "llvm":
        return target
    if target.host is not None:
        return target.host
    # As TVM chooses where it is not told.
    return next((other for other in targets if other.kind.name in ("llvm", "c")), Target("llvm"))


def _shape(variable):
    """The shape of a parameter, None for what has none that is known."""
    # With Relay, with Relax, and with Relax in TVM 0.26 and later.
    names = ("type_annotation", "struct_info", "ty")
    annotation = next(getattr(variable, name) for name in names if hasattr(variable, name))
    shape = getattr(annotation, "shape", None)
    sizes = getattr(shape, "values", shape)
    if not hasattr(sizes, "__len__"):  # unknown, or a variable for the whole shape
        rank = getattr(annotation, "ndim", -1)
        return None if rank < 0 else [None] * rank
    # A size that is not static is a variable, or TVM's Any.
    values = [getattr(size, "value", None) for size in sizes]
    return [value if isinstance(value, int) else None for value in values]
