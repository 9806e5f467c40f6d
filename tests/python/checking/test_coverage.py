# SPDX-License-Identifier: Apache-2.0
"""What a match covers: for each form of Relay's in docs/coverage.md, each part in turn."""

import tarfile

import onnx
import onnx.parser
import pytest
import tvm
from conftest import NETWORKS
from deployments import (
    VARIANTS,
    check_anonymous_parts,
    check_cuts,
    check_exchanges,
    listed_forms,
    network,
)
from tvm import relay
from tvm.runtime import vm_hash

from tvm_model_hash import Status, check

TARGET = "llvm"


def save_vm(mod, params, directory, byte_limit=None):
    """As vm_hash.save does it, and also without a hash."""
    exe = relay.vm.compile(mod, TARGET, params=params)
    if byte_limit is not None:
        exe.move_late_bound_consts(str(directory / "consts"), byte_limit)
    code, lib = exe.save()
    (directory / "code.ro").write_bytes(code)
    lib.export_library(str(directory / "lib.so"))


def save_single(mod, params, directory):
    exe = relay.vm.compile(mod, TARGET, params=params)
    exe.mod.export_library(str(directory / "single.so"))


def save_single_tar(mod, params, directory):
    exe = relay.vm.compile(mod, TARGET, params=params)
    exe.mod.export_library(str(directory / "single.tar"))


def save_graph(mod, params, directory):
    relay.build(mod, TARGET, params=params).export_library(str(directory / "graph.so"))


def save_graph_apart(mod, params, directory):
    factory = relay.build(mod, TARGET, params=params)
    factory.get_lib().export_library(str(directory / "lib.so"))
    (directory / "graph.json").write_text(factory.get_graph_json())
    (directory / "params").write_bytes(relay.save_param_dict(factory.get_params()))


def save_archive(mod, params, directory):
    inner = directory.parent / f"{directory.name}-inner"
    inner.mkdir()
    save_vm(mod, params, inner)
    with tarfile.open(directory / "package.tar", "w") as archive:
        for path in sorted(inner.iterdir()):
            archive.add(path, path.name)


def save_late(mod, params, directory):
    save_vm(mod, params, directory, 256)


FORMS = {
    "Relay VM": (save_vm, ["code.ro", "lib.so"]),
    "Relay VM, constants apart": (save_late, ["code.ro", "lib.so", "consts"]),
    "Relay VM, single file": (save_single, ["single.so"]),
    "Relay VM, single file: tar": (save_single_tar, ["single.tar"]),
    "Relay graph executor, single file": (save_graph, ["graph.so"]),
    "Relay graph executor, apart": (save_graph_apart, ["graph.json", "lib.so", "params"]),
    "an archive": (save_archive, ["package.tar"]),
}


def build(form, directory, get_hash=True, **variant):
    directory.mkdir()
    mod, params = relay.frontend.from_onnx(network(**variant), get_hash=get_hash)
    FORMS[form][0](mod, params, directory)
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("forms")
    done = {}

    def get(form, name, **variant):
        if (form, name) not in done:
            directory = root / f"{len(done)}"
            done[form, name] = build(form, directory, name != "stock", **variant)
        return done[form, name]

    return get


def test_the_documentation_lists_these_forms():
    assert {row for row in listed_forms() if not row.startswith(("Relax", "several"))} == {
        form.partition(":")[0] for form in FORMS
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_part_of_another_model_is_told(form, variant, made, tmp_path):
    other = made(form, variant, **VARIANTS[variant])
    first, names = made(form, "first"), FORMS[form][1]
    what = "of different models" if len(names) > 1 else "other"
    if variant == "a weight" and len(names) == 1:
        what = "other weights"
    check_exchanges(network(), first, other, names, tmp_path, what=what)


@pytest.mark.parametrize("form", [form for form in FORMS if len(FORMS[form][1]) > 1])
def test_a_part_of_another_compilation_is_told(form, made, tmp_path):
    check_exchanges(
        network(),
        made(form, "first"),
        made(form, "second"),
        FORMS[form][1],
        tmp_path,
        what="two compilations of this model",
    )


@pytest.mark.parametrize("form", FORMS)
def test_an_anonymous_part_is_no_match(form, made, tmp_path):
    check_anonymous_parts(
        network(), made(form, "first"), made(form, "stock"), FORMS[form][1], tmp_path
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_part_that_was_cut_is_no_match(form, made, tmp_path):
    check_cuts(network(), made(form, "first"), FORMS[form][1], tmp_path)


def test_quantized_kernels_of_another_scale_are_told(tmp_path):
    directories = []
    for scale in (8.0, 2.0):
        mod, params = relay.frontend.from_onnx(network(rows=1), get_hash=True)
        with relay.quantize.qconfig(
            calibrate_mode="global_scale", global_scale=scale, skip_dense_layer=False
        ):
            mod = relay.quantize.quantize(mod, params)
        directories.append(tmp_path / str(scale))
        directories[-1].mkdir()
        save_vm(mod, None, directories[-1])
    check_exchanges(
        network(),
        *directories,
        ["code.ro", "lib.so"],
        tmp_path,
        what="two compilations of this model",
    )


@pytest.mark.parametrize("byte_limit", [None, 1024])
def test_a_part_of_another_fine_tune_of_a_real_network_is_told(byte_limit, tmp_path):
    models, names = [], ["code.ro", "lib.so"] + ["consts"] * (byte_limit is not None)
    for name in ("first", "tuned"):
        model = onnx.load(NETWORKS["magika"].path)
        if name == "tuned":
            weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
            weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
        mod, _ = relay.frontend.from_onnx(model, NETWORKS["magika"].shape, get_hash=True)
        exe = relay.vm.compile(mod, TARGET)
        vm_hash.save(exe, tmp_path / name, byte_limit, seal=False)
        models.append(model)
    check_exchanges(
        models[0],
        tmp_path / "first",
        tmp_path / "tuned",
        names,
        tmp_path,
        what="of different models",
    )


def test_a_graph_with_parameters_of_no_model_but_its_own_runs_as_stock(made):
    """What a match covers runs: the tagged files are good for the stock executor."""
    directory = made("Relay graph executor, apart", "first")
    lib = tvm.runtime.load_module(str(directory / "lib.so"))
    graph = tvm.contrib.graph_executor.create(
        (directory / "graph.json").read_text(), lib, tvm.cpu()
    )
    graph.load_params((directory / "params").read_bytes())
    graph.run()
    assert check(network(), directory).status is Status.MATCH
