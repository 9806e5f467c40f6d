# SPDX-License-Identifier: Apache-2.0
"""The model hash as an attribute of an IRModule."""

from tvm_model_hash.artifact.record_module import Engine
from tvm_model_hash.errors import HashConflictError, NoHashError
from tvm_model_hash.record import Record, check_model_hash

from ..runtime.library_hash import ENGINE
from .module import IRModule

#: The attribute, a string: the hash of the ONNX model that the module was imported from.
MODEL_HASH_ATTR = "model_hash"


#: The attribute with the whole record, beside the hash.
RECORD_ATTR = "model_hash_record"


def get_record(mod):
    """Get the record that is to go into what is compiled from a module.

    Parameters
    ----------
    mod : tvm.IRModule
        The module.

    Returns
    -------
    record : tvm_model_hash.Record or None
        The record, None if neither the module nor one of its functions has an attribute
        ``model_hash``.

    Raises
    ------
    InvalidHashError
        If the attribute is not 64 lowercase hexadecimal digits.
    RecordError
        If the module's record is malformed.
    HashConflictError
        If these attributes are not of one model.
    """
    functions = getattr(mod, "functions", None) or {}
    # Passes that drop the attributes of one keep those of the other, and a function may have
    # been renamed, or come from another module.
    owners = {"IRModule": mod}
    owners |= {f"function {var.name_hint!r}": function for var, function in functions.items()}
    records = {owner: _own_record(node, owner) for owner, node in owners.items()}
    found = {owner: record for owner, record in records.items() if record is not None}
    if len({record.model for record in found.values()}) > 1:
        models = ", ".join(f"of the {owner} {record.model}" for owner, record in found.items())
        raise HashConflictError(
            f"the attributes {MODEL_HASH_ATTR!r} are different: {models}. Remove the wrong one, "
            f"with without_attr({MODEL_HASH_ATTR!r}) and without_attr({RECORD_ATTR!r})"
        )
    return next(iter(found.values()), None)


def _own_record(node, owner):
    attrs = getattr(node, "attrs", None)
    if not attrs or MODEL_HASH_ATTR not in attrs:
        return None
    value = attrs[MODEL_HASH_ATTR]
    model_hash = check_model_hash(value, f"the {owner}'s attribute {MODEL_HASH_ATTR!r}")
    if RECORD_ATTR not in attrs:
        return Record(model_hash)
    record = Record.parse(str(attrs[RECORD_ATTR]))
    if record.model != model_hash:
        raise HashConflictError(
            f"the {owner}'s attribute {MODEL_HASH_ATTR!r} is {model_hash}, and its "
            f"{RECORD_ATTR!r} is of model {record.model}: expected the same; set both, or remove "
            f"the second with without_attr({RECORD_ATTR!r})"
        )
    return record


def set_record(mod, record):
    """Copy a module or a function and put a record into the copy's attributes.

    Parameters
    ----------
    mod : tvm.IRModule or tvm.ir.BaseFunc
        The module or function; it is not changed.
    record : tvm_model_hash.Record
        The identities of the model that the module was imported from.

    Returns
    -------
    mod : tvm.IRModule or tvm.ir.BaseFunc
        The copy. A module's functions have the record too, because passes that make a new module
        (``detach_params``, ``AnnotateSpans``) keep the attributes of functions only, and because
        ``relay.build`` takes a function without its module: of Relax all of them, of Relay
        ``main``, which is the model's own.
    """
    copy = _with_record(mod, record)
    if isinstance(mod, IRModule):
        for variable, function in mod.functions.items():
            if _takes_record(variable, function):
                copy.update_func(variable, _with_record(function, record))
    return copy


def _with_record(node, record):
    attrs = {MODEL_HASH_ATTR: record.model, RECORD_ATTR: str(record)}
    if isinstance(node, IRModule):
        return node.with_attrs(attrs)  # with_attr of TVM 0.16 takes no str
    for key, value in attrs.items():  # with_attrs knows no function of Relay
        node = node.with_attr(key, value)
    return node


def _takes_record(variable, function):
    if ENGINE is Engine.RELAX:
        from ..relax import Function

        return isinstance(function, Function)
    from ..relay import Function

    return isinstance(function, Function) and variable.name_hint == "main"


def copy_hash(source, target):
    """Carry a model's hash over to another module, for a pass that drops attributes.

    Most passes keep the attributes of the module or those of its function ``main``, and one is
    enough. Whoever makes a new function of the body of another one has to carry the hash over.

    Parameters
    ----------
    source : tvm.IRModule
        The module with the hash.
    target : tvm.IRModule
        The module that was made from it; it is not changed.

    Returns
    -------
    mod : tvm.IRModule
        A copy of ``target`` with the hash of ``source``.

    Raises
    ------
    NoHashError
        If ``source`` has no hash.
    HashConflictError
        If ``target`` has the hash of another model.
    InvalidHashError
        If a hash is malformed.

    Examples
    --------
    .. code-block:: python

        from tvm.ir.module_hash import copy_hash

        main = mod["main"]
        changed = tvm.IRModule.from_expr(relay.Function(main.params, change(main.body)))
        changed = copy_hash(mod, changed)
    """
    record, present = get_record(source), get_record(target)
    if record is None:
        raise NoHashError(
            f"the source module has no attribute {MODEL_HASH_ATTR!r} to copy: import its model "
            "with from_onnx(..., get_hash=True)"
        )
    if present is not None and present.model != record.model:
        raise HashConflictError(
            f"the target module has the hash {present.model} of another model than the source "
            f"module, {record.model}; remove it with without_attr({MODEL_HASH_ATTR!r}) if the "
            "target was made from the source"
        )
    return set_record(target, record)
