# SPDX-License-Identifier: Apache-2.0
"""Edits that change no more than how a model is written: graph and weights stay."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from canonical_reference import Scope, subgraphs
from onnx import AttributeProto, TensorProto, helper

from .places import (
    bodies,
    fields,
    graphs,
    messages,
    one,
    replace,
    replace_input,
    root,
    shuffle,
    store_raw,
    tensors,
    weights,
)
from .registry import WITH_IFS, WITH_WEIGHTS, NoPlace, cosmetic


@cosmetic()
def doc_strings_are_added(model, random):
    for message in messages(model):
        if "doc_string" in fields(message):
            message.doc_string = "text"


@cosmetic()
def metadata_is_added(model, random):
    for message in messages(model):
        if "metadata_props" in fields(message):
            message.metadata_props.add(key="key", value="value")


@cosmetic()
def producer_and_versions_of_the_model_change(model, random):
    model.producer_name += "another"
    model.producer_version += "1"
    model.domain += "com.example"
    model.model_version += 1
    model.ir_version += 1


@cosmetic()
def nodes_graphs_and_tensors_in_attributes_are_renamed(model, random):
    for message in messages(model):
        if isinstance(message, onnx.NodeProto | onnx.GraphProto):
            message.name = f"renamed_{random.random()}"
        if isinstance(message, AttributeProto):
            for tensor in [message.t] if message.HasField("t") else message.tensors:
                tensor.name = f"renamed_{random.random()}"


@cosmetic()
def internal_values_are_renamed(model, random):
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
        sparse = [tensor.values for tensor in body.sparse_initializer]
        for value in [*body.input, *body.output, *body.initializer, *sparse]:
            value.name = names[value.name]
    for value in body.value_info:
        value.name = names.get(value.name, value.name)


@cosmetic()
def independent_nodes_are_reordered(model, random):
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


@cosmetic(("magika", "silero", "squeezenet"), ["weight", "cast"])
def initializers_are_reordered(model, random):
    for graph in graphs(model):
        shuffle(random, graph.initializer)


@cosmetic(kinds=["if"])
def attributes_are_reordered(model, random):
    for message in list(messages(model)):
        if isinstance(message, onnx.NodeProto):
            shuffle(random, message.attribute)


@cosmetic((), ["function", "function"])
def functions_and_imports_are_reordered(model, random):
    shuffle(random, model.functions)
    for message in [model, *model.functions]:
        shuffle(random, message.opset_import)


@cosmetic()
def imports_and_functions_that_nothing_uses_are_added(model, random):
    domain = f"unused_{random.random()}"
    model.opset_import.add(domain=domain, version=3)
    nodes = [helper.make_node("G", ["a"], ["b"], domain=domain)]
    imports = [helper.make_opsetid(domain, 3)]
    model.functions.insert(0, helper.make_function(domain, "F", ["a"], ["b"], nodes, imports))


@cosmetic((*WITH_WEIGHTS, "silero_ifs"), ["weight", "constant"])
def tensors_are_stored_in_typed_fields(model, random):
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


@cosmetic(("squeezenet",), ["clip"])
def tensors_are_stored_in_raw_bytes(model, random):
    for tensor in tensors(model):
        store_raw(tensor)


@cosmetic((*WITH_WEIGHTS, "silero_ifs"), ["weight", "constant"])
def tensors_come_from_an_external_file(model, random):
    for tensor in tensors(model):
        store_raw(tensor)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.onnx")
        onnx.save_model(
            model, path, save_as_external_data=True, size_threshold=0, convert_attribute=True
        )
        if not [file for file in Path(directory).iterdir() if file != path]:
            raise NoPlace
        model.CopyFrom(onnx.load(path))


@cosmetic()
def unused_initializers_are_added(model, random):
    for graph in graphs(model):
        name = f"unused_{random.random()}"
        graph.initializer.insert(0, helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, 2.0]))


@cosmetic()
def dead_nodes_are_added(model, random):
    for scope, counted in bodies(model):
        one_, two, three, four = (f"dead_{random.random()}" for _ in range(4))
        value = random.choice([name for node in counted for name in node.output if name] or [""])
        branch = helper.make_graph(
            [helper.make_node("Neg", [two], [four])],
            "branch",
            [],
            [helper.make_tensor_value_info(four, TensorProto.FLOAT, None)],
        )
        scope.proto.node.extend(
            [
                helper.make_node("Exp", [value], [one_]),
                helper.make_node("Add", [one_, value], [two]),
                helper.make_node("If", [one_], [three], then_branch=branch, else_branch=branch),
            ]
        )


@cosmetic()
def value_info_is_replaced(model, random):
    for scope, counted in bodies(model):
        del scope.proto.value_info[:]
        for node in counted:
            info = helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, ["any"])
            scope.proto.value_info.append(info)


@cosmetic(WITH_IFS, ["loop"])
def types_of_a_subgraphs_outputs_are_dropped(model, random):
    for graph in graphs(model)[1:]:
        for value in graph.output:
            value.ClearField("type")


@cosmetic()
def annotations_denotations_and_training_are_added(model, random):
    for message in messages(model):
        if "denotation" in fields(message):
            message.denotation = "IMAGE"
    for info in model.graph.input:
        model.graph.quantization_annotation.add(tensor_name=info.name)
    model.training_info.add().algorithm.name = "training"


@cosmetic()
def the_default_domain_is_spelled_ai_onnx(model, random):
    for message in messages(model):
        if isinstance(message, onnx.NodeProto | onnx.OperatorSetIdProto) and not message.domain:
            message.domain = "ai.onnx"


@cosmetic((), ["if", "if", "if"])
def a_subgraphs_weight_moves_into_the_models_graph(model, random):
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
