# SPDX-License-Identifier: Apache-2.0
"""What the digests of a model depend on, and what not, by editing models.

Each test is an edit, made at random places of generated models and of real networks. Only
edits at places that count are made: nodes and weights that an output depends on.
"""

import functools
import importlib.util
import random
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from canonical_reference import BITS, Scope, domain_of, subgraphs, typed
from graph_strategies import models
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from tvm_model_hash.errors import InvalidModelError
from tvm_model_hash.model.digest import model_record

# Networks in wheels: file's package and path. Squeezenet is of IR version 3 (its weights are
# inputs), magika and the first of silero's have weights, the second has nested Ifs and
# everything else in Constants.
NETWORKS = {
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "silero": ("silero_vad", "data/silero_vad_16k_sequence.onnx"),
    "silero_ifs": ("silero_vad", "data/silero_vad.onnx"),
    "squeezenet": ("onnx", "backend/test/data/light/light_squeezenet.onnx"),
}
WITH_WEIGHTS = ("magika", "silero")
WITH_IFS = ("silero_ifs",)


@functools.cache
def network(name):
    """A network and its record."""
    package, path = NETWORKS[name]
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    model = onnx.load(Path(spec.origin).parent / path)
    return model, model_record(model)


def edit_test(compare, networks, kinds):
    """Make a test of an edit: ``edit(model, random)`` changes the model in its place.

    ``networks`` are those that have a place for the edit, and ``kinds`` are the steps that
    generated models need to have one (see graph_strategies.py).
    """

    def decorate(edit):
        @pytest.mark.parametrize("source", ["generated", *networks])
        def test(source):
            generated = source == "generated"
            cases = (
                models(kinds).map(lambda model: (model, model_record(model)))
                if generated
                else st.just(network(source))
            )

            @settings(max_examples=20 if generated else 2, deadline=None)
            @given(cases, st.integers(0, 2**32))
            def run(case, seed):
                model, before = case
                edited = onnx.ModelProto()
                edited.CopyFrom(model)
                edit(edited, random.Random(seed))
                after = model_record(edited)
                if after.model == before.model:
                    reject()
                compare(before, after)

            run()

        test.__name__ = test.__qualname__ = edit.__name__
        return test

    return decorate


def unchanged(networks=tuple(NETWORKS), kinds=()):
    def compare(before, after):
        assert (after.graph, after.weights) == (before.graph, before.weights)

    return edit_test(compare, networks, kinds)


def changes_graph(networks=tuple(NETWORKS), kinds=()):
    def compare(before, after):
        assert after.graph != before.graph

    return edit_test(compare, networks, kinds)


def changes_only_graph(networks=tuple(NETWORKS), kinds=()):
    def compare(before, after):
        assert after.graph != before.graph
        assert after.weights == before.weights

    return edit_test(compare, networks, kinds)


def changes_only_weights(networks=WITH_WEIGHTS, kinds=()):
    def compare(before, after):
        assert after.graph == before.graph
        assert after.weights != before.weights

    return edit_test(compare, networks, kinds)


def refused(networks=tuple(NETWORKS), kinds=()):
    """Make a test of an edit after which readers differ in what the model is."""

    def decorate(edit):
        @pytest.mark.parametrize("source", ["generated", *networks])
        def test(source):
            generated = source == "generated"
            cases = models(kinds) if generated else st.just(network(source)[0])

            @settings(max_examples=20 if generated else 2, deadline=None)
            @given(cases, st.integers(0, 2**32))
            def run(model, seed):
                edited = onnx.ModelProto()
                edited.CopyFrom(model)
                message = edit(edited, random.Random(seed))
                with pytest.raises(InvalidModelError, match=message):
                    model_record(edited)

            run()

        test.__name__ = test.__qualname__ = edit.__name__
        return test

    return decorate


# Places in models.


def one(random, places):
    """One of the places; a model without any is no case for the test."""
    places = list(places)
    if not places:
        reject()
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
    return "weight", weight.data_type, tuple(weight.dims)


def weights(model):
    """The counted weights, as (scope, tensor)."""
    found = []
    for scope, counted in bodies(model):
        for name in [name for node in counted for name in node.input] + scope.outputs:
            at = scope
            while name and not at.defines(name):
                at = at.outer
            if name in at.initializers and (at, at.initializers[name]) not in found:
                found.append((at, at.initializers[name]))
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
    store_raw(tensor)
    data = bytearray(tensor.raw_data)
    if not data:
        reject()
    position = random.randrange(len(data))
    data[position] ^= 1 if tensor.data_type == TensorProto.BOOL else 1 << random.randrange(8)
    tensor.raw_data = bytes(data)


# Cosmetic edits.


@unchanged()
def test_unchanged_when_doc_strings_are_added(model, random):
    for message in messages(model):
        if "doc_string" in fields(message):
            message.doc_string = "text"


@unchanged()
def test_unchanged_when_metadata_is_added(model, random):
    for message in messages(model):
        if "metadata_props" in fields(message):
            message.metadata_props.add(key="key", value="value")


@unchanged()
def test_unchanged_when_producer_and_versions_of_the_model_change(model, random):
    model.producer_name += "another"
    model.producer_version += "1"
    model.domain += "com.example"
    model.model_version += 1
    model.ir_version += 1


@unchanged()
def test_unchanged_when_nodes_graphs_and_tensors_in_attributes_are_renamed(model, random):
    for message in messages(model):
        if isinstance(message, onnx.NodeProto | onnx.GraphProto):
            message.name = f"renamed_{random.random()}"
        if isinstance(message, AttributeProto):
            for tensor in [message.t] if message.HasField("t") else message.tensors:
                tensor.name = f"renamed_{random.random()}"


@unchanged()
def test_unchanged_when_internal_values_are_renamed(model, random):
    interface = [value.name for value in [*model.graph.input, *model.graph.output]]
    rename(model.graph, {name: name for name in interface}, random)
    for function in model.functions:
        rename(function, {}, random)


def rename(body, outer, random):
    scope = Scope(body, {})
    names = dict(outer)
    for name in [*scope.inputs, *scope.initializers, *scope.computed]:
        if names.get(name) != name:  # the model's inputs and outputs keep their names
            names[name] = f"renamed_{random.random()}"
    for node in body.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for graph in subgraphs(attribute):
                rename(graph, names, random)
    if scope.is_function:
        body.input[:] = [names[name] for name in body.input]
        body.output[:] = [names[name] for name in body.output]
    else:
        for value in [*body.input, *body.output, *body.initializer]:
            value.name = names[value.name]
    for value in body.value_info:
        value.name = names.get(value.name, value.name)


@unchanged()
def test_unchanged_when_independent_nodes_are_reordered(model, random):
    for message in list(messages(model)):
        if isinstance(message, onnx.GraphProto | onnx.FunctionProto):
            waiting, order = list(message.node), []
            while waiting:
                missing = {name for node in waiting for name in node.output}
                ready = [node for node in waiting if not used(node) & missing]
                order.append(random.choice(ready))
                waiting.remove(order[-1])
            replace(message.node, order)


def used(node):
    """The names that a node and its subgraphs take from the graph around them."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            inner = Scope(graph, {})
            found = set(inner.outputs).union(*map(used, graph.node))
            names |= {name for name in found if not inner.defines(name)}
    return names


@unchanged(("magika", "silero", "squeezenet"), ["weight", "cast"])
def test_unchanged_when_initializers_are_reordered(model, random):
    for graph in graphs(model):
        shuffle(random, graph.initializer)


@unchanged(kinds=["if"])
def test_unchanged_when_attributes_are_reordered(model, random):
    for message in list(messages(model)):
        if isinstance(message, onnx.NodeProto):
            shuffle(random, message.attribute)


@unchanged((), ["function", "function"])
def test_unchanged_when_functions_and_imports_are_reordered(model, random):
    shuffle(random, model.functions)
    for message in [model, *model.functions]:
        shuffle(random, message.opset_import)


@unchanged()
def test_unchanged_when_imports_and_functions_that_nothing_uses_are_added(model, random):
    model.opset_import.add(domain="unused", version=3)
    nodes = [helper.make_node("G", ["a"], ["b"], domain="unused")]
    imports = [helper.make_opsetid("unused", 3)]
    model.functions.insert(0, helper.make_function("unused", "F", ["a"], ["b"], nodes, imports))


@unchanged((*WITH_WEIGHTS, "silero_ifs"), ["weight", "constant"])
def test_unchanged_when_tensors_are_stored_in_typed_fields(model, random):
    stored = {
        TensorProto.FLOAT: ("float_data", "<f4"),
        TensorProto.DOUBLE: ("double_data", "<f8"),
        TensorProto.INT64: ("int64_data", "<i8"),
        TensorProto.INT32: ("int32_data", "<i4"),
        TensorProto.FLOAT16: ("int32_data", "<u2"),
        TensorProto.INT8: ("int32_data", "<i1"),
        TensorProto.UINT8: ("int32_data", "<u1"),
        TensorProto.BOOL: ("int32_data", "<u1"),
    }
    for tensor in tensors(model):
        if tensor.HasField("raw_data"):
            field, dtype = stored[tensor.data_type]
            getattr(tensor, field).extend(np.frombuffer(tensor.raw_data, dtype).tolist())
            tensor.ClearField("raw_data")


@unchanged(("squeezenet",), ["clip"])
def test_unchanged_when_tensors_are_stored_in_raw_bytes(model, random):
    for tensor in tensors(model):
        store_raw(tensor)


@unchanged((*WITH_WEIGHTS, "silero_ifs"), ["weight", "constant"])
def test_unchanged_when_tensors_come_from_an_external_file(model, random):
    for tensor in tensors(model):
        store_raw(tensor)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.onnx")
        onnx.save_model(
            model, path, save_as_external_data=True, size_threshold=0, convert_attribute=True
        )
        assert [file for file in Path(directory).iterdir() if file != path]
        model.CopyFrom(onnx.load(path))


@unchanged()
def test_unchanged_when_unused_initializers_are_added(model, random):
    for graph in graphs(model):
        name = f"unused_{random.random()}"
        graph.initializer.insert(0, helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, 2.0]))


@unchanged()
def test_unchanged_when_dead_nodes_are_added(model, random):
    for scope, counted in bodies(model):
        one_, two, three = (f"dead_{random.random()}" for _ in range(3))
        value = random.choice([name for node in counted for name in node.output if name] or [""])
        branch = helper.make_graph(
            [helper.make_node("Neg", [two], ["b"])],
            "branch",
            [],
            [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
        )
        scope.proto.node.extend(
            [
                helper.make_node("Exp", [value], [one_]),
                helper.make_node("Add", [one_, value], [two]),
                helper.make_node("If", [one_], [three], then_branch=branch, else_branch=branch),
            ]
        )


@unchanged()
def test_unchanged_when_value_info_is_replaced(model, random):
    for scope, counted in bodies(model):
        del scope.proto.value_info[:]
        for node in counted:
            info = helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, ["any"])
            scope.proto.value_info.append(info)


@unchanged(WITH_IFS, ["loop"])
def test_unchanged_when_types_of_a_subgraphs_outputs_are_dropped(model, random):
    for graph in graphs(model)[1:]:
        for value in graph.output:
            value.ClearField("type")


@unchanged()
def test_unchanged_when_annotations_denotations_and_training_are_added(model, random):
    for message in messages(model):
        if "denotation" in fields(message):
            message.denotation = "IMAGE"
    model.graph.quantization_annotation.add(tensor_name=model.graph.input[0].name)
    model.training_info.add().algorithm.name = "training"


@unchanged()
def test_unchanged_when_the_default_domain_is_spelled_ai_onnx(model, random):
    for message in messages(model):
        if isinstance(message, onnx.NodeProto | onnx.OperatorSetIdProto) and not message.domain:
            message.domain = "ai.onnx"


@unchanged((), ["if", "if", "if"])
def test_unchanged_when_a_subgraphs_weight_moves_into_the_models_graph(model, random):
    scope, weight = one(random, ((s, t) for s, t in weights(model) if s.outer and root(s) is None))
    name = f"moved_{random.random()}"
    for node in scope.proto.node:
        replace_input(node, weight.name, name)
    for output in scope.proto.output:
        if output.name == weight.name:
            output.name = name
    model.graph.initializer.add().CopyFrom(weight)
    model.graph.initializer[-1].name = name
    scope.proto.initializer.remove(weight)


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


# Edits of nodes.


@changes_graph()
def test_changes_if_an_operator_changes(model, random):
    _, node = one(random, nodes(model))
    node.op_type += "Else"
    import_domain(model, node.domain)


@changes_graph()
def test_changes_if_a_domain_changes(model, random):
    _, node = one(random, nodes(model))
    for message in [model, *model.functions]:
        for entry in message.opset_import:
            if domain_of(entry.domain) == domain_of(node.domain):
                message.opset_import.add(domain="com.example", version=entry.version)
    node.domain = "com.example"


def import_domain(model, domain):
    for message in [model, *model.functions]:
        if domain not in [entry.domain for entry in message.opset_import]:
            message.opset_import.add(domain=domain, version=1)


@changes_only_graph()
def test_changes_if_an_operator_sets_version_changes(model, random):
    functions = [(f.domain, f.name, f.overload) for f in model.functions]
    scope, node = one(
        random,
        (
            (scope, node)
            for scope, node in nodes(model)
            if (node.domain, node.op_type, node.overload) not in functions
        ),
    )
    for entry in (root(scope) or model).opset_import:
        if domain_of(entry.domain) == domain_of(node.domain):
            entry.version += 1


@changes_only_graph()
def test_changes_if_an_attributes_value_changes(model, random):
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
    else:
        raise AssertionError(f"no edit for an attribute of type {a.type}")


@changes_only_graph()
def test_changes_if_an_attribute_is_renamed(model, random):
    one(random, (a for a in attributes(model) if not list(subgraphs(a)))).name += "_another"


@changes_only_graph()
def test_changes_if_an_attribute_is_added(model, random):
    _, node = one(random, nodes(model))
    value = random.choice([0, 0.0, "", [1], [1.0], [""]])
    node.attribute.append(helper.make_attribute("another", value))


@changes_only_graph()
def test_changes_if_an_attribute_is_removed(model, random):
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


@changes_only_graph(("silero", "silero_ifs"), ["constant"])
def test_changes_if_a_bit_of_a_constant_flips(model, random):
    attribute = one(random, (a for a in attributes(model) if a.type == AttributeProto.TENSOR))
    flip_bit(random, attribute.t)


@changes_graph()
def test_changes_if_operands_change_places(model, random):
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


@changes_graph()
def test_changes_if_an_operand_is_another_value(model, random):
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


@changes_graph()
def test_changes_if_an_input_becomes_empty(model, random):
    node, i = one(
        random,
        ((node, i) for _, node in nodes(model) for i, name in enumerate(node.input) if name),
    )
    node.input[i] = ""


@changes_graph((), ["clip"])
def test_changes_if_an_empty_input_is_left_out(model, random):
    node = one(random, (node for _, node in nodes(model) if "" in node.input))
    node.input.remove("")


@changes_only_graph()
def test_changes_if_an_empty_input_is_appended(model, random):
    _, node = one(random, nodes(model))
    node.input.append("")


@changes_only_graph((), ["dropout", "dropout", "dropout"])
def test_changes_if_an_unused_output_becomes_empty(model, random):
    # The mask of a Dropout, which nothing uses here.
    node = one(
        random, (node for _, node in nodes(model) if node.op_type == "Dropout" and node.output[1:])
    )
    node.output[1] = ""


@changes_only_graph()
def test_changes_if_an_output_is_appended(model, random):
    _, node = one(random, nodes(model))
    node.output.append(f"more_{random.random()}")


@changes_only_graph((), ["split"])
def test_changes_if_another_output_of_a_node_is_used(model, random):
    node = one(random, (node for _, node in nodes(model) if node.op_type == "Split"))
    node.output[:] = reversed(node.output)


@changes_graph(("magika", "silero", "silero_ifs"), ["random"])
def test_changes_if_a_shared_node_is_duplicated(model, random):
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


@changes_graph(WITH_WEIGHTS, ["weight"])
def test_changes_if_a_weights_element_type_changes(model, random):
    _, weight = one(random, weights(model))
    store_raw(weight)
    bits = BITS[weight.data_type]
    others = [kind for kind in BITS if BITS[kind] == bits and kind != weight.data_type]
    weight.data_type = random.choice(others)


@changes_graph(WITH_WEIGHTS, ["weight"])
def test_changes_if_a_weights_shape_changes(model, random):
    _, weight = one(random, weights(model))
    weight.dims.insert(random.randrange(len(weight.dims) + 1), 1)


@changes_graph((), ["quantize"])
def test_changes_if_a_shared_weight_is_duplicated(model, random):
    node = one(random, (node for _, node in nodes(model) if node.op_type == "DequantizeLinear"))
    scope = next(scope for scope, counted in bodies(model) if node in counted)
    if node.input[1] not in scope.initializers:
        reject()
    scope.proto.initializer.add().CopyFrom(scope.initializers[node.input[1]])
    scope.proto.initializer[-1].name = node.input[1] = f"copy_{random.random()}"


@changes_only_weights(kinds=["weight"])
def test_changes_if_a_bit_of_a_weight_flips(model, random):
    _, weight = one(random, weights(model))
    flip_bit(random, weight)


@changes_only_weights(kinds=["weight"])
def test_changes_if_a_network_is_tuned_again(model, random):
    for _, weight in weights(model):
        store_raw(weight)
        if weight.data_type == TensorProto.FLOAT:
            numbers = np.frombuffer(weight.raw_data, "<f4")
            weight.raw_data = (numbers * 1.01 + 0.001).astype("<f4").tobytes()


@changes_only_weights(kinds=["weight", "weight"])
def test_changes_if_two_weights_of_one_type_change_places(model, random):
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


@changes_graph(WITH_IFS, ["if"])
def test_changes_if_a_subgraph_changes(model, random):
    node = one(random, (node for scope, node in nodes(model) if scope.outer))
    node.op_type += "Else"
    import_domain(model, node.domain)


@changes_graph(WITH_IFS, ["if", "if", "if"])
def test_changes_if_the_branches_of_an_if_change_places(model, random):
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


@changes_graph((), ["loop"])
def test_changes_if_inputs_of_a_subgraph_change_places(model, random):
    inputs, i = one(
        random,
        (
            (scope.proto.input, scope.inputs.index(name))
            for scope, counted in bodies(model)
            for name in scope.inputs
            if scope.outer and any(name in node.input for node in counted)
        ),
    )
    j = random.choice([j for j in range(len(inputs)) if j != i])
    inputs[i].name, inputs[j].name = inputs[j].name, inputs[i].name


@changes_graph((), ["function"])
def test_changes_if_a_function_changes(model, random):
    node = one(random, (node for scope, node in nodes(model) if root(scope)))
    node.op_type += "Else"
    import_domain(model, node.domain)


@changes_only_graph((), ["function"])
def test_changes_if_a_functions_default_changes(model, random):
    function = one(random, model.functions)
    change(function.attribute_proto[0], random)


@changes_only_graph((), ["function"])
def test_changes_if_a_function_loses_a_default(model, random):
    function = one(random, model.functions)
    function.attribute.append(function.attribute_proto.pop().name)


@changes_only_graph((), ["function"])
def test_changes_if_a_function_gets_an_input(model, random):
    one(random, model.functions).input.append("another")


@changes_graph((), ["function"])
def test_changes_if_inputs_of_a_function_change_places(model, random):
    function = one(random, model.functions)
    function.input[:] = reversed(function.input)


@changes_only_graph((), ["function"])
def test_changes_if_a_function_gets_another_name_or_overload(model, random):
    function = one(random, model.functions)
    name, overload = random.choice([(function.name + "_", ""), (function.name, "another")])
    for _, node in nodes(model):
        if (node.domain, node.op_type) == (function.domain, function.name):
            node.op_type, node.overload = name, overload
    function.name, function.overload = name, overload


@changes_graph((), ["function"])
def test_changes_if_a_function_is_gone(model, random):
    model.functions.remove(one(random, model.functions))


@changes_only_graph((), ["loop"])
def test_changes_if_a_type_of_a_subgraphs_input_changes(model, random):
    scope = one(random, (scope for scope, _ in bodies(model) if scope.outer and scope.inputs))
    one(random, scope.proto.input).type.tensor_type.elem_type += 1


# Edits of the interface.


@changes_only_graph()
def test_changes_if_an_input_is_renamed(model, random):
    value = one(random, model.graph.input)
    old, value.name = value.name, f"renamed_{random.random()}"
    for node in model.graph.node:
        replace_input(node, old, value.name)
    for tensor in model.graph.initializer:
        tensor.name = value.name if tensor.name == old else tensor.name


@changes_only_graph()
def test_changes_if_an_output_is_renamed(model, random):
    value = one(random, model.graph.output)
    name = f"renamed_{random.random()}"
    for node in model.graph.node:
        node.output[:] = [name if output == value.name else output for output in node.output]
        replace_input(node, value.name, name)
    value.name = name


@changes_only_graph(("magika", "silero", "silero_ifs", "squeezenet"))
def test_changes_if_the_type_of_an_input_or_output_changes(model, random):
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


@changes_only_graph(("silero", "silero_ifs"), ["cast"])
def test_changes_if_a_size_of_an_input_or_output_changes(model, random):
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


@changes_only_graph((), ["cast"])
def test_changes_if_inputs_change_order(model, random):
    shuffle(random, model.graph.input)


@changes_graph(("silero", "silero_ifs"), ["random", "unary", "cast"])
def test_changes_if_outputs_change_order(model, random):
    shuffle(random, model.graph.output)


@changes_only_graph()
def test_changes_if_an_unused_input_is_added(model, random):
    model.graph.input.add(name=f"unused_{random.random()}")


@changes_graph()
def test_changes_if_an_output_is_added(model, random):
    name = one(random, (name for node in model.graph.node for name in node.output if name))
    model.graph.output.add(name=name)


@changes_graph(("magika", "silero", "silero_ifs"))
def test_changes_if_an_input_gets_a_default(model, random):
    name = one(random, model.graph.input).name
    if name in [tensor.name for tensor in model.graph.initializer]:
        reject()
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [1], [0.5]))


# Two networks that had one digest once, because importers could read them differently.


@refused()
def test_refused_if_an_attribute_has_two_values(model, random):
    attribute = one(random, (a for a in attributes(model) if not a.ref_attr_name))
    if attribute.type == AttributeProto.INT:
        attribute.f = 0.5
    else:
        attribute.i = 2
    return f"attribute '{attribute.name}' has .* expected .* alone for its type"


@refused()
def test_refused_if_an_attribute_outside_of_functions_is_a_reference(model, random):
    attribute = one(
        random, (a for scope, n in nodes(model) if root(scope) is None for a in n.attribute)
    )
    attribute.ref_attr_name = "alpha"
    return f"attribute '{attribute.name}' refers to 'alpha' of a function, expected that in"


@refused((), ["function"])
def test_refused_if_a_reference_has_a_value_too(model, random):
    attribute = one(random, (a for a in attributes(model) if a.ref_attr_name))
    attribute.f = 0.5
    return f"attribute '{attribute.name}' has f and a reference, expected no value beside it"


@refused(WITH_IFS, ["if"])
def test_refused_if_a_subgraph_defines_a_name_of_a_graph_around_it(model, random):
    scope, node = one(random, ((scope, node) for scope, node in nodes(model) if scope.outer))
    outer = scope.outer
    while outer.outer and random.random() < 0.5:
        outer = outer.outer
    node.output.append(one(random, sorted(outer.names)))
    return f"defines '{re.escape(node.output[-1])}', which a graph around it defines too"


@settings(max_examples=20, deadline=None)
@given(models())
def test_changes_if_the_version_of_ai_onnx_changes_though_no_node_is_of_it(model):
    for message in messages(model):
        if isinstance(message, onnx.NodeProto) and domain_of(message.domain) == "":
            message.domain = "com.example"
    for message in [model, *model.functions]:
        message.opset_import.add(domain="com.example", version=1)
    before = model_record(model)
    versions = [entry for entry in model.opset_import if domain_of(entry.domain) == ""]
    versions[0].version += 1
    after = model_record(model)
    assert after.graph != before.graph
    assert after.weights == before.weights
