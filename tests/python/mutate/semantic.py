# SPDX-License-Identifier: Apache-2.0
"""Edits that change what a model computes, or what it says that it does.

They are made at places that count: nodes and weights that an output depends on.
"""

import re

import numpy as np
import onnx
from canonical_reference import BITS, Scope, domain_of, subgraphs
from onnx import AttributeProto, TensorProto, helper

from .places import (
    attributes,
    bodies,
    definition,
    flip_bit,
    functions,
    nodes,
    one,
    replace,
    replace_input,
    root,
    shuffle,
    store_raw,
    weights,
)
from .registry import WITH_IFS, WITH_WEIGHTS, NoPlace, edit

# Edits of nodes.


@edit("operator", "graph")
def an_operator_changes(model, random):
    _, node = one(random, nodes(model))
    node.op_type += "Else"
    import_domain(model, node.domain)


@edit("operator", "graph")
def a_domain_changes(model, random):
    _, node = one(random, nodes(model))
    for message in [model, *model.functions]:
        for entry in list(message.opset_import):
            if domain_of(entry.domain) == domain_of(node.domain):
                message.opset_import.add(domain=DEFINED, version=entry.version)
    node.domain = DEFINED


def import_domain(model, domain):
    for message in [model, *model.functions]:
        if domain not in [entry.domain for entry in message.opset_import]:
            message.opset_import.add(domain=domain, version=1)


@edit("opset", "only graph")
def an_operator_sets_version_changes(model, random):
    change_version(model, random, lambda scope, node: True)


@edit("opset", "only graph", (), ["function"])
def the_version_of_another_operator_set_changes(model, random):
    """That of a function, or of another domain than ai.onnx."""
    change_version(model, random, lambda scope, node: root(scope) or domain_of(node.domain))


def change_version(model, random, is_wanted):
    """Change the version that an operator which is wanted, and no function, is of."""
    called = {(domain_of(f.domain), f.name, f.overload) for f in model.functions}
    scope, node = one(
        random,
        (
            (scope, node)
            for scope, node in nodes(model)
            if (domain_of(node.domain), node.op_type, node.overload) not in called
            and is_wanted(scope, node)
        ),
    )
    for entry in (root(scope) or model).opset_import:
        if domain_of(entry.domain) == domain_of(node.domain):
            entry.version += 1


@edit("attribute", "only graph")
def an_attributes_value_changes(model, random):
    attribute = one(random, (a for a in attributes(model) if not list(subgraphs(a))))
    change(attribute, random)


def change(a, random):
    if a.ref_attr_name:
        a.ref_attr_name += "_another"
    elif a.type == AttributeProto.FLOAT:
        a.f = 0.5 if a.f != 0.5 else 0.25
    elif a.type == AttributeProto.INT:
        a.i += random.choice([-1, 1, 2**32])
    elif a.type == AttributeProto.STRING:
        a.s += b"\0"
    elif a.type == AttributeProto.TENSOR:
        flip_bit(random, a.t)
    elif a.type == AttributeProto.INTS:
        a.ints[:] = random.choice([[*a.ints, 0], [*a.ints[:-1], -7], []])
    elif a.type == AttributeProto.FLOATS:
        a.floats[:] = random.choice([[*a.floats, 0.0], [*a.floats[:-1], -0.125], []])
    elif a.type == AttributeProto.STRINGS:
        a.strings[:] = random.choice([[*a.strings, b""], [b"", *a.strings], []])
    elif a.type == AttributeProto.SPARSE_TENSOR:
        flip_bit(random, a.sparse_tensor.values)
    elif a.type == AttributeProto.TYPE_PROTO:
        inner = onnx.TypeProto.FromString(a.tp.SerializeToString())
        a.tp.sequence_type.elem_type.CopyFrom(inner)
    else:
        raise NoPlace


@edit("attribute", "only graph")
def an_attribute_is_renamed(model, random):
    one(random, (a for a in attributes(model) if not list(subgraphs(a)))).name += "_another"


@edit("attribute", "only graph")
def an_attribute_is_added(model, random):
    _, node = one(random, nodes(model))
    value = random.choice([0, 0.0, "", [1], [1.0], [""]])
    node.attribute.append(helper.make_attribute("another", value))


@edit("attribute", "only graph")
def an_attribute_is_removed(model, random):
    _, node, attribute = one(
        random,
        (
            (scope, node, a)
            for scope, node in nodes(model)
            for a in node.attribute
            if not list(subgraphs(a))
        ),
    )
    node.attribute.remove(attribute)


@edit("attribute", "only graph", ("silero", "silero_ifs"), ["constant"])
def a_bit_of_a_constant_flips(model, random):
    attribute = one(random, (a for a in attributes(model) if a.type == AttributeProto.TENSOR))
    flip_bit(random, attribute.t)


@edit("edge", "graph")
def operands_change_places(model, random):
    node, i, j = one(
        random,
        (
            (node, i, j)
            for scope, node in nodes(model)
            for i in range(len(node.input))
            for j in range(i)
            if definition(scope, node.input[i]) != definition(scope, node.input[j])
        ),
    )
    node.input[i], node.input[j] = node.input[j], node.input[i]


@edit("edge", "graph")
def an_operand_is_another_value(model, random):
    node, i, name = one(
        random,
        (
            (node, i, name)
            for scope, node in nodes(model)
            for i in range(len(node.input))
            for name in [*scope.inputs, *scope.initializers]
            if definition(scope, node.input[i]) != definition(scope, name)
        ),
    )
    node.input[i] = name


@edit("edge", "graph")
def an_input_becomes_empty(model, random):
    node, i = one(
        random,
        ((node, i) for _, node in nodes(model) for i, name in enumerate(node.input) if name),
    )
    node.input[i] = ""


@edit("edge", "graph", (), ["clip"])
def an_empty_input_is_left_out(model, random):
    node = one(random, (node for _, node in nodes(model) if "" in node.input))
    node.input.remove("")


@edit("edge", "only graph")
def an_empty_input_is_appended(model, random):
    _, node = one(random, nodes(model))
    node.input.append("")


@edit("edge", "only graph", (), ["dropout", "dropout", "dropout"])
def an_unused_output_becomes_empty(model, random):
    # The mask of a Dropout, which nothing uses here.
    node = one(
        random, (node for _, node in nodes(model) if node.op_type == "Dropout" and node.output[1:])
    )
    node.output[1] = ""


@edit("edge", "only graph")
def an_output_is_appended(model, random):
    _, node = one(random, nodes(model))
    node.output.append(f"more_{random.random()}")


@edit("edge", "only graph", (), ["split"])
def another_output_of_a_node_is_used(model, random):
    node, i = one(
        random,
        (
            (node, i)
            for scope, counted in bodies(model)
            for node in counted
            for i, name in enumerate(node.output)
            if len(node.output) > 1
            and (name in scope.outputs or any(name in other.input for other in counted))
        ),
    )
    j = random.choice([j for j in range(len(node.output)) if j != i])
    node.output[i], node.output[j] = node.output[j], node.output[i]


@edit("edge", "graph", ("magika", "silero", "silero_ifs"), ["random"])
def a_shared_node_is_duplicated(model, random):
    scope, node, i = one(
        random,
        (
            (scope, node, i)
            for scope, counted in bodies(model)
            for node in counted
            for i, name in enumerate(node.input)
            if name in scope.computed
            and sum(list(n.input).count(name) for n in counted) + scope.outputs.count(name) > 1
        ),
    )
    index, output = scope.computed[node.input[i]]
    copy = onnx.NodeProto.FromString(scope.proto.node[index].SerializeToString())
    copy.output[:] = [name and f"copy_{random.random()}" for name in copy.output]
    node.input[i] = copy.output[output]
    scope.proto.node.insert(index, copy)


# Edits of weights.


@edit("weight", "graph", WITH_WEIGHTS, ["weight"])
def a_weights_element_type_changes(model, random):
    _, weight = one(random, ((s, w) for s, w in weights(model) if w.data_type in BITS))
    store_raw(weight)
    bits = BITS[weight.data_type]
    others = [kind for kind in BITS if BITS[kind] == bits and kind != weight.data_type]
    weight.data_type = random.choice(others)


@edit("weight", "graph", WITH_WEIGHTS, ["weight"])
def a_weights_shape_changes(model, random):
    _, weight = one(random, weights(model))
    weight.dims.insert(random.randrange(len(weight.dims) + 1), 1)


@edit("weight", "graph", (), ["quantize"])
def a_shared_weight_is_duplicated(model, random):
    scope, node, i = one(
        random,
        (
            (scope, node, i)
            for scope, counted in bodies(model)
            for node in counted
            for i, name in enumerate(node.input)
            if isinstance(scope.initializers.get(name), TensorProto)
            and name not in scope.inputs
            and sum(list(n.input).count(name) for n in counted) > 1
        ),
    )
    scope.proto.initializer.add().CopyFrom(scope.initializers[node.input[i]])
    scope.proto.initializer[-1].name = node.input[i] = f"copy_{random.random()}"


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def a_bit_of_a_weight_flips(model, random):
    _, weight = one(random, weights(model))
    flip_bit(random, weight)


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def a_network_is_tuned_again(model, random):
    change_floats(model, lambda numbers: numbers * 1.01 + 0.001)


def change_floats(model, change):
    """Change the values of all weights that are of floats."""
    is_changed = False
    for _, weight in weights(model):
        if weight.data_type == TensorProto.FLOAT:
            store_raw(weight)
            before = weight.raw_data
            weight.raw_data = change(np.frombuffer(before, "<f4")).astype("<f4").tobytes()
            is_changed |= weight.raw_data != before
    if not is_changed:
        raise NoPlace


@edit("weight", "only weights", WITH_WEIGHTS, ["weight", "weight"])
def two_weights_of_one_type_change_places(model, random):
    found = [weight for _, weight in weights(model)]
    for weight in found:
        store_raw(weight)
    a, b = one(
        random,
        (
            (a, b)
            for a in found
            for b in found
            if (a.data_type, list(a.dims)) == (b.data_type, list(b.dims))
            and a.raw_data != b.raw_data
        ),
    )
    a.raw_data, b.raw_data = b.raw_data, a.raw_data


# Edits of subgraphs and functions.


@edit("subgraph", "graph", WITH_IFS, ["if"])
def a_subgraph_changes(model, random):
    node = one(random, (node for scope, node in nodes(model) if scope.outer))
    node.op_type += "Else"
    import_domain(model, node.domain)


@edit("subgraph", "graph", WITH_IFS, ["if", "if", "if"])
def the_branches_of_an_if_change_places(model, random):
    def operators(graph, scope):
        inner = Scope(graph, {}, scope)
        inner.walk()
        return [graph.node[i].op_type for i in inner.numbers]

    node = one(
        random,
        (
            node
            for scope, node in nodes(model)
            if node.op_type == "If"
            and operators(node.attribute[0].g, scope) != operators(node.attribute[1].g, scope)
        ),
    )
    a, b = node.attribute
    a.name, b.name = b.name, a.name


@edit("subgraph", "graph", (), ["loop"])
def inputs_of_a_subgraph_change_places(model, random):
    inputs, i = one(
        random,
        (
            (scope.proto.input, scope.inputs.index(name))
            for scope, counted in bodies(model)
            for name in scope.inputs
            if scope.outer and len(scope.inputs) > 1 and any(name in node.input for node in counted)
        ),
    )
    j = random.choice([j for j in range(len(inputs)) if j != i])
    inputs[i].name, inputs[j].name = inputs[j].name, inputs[i].name


@edit("function", "graph", (), ["function"])
def a_function_changes(model, random):
    node = one(random, (node for scope, node in nodes(model) if root(scope)))
    node.op_type += "Else"
    import_domain(model, node.domain)


@edit("function", "only graph", (), ["function"])
def a_functions_default_changes(model, random):
    function = one(random, functions(model))
    change(one(random, function.attribute_proto), random)


@edit("function", "only graph", (), ["function"])
def a_function_loses_a_default(model, random):
    function = one(random, (f for f in functions(model) if f.attribute_proto))
    function.attribute.append(function.attribute_proto.pop().name)


@edit("function", "only graph", (), ["function"])
def a_function_gets_an_input(model, random):
    one(random, functions(model)).input.append("another")


@edit("function", "graph", (), ["function"])
def inputs_of_a_function_change_places(model, random):
    inputs, i = one(
        random,
        (
            (scope.proto.input, i)
            for scope, counted in bodies(model)
            if scope.is_function and len(scope.inputs) > 1
            for i, name in enumerate(scope.inputs)
            if any(name in node.input for node in counted)
        ),
    )
    j = random.choice([j for j in range(len(inputs)) if j != i])
    inputs[i], inputs[j] = inputs[j], inputs[i]


@edit("function", "only graph", (), ["function"])
def a_function_gets_another_name_or_overload(model, random):
    function = one(random, functions(model))
    name, overload = random.choice([(function.name + "_", ""), (function.name, "another")])
    for _, node in nodes(model):
        if (node.domain, node.op_type) == (function.domain, function.name):
            node.op_type, node.overload = name, overload
    function.name, function.overload = name, overload


@edit("function", "graph", (), ["function"])
def a_function_is_gone(model, random):
    model.functions.remove(one(random, functions(model)))


@edit("subgraph", "only graph", (), ["loop"])
def a_type_of_a_subgraphs_input_changes(model, random):
    scope = one(random, (scope for scope, _ in bodies(model) if scope.outer and scope.inputs))
    one(random, scope.proto.input).type.tensor_type.elem_type += 1


# Edits of the interface.


@edit("interface", "only graph")
def an_input_is_renamed(model, random):
    value = one(random, model.graph.input)
    old, value.name = value.name, f"renamed_{random.random()}"
    for node in model.graph.node:
        replace_input(node, old, value.name)
    for tensor in model.graph.initializer:
        tensor.name = value.name if tensor.name == old else tensor.name


@edit("interface", "only graph")
def an_output_is_renamed(model, random):
    value = one(random, model.graph.output)
    name = f"renamed_{random.random()}"
    for node in model.graph.node:
        node.output[:] = [name if output == value.name else output for output in node.output]
        replace_input(node, value.name, name)
    value.name = name


@edit("interface", "only graph", ("magika", "silero", "silero_ifs", "squeezenet"))
def the_type_of_an_input_or_output_changes(model, random):
    value = one(random, [*model.graph.input, *model.graph.output])
    tensor_type = value.type.tensor_type
    edit = random.randrange(5)
    if edit == 0:
        tensor_type.elem_type += 1
    elif edit == 1:
        tensor_type.ClearField("shape")
    elif edit == 2:
        tensor_type.shape.dim.add(dim_value=1)
    elif edit == 3:
        tensor_type.shape.dim.add().dim_param = "another"
    else:
        tensor_type.shape.dim.add()


@edit("interface", "only graph", ("silero", "silero_ifs"), ["cast"])
def a_size_of_an_input_or_output_changes(model, random):
    dim = one(
        random,
        (
            dim
            for value in [*model.graph.input, *model.graph.output]
            for dim in value.type.tensor_type.shape.dim
        ),
    )
    if dim.WhichOneof("value") == "dim_value":
        random.choice([lambda: setattr(dim, "dim_value", dim.dim_value + 1), dim.Clear])()
    else:
        dim.dim_param += "_another"


@edit("interface", "only graph", (), ["cast"])
def inputs_change_order(model, random):
    shuffle(random, model.graph.input)


@edit("interface", "graph", ("silero", "silero_ifs"), ["random", "unary", "cast"])
def outputs_change_order(model, random):
    shuffle(random, model.graph.output)


@edit("interface", "only graph")
def an_unused_input_is_added(model, random):
    model.graph.input.add(name=f"unused_{random.random()}")


@edit("interface", "graph")
def an_output_is_added(model, random):
    name = one(random, (name for node in model.graph.node for name in node.output if name))
    model.graph.output.add(name=name)


@edit("interface", "graph", ("magika", "silero", "silero_ifs"))
def an_input_gets_a_default(model, random):
    name = one(random, model.graph.input).name
    if name in [tensor.name for tensor in model.graph.initializer]:
        raise NoPlace
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [1], [0.5]))


# Two networks that had one digest once, because importers could read them differently.


@edit("one digest once", "refused")
def an_attribute_has_two_values(model, random):
    attribute = one(random, (a for a in attributes(model) if not a.ref_attr_name))
    if attribute.type == AttributeProto.INT:
        attribute.f = 0.5
    else:
        attribute.i = 2
    return f"attribute '{attribute.name}' has .* expected .* alone for its type"


@edit("one digest once", "refused")
def an_attribute_outside_of_functions_is_a_reference(model, random):
    attribute = one(
        random, (a for scope, n in nodes(model) if root(scope) is None for a in n.attribute)
    )
    attribute.ref_attr_name = "alpha"
    return f"attribute '{attribute.name}' refers to 'alpha' of a function, expected that in"


@edit("one digest once", "refused", (), ["function"])
def a_reference_has_a_value_too(model, random):
    attribute = one(random, (a for a in attributes(model) if a.ref_attr_name))
    attribute.f = 0.5
    return f"attribute '{attribute.name}' has f and a reference, expected no value beside it"


@edit("one digest once", "refused", WITH_IFS, ["if"])
def a_subgraph_defines_a_name_of_a_graph_around_it(model, random):
    scope, node = one(random, ((scope, node) for scope, node in nodes(model) if scope.outer))
    outer = scope.outer
    while outer.outer and random.random() < 0.5:
        outer = outer.outer
    node.output.append(one(random, sorted(outer.names)))
    return f"defines '{re.escape(node.output[-1])}', which a graph around it defines too"


# What follows was written for the count of mutations (run.py): neighbours of what is above.

# Pairs of operators that take the same operands and attributes.
ALIKE = ["Add Sub", "Mul Div", "Relu Sigmoid", "Tanh Neg", "Max Min", "And Or", "Greater Less"]
ALIKE += ["ReduceSum ReduceMean", "ReduceMax ReduceMin", "Softmax LogSoftmax", "Ceil Floor"]
ALIKE += ["Sin Cos", "Exp Abs", "MaxPool AveragePool", "ArgMax ArgMin", "Elu ThresholdedRelu"]
ALIKE = dict(pair.split() for pair in ALIKE) | {b: a for a, b in map(str.split, ALIKE)}

DEFINED = "defined_here"  # a domain and an operator that no model has


@edit("operator", "graph", kinds=["binary", "unary", "attribute", "weight"])
def an_operator_becomes_a_similar_one(model, random):
    """Add becomes Sub: valid with the same operands."""
    _, node = one(random, ((s, node) for s, node in nodes(model) if node.op_type in ALIKE))
    node.op_type = ALIKE[node.op_type]


@edit("operator", "graph")
def a_function_takes_the_place_of_an_operator(model, random):
    """A local function with the operator's own domain and name: the node calls it."""
    called = {(domain_of(f.domain), f.name, f.overload) for f in model.functions}
    _, node = one(
        random,
        (
            (scope, node)
            for scope, node in nodes(model)
            if (domain_of(node.domain), node.op_type, node.overload) not in called
        ),
    )
    function = model.functions.add(
        name=node.op_type, domain=node.domain, overload=node.overload, output=["out"]
    )
    function.node.append(helper.make_node("Body", [], ["out"], domain=DEFINED))
    function.opset_import.add(domain=DEFINED, version=1)


@edit("opset", "only graph", (), None)
def the_version_of_ai_onnx_changes_though_no_node_is_of_it(model, random):
    """Importers use it for nodes of other domains too."""
    if any(domain_of(node.domain) == "" for _, node in nodes(model)):
        raise NoPlace
    version = one(random, (v for v in model.opset_import if domain_of(v.domain) == ""))
    version.version += random.choice([-1, 1])


@edit("attribute", "only graph", ("squeezenet",), None)
def two_attributes_exchange_their_values(model, random):
    a, b = one(
        random,
        (
            (a, b)
            for _, node in nodes(model)
            for i, a in enumerate(node.attribute)
            for b in list(node.attribute)[:i]
            if a.type == b.type and not list(subgraphs(a)) and without_name(a) != without_name(b)
        ),
    )
    a.name, b.name = b.name, a.name


def without_name(attribute):
    copy = AttributeProto.FromString(attribute.SerializeToString())
    copy.name = ""
    return copy.SerializeToString(deterministic=True)


@edit("attribute", "only graph", kinds=["attribute"])
def an_attribute_gets_another_type(model, random):
    """A number becomes a list of one."""
    lists = {AttributeProto.INT: "ints", AttributeProto.FLOAT: "floats"}
    lists[AttributeProto.STRING] = "strings"
    a = one(random, (a for a in attributes(model) if a.type in lists and not a.ref_attr_name))
    value = helper.get_attribute_value(a)
    a.CopyFrom(AttributeProto(name=a.name, type=a.type + 5))
    getattr(a, lists[a.type - 5]).append(value)


@edit("attribute", "only graph", (), ["random"])
def a_list_in_an_attribute_is_reversed(model, random):
    values = one(
        random,
        (
            values
            for a in attributes(model)
            for values in (a.ints, a.floats, a.strings)
            if list(values) != list(values)[::-1]
        ),
    )
    values[:] = list(values)[::-1]


@edit("attribute", "only graph", (), ["attribute", "attribute", "attribute"])
def two_nodes_exchange_their_attributes(model, random):
    """Two nodes of one operator: which of them has the large slope?"""
    found = [(s, n) for s, n in nodes(model) if not any(map(has_subgraph, n.attribute))]
    a, b = one(
        random,
        (
            (a, b)
            for i, (s, a) in enumerate(found)
            for t, b in found[:i]
            if (a.op_type, a.domain) == (b.op_type, b.domain)
            and root(s) is root(t)
            and written(a) != written(b)
        ),
    )
    moved = [AttributeProto.FromString(x.SerializeToString()) for x in a.attribute]
    del a.attribute[:]
    a.attribute.extend(b.attribute)
    del b.attribute[:]
    b.attribute.extend(moved)


def has_subgraph(attribute):
    return any(True for _ in subgraphs(attribute))


def written(node):
    """A node's attributes, by their names."""
    found = sorted(node.attribute, key=lambda a: a.name)
    return [(a.name, a.type, a.ref_attr_name, without_name(a)) for a in found]


def constants(model):
    return [a.t for a in attributes(model) if a.type == AttributeProto.TENSOR and a.HasField("t")]


@edit("type", "only graph", ("silero", "silero_ifs"), ["constant"])
def a_constants_element_type_changes(model, random):
    tensor = one(random, (t for t in constants(model) if t.data_type in BITS))
    store_raw(tensor)
    bits = BITS[tensor.data_type]
    tensor.data_type = random.choice(
        [kind for kind in BITS if BITS[kind] == bits and kind != tensor.data_type]
    )


@edit("type", "only graph", ("silero", "silero_ifs"), ["constant"])
def a_constants_shape_changes(model, random):
    tensor = one(random, constants(model))
    tensor.dims.insert(random.randrange(len(tensor.dims) + 1), 1)


@edit("type", "only graph", (), ["cast"])
def a_cast_goes_to_another_type(model, random):
    a = one(
        random,
        (a for _, n in nodes(model) if n.op_type == "Cast" for a in n.attribute if a.name == "to"),
    )
    a.i = random.choice([kind for kind in BITS if kind != a.i])


@edit("type", "graph", WITH_WEIGHTS, ["weight"])
def a_weight_is_of_whole_numbers(model, random):
    """Converted, not only called so: shape and place in the file stay."""
    _, weight = one(random, ((s, w) for s, w in weights(model) if w.data_type == TensorProto.FLOAT))
    store_raw(weight)
    numbers = np.nan_to_num(np.frombuffer(weight.raw_data, "<f4"))
    weight.raw_data = np.clip(numbers, -(2**30), 2**30).astype("<i4").tobytes()
    weight.data_type = TensorProto.INT32


@edit("edge", "graph")
def a_node_is_put_between(model, random):
    scope, node, i = one(
        random, ((s, n, i) for s, n in nodes(model) for i, name in enumerate(n.input) if name)
    )
    name = f"between_{random.random()}"
    index = next(k for k, other in enumerate(scope.proto.node) if other is node)
    between = helper.make_node("Neg", [node.input[i]], [name])
    if random.random() < 0.5:
        between.domain = DEFINED
    import_domain(model, between.domain)
    node.input[i] = name
    scope.proto.node.insert(index, between)


@edit("edge", "graph")
def a_node_is_left_out(model, random):
    """What it took goes on to where it went."""
    node, i, name = one(
        random,
        (
            (node, i, scope.proto.node[scope.computed[name][0]].input[0])
            for scope, node in nodes(model)
            for i, name in enumerate(node.input)
            if name in scope.computed and scope.proto.node[scope.computed[name][0]].input
        ),
    )
    node.input[i] = name


@edit("edge", "graph")
def an_operand_is_what_another_node_computes(model, random):
    scope, node, i = one(
        random, ((s, n, i) for s, n in nodes(model) for i, name in enumerate(n.input) if name)
    )
    before = []
    for other in scope.proto.node:
        if other is node:
            break
        before += [name for name in other.output if name]
    name = one(
        random,
        (n for n in before if definition(scope, n) != definition(scope, node.input[i])),
    )
    node.input[i] = name


@edit("edge", "graph", kinds=["binary", "quantize"])
def an_operand_is_taken_twice(model, random):
    node, i, j = one(
        random,
        (
            (node, i, j)
            for scope, node in nodes(model)
            for i, a in enumerate(node.input)
            for j, b in enumerate(node.input)
            if definition(scope, a) != definition(scope, b)
        ),
    )
    node.input[i] = node.input[j]


@edit("edge", "graph", ("magika", "silero"), ["binary", "binary", "clip"])
def two_nodes_exchange_an_operand(model, random):
    """Both operands are inputs or weights, so that no cycle comes of it."""
    places = [
        (scope.proto, node, i, definition(scope, name))
        for scope, node in nodes(model)
        for i, name in enumerate(node.input)
        if name in scope.inputs or name in scope.initializers
    ]
    first, a, i, what = one(random, places)
    b, j = one(
        random,
        (
            (node, j)
            for proto, node, j, other in places
            if proto is first and node is not a and other != what
        ),
    )
    a.input[i], b.input[j] = b.input[j], a.input[i]


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def a_weight_is_reversed(model, random):
    reorder(model, random, lambda elements: elements[::-1])


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def two_elements_of_a_weight_change_places(model, random):
    def swapped(elements):
        elements = elements.copy()
        i, j = random.randrange(len(elements)), random.randrange(len(elements))
        elements[[i, j]] = elements[[j, i]]
        return elements

    reorder(model, random, swapped)


def reorder(model, random, change):
    _, weight = one(
        random, ((s, w) for s, w in weights(model) if BITS.get(w.data_type, 1) % 8 == 0)
    )
    store_raw(weight)
    before = weight.raw_data
    elements = np.frombuffer(before, f"V{BITS[weight.data_type] // 8}")
    if not len(elements):
        raise NoPlace
    weight.raw_data = change(elements).tobytes()
    if weight.raw_data == before:
        raise NoPlace


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def all_weights_have_the_other_sign(model, random):
    change_floats(model, np.negative)


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def all_weights_become_zero(model, random):
    change_floats(model, np.zeros_like)


@edit("weight", "only weights", WITH_WEIGHTS, ["weight"])
def all_weights_lose_half_their_bits(model, random):
    """As a network that went through bfloat16."""
    change_floats(model, lambda numbers: (numbers.view("<u4") & 0xFFFF0000).view("<f4"))


@edit("weight", "graph", ("magika",), ["weight"])
def a_weight_has_its_dimensions_in_another_order(model, random):
    _, weight = one(
        random, ((s, w) for s, w in weights(model) if list(w.dims) != list(w.dims)[::-1])
    )
    weight.dims[:] = list(weight.dims)[::-1]


@edit("weight", "graph", WITH_WEIGHTS, ["weight"])
def a_weight_becomes_an_input(model, random):
    name = one(
        random,
        (w.name for s, w in weights(model) if s.proto is model.graph and w.name not in s.inputs),
    )
    index = next(i for i, w in enumerate(model.graph.initializer) if w.name == name)
    weight = model.graph.initializer.pop(index)
    if name not in [info.name for info in model.graph.input]:
        info = helper.make_tensor_value_info(name, weight.data_type, weight.dims)
        model.graph.input.append(info)


@edit("weight", "only weights", (), ["sparse"])
def a_sparse_weight_has_its_values_elsewhere(model, random):
    _, tensor = one(random, weights(model, onnx.SparseTensorProto))
    flip_bit(random, random.choice([tensor.indices, tensor.values]))


@edit("subgraph", "graph", WITH_IFS, ["if", "if", "if"])
def a_subgraph_takes_another_value_from_around_it(model, random):
    node, i, name = one(
        random,
        (
            (node, i, name)
            for scope, node in nodes(model)
            if scope.outer
            for i, used in enumerate(node.input)
            if used and not scope.defines(used)
            for name in [*scope.outer.inputs, *scope.outer.initializers]
            if name and definition(scope, name) != definition(scope, used)
        ),
    )
    node.input[i] = name


@edit("subgraph", "graph", (), ["loop", "loop"])
def an_input_is_that_of_the_same_number_around(model, random):
    """Only how far out it is tells one from the other."""
    node, i, name = one(
        random,
        (
            (node, i, outer.inputs[scope.inputs.index(used)])
            for scope, node in nodes(model)
            for i, used in enumerate(node.input)
            if scope.outer and used in scope.inputs and used not in scope.initializers
            for outer in list(around(scope))[1:]
            if not outer.is_function and len(outer.inputs) > scope.inputs.index(used)
        ),
    )
    node.input[i] = name


@edit("subgraph", "graph", WITH_IFS, ["if", "if"])
def a_subgraph_puts_out_another_value(model, random):
    output, name = one(
        random,
        (
            (scope.proto.output[i], name)
            for scope, counted in bodies(model)
            if scope.outer
            for i, used in enumerate(scope.outputs)
            for name in [*scope.inputs, *(n for node in counted for n in node.output if n)]
            if definition(scope, name) != definition(scope, used)
        ),
    )
    output.name = name


@edit("subgraph", "graph", (), ["loop"])
def outputs_of_a_subgraph_change_places(model, random):
    outputs = one(
        random,
        (
            scope.proto.output
            for scope, _ in bodies(model)
            if scope.outer
            and len(scope.outputs) > 1
            and definition(scope, scope.outputs[0]) != definition(scope, scope.outputs[1])
        ),
    )
    outputs[0].name, outputs[1].name = outputs[1].name, outputs[0].name


@edit("subgraph", "graph", (), ["loop"])
def an_input_of_a_subgraph_gets_a_default(model, random):
    scope = one(random, (scope for scope, _ in bodies(model) if scope.outer and scope.inputs))
    name = one(random, (n for n in scope.inputs if n and n not in scope.initializers))
    scope.proto.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [1], [0.5]))


@edit("subgraph", "graph", WITH_IFS, ["if"])
def a_subgraph_gets_an_output(model, random):
    scope = one(random, (scope for scope, _ in bodies(model) if scope.outer))
    scope.proto.output.add(name=one(random, scope.outputs))


@edit("function", "graph", (), ["function"])
def a_function_puts_out_another_value(model, random):
    output, i, name = one(
        random,
        (
            (scope.proto.output, i, name)
            for scope, counted in bodies(model)
            if scope.is_function
            for i, used in enumerate(scope.outputs)
            for name in [*scope.inputs, *(n for node in counted for n in node.output if n)]
            if definition(scope, name) != definition(scope, used)
        ),
    )
    output[i] = name


@edit("function", "only graph", (), ["function"])
def two_references_of_a_function_change_places(model, random):
    a, b = one(
        random,
        (
            (a, b)
            for scope, counted in bodies(model)
            if scope.is_function
            for a in (a for node in counted for a in node.attribute if a.ref_attr_name)
            for b in (b for node in counted for b in node.attribute if b.ref_attr_name)
            if a.ref_attr_name != b.ref_attr_name
        ),
    )
    a.ref_attr_name, b.ref_attr_name = b.ref_attr_name, a.ref_attr_name


@edit("function", "graph", (), ["function"] * 3)
def two_functions_exchange_their_names(model, random):
    found = [(scope.proto, [n.op_type for n in counted]) for scope, counted in bodies(model)]
    found = [
        (proto, operators) for proto, operators in found if isinstance(proto, onnx.FunctionProto)
    ]
    a, b = one(
        random, ((a, b) for a, first in found for b, second in found if len(first) < len(second))
    )
    for key in ("domain", "name", "overload"):
        first, second = getattr(a, key), getattr(b, key)
        setattr(a, key, second)
        setattr(b, key, first)


@edit("interface", "graph", ("silero", "silero_ifs", "squeezenet"))
def an_input_takes_the_place_of_another(model, random):
    """Each name stays where it was declared, and goes where the other one went."""
    used = {name for _, node in nodes(model) for name in node.input}
    names = [info.name for info in model.graph.input]
    a, b = one(random, ((a, b) for a in names for b in names if a != b and a in used))
    for old, new in ((a, "\0"), (b, a), ("\0", b)):
        for node in model.graph.node:
            replace_input(node, old, new)
        for output in model.graph.output:
            output.name = new if output.name == old else output.name


@edit("interface", "graph", ("silero",), ["unary", "random", "cast"])
def two_outputs_exchange_their_names(model, random):
    scope = Scope(model.graph, {})
    values = [info for info in model.graph.output if info.name in scope.computed]
    a, b = one(
        random,
        (
            (a, b)
            for a in values
            for b in values
            if definition(scope, a.name) != definition(scope, b.name)
        ),
    )
    old, new = a.name, b.name
    for node in model.graph.node:
        node.output[:] = [{old: new, new: old}.get(name, name) for name in node.output]
        for before, after in ((old, "\0"), (new, old), ("\0", new)):
            replace_input(node, before, after)


@edit("interface", "graph", ("silero", "silero_ifs"), ["unary", "random", "cast"])
def an_output_is_gone(model, random):
    if len(model.graph.output) < 2:
        raise NoPlace
    model.graph.output.pop(random.randrange(len(model.graph.output)))


@edit("interface", "only graph")
def an_input_or_output_becomes_a_sequence(model, random):
    value = one(random, [*model.graph.input, *model.graph.output])
    inner = onnx.TypeProto.FromString(value.type.SerializeToString())
    kind = random.choice(["sequence_type", "optional_type"])
    getattr(value.type, kind).elem_type.CopyFrom(inner)


@edit("interface", "only graph")
def an_input_or_output_becomes_sparse(model, random):
    values = [*model.graph.input, *model.graph.output]
    value = one(random, (value for value in values if value.type.HasField("tensor_type")))
    inner = value.type.tensor_type.SerializeToString()
    value.type.sparse_tensor_type.ParseFromString(inner)


@edit("interface", "only graph")
def an_input_or_output_loses_its_type(model, random):
    one(random, [*model.graph.input, *model.graph.output]).ClearField("type")


# Two networks that importers could take for one, or one that readers take for several.


@edit("one digest once", "refused", (), ["if", "if", "if"])
def weights_of_two_subgraphs_have_one_name(model, random):
    """TVM's importer keeps the first when it reads the second."""
    found = [(scope, w) for scope, w in weights(model) if scope.outer]
    for _, weight in found:
        store_raw(weight)
    a, scope, b = one(
        random,
        (
            (a, t, b)
            for s, a in found
            for t, b in found
            if root(s) is root(t)
            and not any(x.proto is t.proto for x in around(s))
            and not any(x.proto is s.proto for x in around(t))
            and (a.data_type, a.dims, a.raw_data) != (b.data_type, b.dims, b.raw_data)
        ),
    )
    for node in scope.proto.node:
        replace_input(node, b.name, a.name)
    for value in [*scope.proto.input, *scope.proto.output]:
        value.name = a.name if value.name == b.name else value.name
    b.name = a.name
    return f"two initializers .*'{re.escape(a.name)}'|'{re.escape(a.name)}'"


def around(scope):
    """A graph and all that it lies in."""
    while scope:
        yield scope
        scope = scope.outer


@edit("one digest once", "refused", (), ["loop"])
def a_value_has_the_name_of_one_of_the_importers(model, random):
    loops = [scope for scope, node in nodes(model) if node.op_type == "Loop"]
    body = one(random, loops)
    while body.outer:
        body = body.outer
    node = one(random, body.proto.node)
    node.output.append("max_count")
    return "max_count"


@edit("one digest once", "refused", (), ["loop", "if", "if"])
def nodes_of_a_subgraph_are_in_another_order(model, random):
    graph, i, j = one(
        random,
        (
            (scope.proto, i, j)
            for scope, counted in bodies(model)
            if scope.outer
            for j, node in enumerate(scope.proto.node)
            if any(node is other for other in counted)
            for i in range(j)
            if set(scope.proto.node[i].output) & set(node.input)
        ),
    )
    order = list(range(len(graph.node)))
    order.insert(i, order.pop(j))
    replace(graph.node, [graph.node[k] for k in order])
    return "behind|order"


@edit("one digest once", "refused")
def a_value_is_computed_twice(model, random):
    scope, node = one(random, nodes(model))
    name = one(random, (name for name in node.output if name))
    more = scope.proto.node.add(op_type="Neg", output=[name])
    more.input.extend(node.input)
    return "defined twice|defines"


@edit("one digest once", "refused")
def an_attribute_stands_twice(model, random):
    node = one(random, (node for _, node in nodes(model) if node.attribute))
    more = node.attribute.add()
    more.CopyFrom(random.choice(node.attribute[:-1]))
    return "twice"


@edit("one digest once", "refused")
def an_operator_set_is_imported_in_two_versions(model, random):
    version = one(random, (v for v in model.opset_import if domain_of(v.domain) == ""))
    model.opset_import.add(domain=random.choice(["", "ai.onnx"]), version=version.version + 1)
    return "in the versions"


@edit("one digest once", "refused", WITH_WEIGHTS, ["weight"])
def a_weight_is_in_two_places(model, random):
    _, weight = one(random, ((s, w) for s, w in weights(model) if w.data_type == TensorProto.FLOAT))
    store_raw(weight)
    weight.float_data.append(0.5)
    return "holds data in"


@edit("one digest once", "refused")
def a_message_has_a_field_that_nobody_knows(model, random):
    message = one(random, [model, model.graph, *(node for _, node in nodes(model))])
    message.MergeFromString(b"\xfa\x3e\x01x")  # field 1007
    return "field"
