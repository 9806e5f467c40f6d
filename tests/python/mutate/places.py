# SPDX-License-Identifier: Apache-2.0
"""Places in models that count, and the small steps of which edits are made."""

import math

import onnx
from canonical_reference import BITS, Scope, domain_of, subgraphs, typed
from onnx import TensorProto

from .registry import NoPlace


def one(random, places):
    """One of the places."""
    places = list(places)
    if not places:
        raise NoPlace
    return random.choice(places)


def bodies(model):
    """Each counted graph and function with its counted nodes, in their order."""
    functions = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
    found, pending = [], [Scope(model.graph, {})]
    while pending:
        scope = pending.pop(0)
        scope.walk()
        nodes = [scope.proto.node[i] for i in scope.numbers]
        found.append((scope, nodes))
        for node in nodes:
            function = functions.pop((domain_of(node.domain), node.op_type, node.overload), None)
            if function is not None:
                pending.append(Scope(function, {}))
            for attribute in node.attribute:
                pending.extend(Scope(graph, {}, scope) for graph in subgraphs(attribute))
    return found


def nodes(model):
    return [(scope, node) for scope, nodes in bodies(model) for node in nodes]


def functions(model):
    """The functions that count."""
    return [scope.proto for scope, _ in bodies(model) if scope.is_function]


def attributes(model):
    return [a for _, node in nodes(model) for a in node.attribute]


def definition(scope, name):
    """What a name stands for, so that names of different definitions can't be exchanged
    without changing the graph."""
    if not name:
        return None
    level = 0
    while not scope.defines(name):
        scope, level = scope.outer, level + 1
    if name in scope.computed:
        node, index = scope.computed[name]
        return level, scope.proto.node[node].op_type, index
    if name in scope.inputs:
        return level, scope.inputs.index(name)
    weight = scope.initializers[name]
    if isinstance(weight, onnx.SparseTensorProto):
        return "sparse weight", weight.values.data_type, tuple(weight.dims)
    return "weight", weight.data_type, tuple(weight.dims)


def weights(model, kind=TensorProto):
    """The counted weights of a kind, dense or sparse, as (scope, tensor)."""
    found, seen = [], set()
    for scope, counted in bodies(model):
        for name in [name for node in counted for name in node.input] + scope.outputs:
            at = scope
            while name and not at.defines(name):
                at = at.outer
            weight = at.initializers.get(name) if name else None
            if isinstance(weight, kind) and (id(at), name) not in seen:
                seen.add((id(at), name))
                found.append((at, weight))
    return found


def messages(message):
    """A message and all the messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from messages(inner)


def graphs(model):
    return [m for m in messages(model) if isinstance(m, onnx.GraphProto)]


def tensors(model):
    """All tensors, in initializers and attributes."""
    return [m for m in messages(model) if isinstance(m, TensorProto)]


def fields(message):
    return message.DESCRIPTOR.fields_by_name


def root(scope):
    """The function that a graph lies in, None for the model."""
    while scope.outer:
        scope = scope.outer
    return scope.proto if scope.is_function else None


def replace_input(node, old, new):
    node.input[:] = [new if name == old else name for name in node.input]
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            if not Scope(graph, {}).defines(old):
                for inner in graph.node:
                    replace_input(inner, old, new)
                for output in graph.output:
                    output.name = new if output.name == old else output.name


def shuffle(random, repeated):
    """Bring things into another order, if there is another one."""
    values = list(repeated)
    while any(value != values[0] for value in values) and values == list(repeated):
        random.shuffle(values)
    replace(repeated, values)


def replace(repeated, values):
    values = [type(value).FromString(value.SerializeToString()) for value in values]
    del repeated[:]
    repeated.extend(values)


def store_raw(tensor):
    if tensor.data_type != TensorProto.STRING and not tensor.HasField("raw_data"):
        raw = typed(tensor)
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data = raw


def flip_bit(random, tensor):
    """Flip a bit of an element; of a bool the one that it may have."""
    store_raw(tensor)
    bits = math.prod(tensor.dims) * BITS.get(tensor.data_type, 0)
    if not bits:
        raise NoPlace
    bit = random.randrange(bits)
    if tensor.data_type == TensorProto.BOOL:
        bit -= bit % 8
    data = bytearray(tensor.raw_data)
    data[bit // 8] ^= 1 << bit % 8
    tensor.raw_data = bytes(data)
