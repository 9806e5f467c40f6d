# SPDX-License-Identifier: Apache-2.0
"""What a match covers: for each form of Relax's in docs/coverage.md, each part in turn."""

import numpy as np
import pytest
import safetensors.numpy
import tvm
from deployments import (
    VARIANTS,
    check_anonymous_parts,
    check_cuts,
    check_exchanges,
    listed_forms,
    network,
)
from tvm import relax
from tvm.contrib import tvmjs
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx

from tvm_model_hash import Status, check, model_record, read_artifact, seal, write_record


def save_bound(model, directory, get_hash, name="lib.so", target="llvm"):
    relax.build(from_onnx(model, get_hash=get_hash), target).export_library(directory / name)


def save_tar(model, directory, get_hash):
    save_bound(model, directory, get_hash, "lib.tar")


def save_apart(model, directory, get_hash, write, name):
    """As TVM's tutorials do it; of the file of weights the record is put in by hand."""
    mod, params = detach_params(from_onnx(model, keep_params_in_input=True, get_hash=get_hash))
    relax.build(mod, "llvm").export_library(directory / "lib.so")
    (weights,) = params["main"]
    write(directory / name, weights)
    if get_hash:
        write_record(directory / name, model_record(model))


def write_list(path, weights):
    tvm.runtime.save_param_dict_to_file({"w": weights}, str(path))


def write_npz(path, weights):
    np.savez(path, p_0=weights.numpy())  # as the tutorials name them


def write_safetensors(path, weights):
    safetensors.numpy.save_file({"w": weights.numpy()}, path)


def write_cache(path, weights):
    tvmjs.dump_tensor_cache({"w": weights.numpy()}, str(path.parent), show_progress=False)


def save_list(model, directory, get_hash):
    save_apart(model, directory, get_hash, write_list, "params.bin")


def save_npz(model, directory, get_hash):
    save_apart(model, directory, get_hash, write_npz, "weights.npz")


def save_safetensors(model, directory, get_hash):
    save_apart(model, directory, get_hash, write_safetensors, "weights.safetensors")


def save_cache(model, directory, get_hash):
    save_apart(model, directory, get_hash, write_cache, "tensor-cache.json")


def save_platforms(model, directory, get_hash):
    save_bound(model, directory, get_hash)
    # Object files, which no linker for that machine is needed for.
    arm = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"})
    save_bound(model, directory, get_hash, "lib-arm.tar", arm)


FORMS = {
    "Relax": (save_bound, ["lib.so"]),
    "Relax: tar": (save_tar, ["lib.tar"]),
    "Relax, weights apart": (save_list, ["lib.so", "params.bin"]),
    "Relax, weights apart: npz": (save_npz, ["lib.so", "weights.npz"]),
    "Relax, weights apart: safetensors": (save_safetensors, ["lib.so", "weights.safetensors"]),
    "several platforms": (save_platforms, ["lib.so", "lib-arm.tar"]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("forms")
    done = {}

    def get(save, name, **variant):
        if (save, name) not in done:
            done[save, name] = root / f"{len(done)}"
            done[save, name].mkdir()
            save(network(**variant), done[save, name], name != "stock")
        return done[save, name]

    return get


def test_the_documentation_lists_these_forms():
    assert {row for row in listed_forms() if row.startswith(("Relax", "several"))} == {
        *(form.partition(":")[0] for form in FORMS),
        "Relax, weights in a tensor cache",
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_part_of_another_model_is_told(form, variant, made, tmp_path):
    save, names = FORMS[form]
    what = "of different models"
    if len(names) == 1:
        what = "other weights" if variant == "a weight" else "other"
    other = made(save, variant, **VARIANTS[variant])
    check_exchanges(network(), made(save, "first"), other, names, tmp_path, what=what)


@pytest.mark.parametrize("form", FORMS)
def test_an_anonymous_part_is_no_match(form, made, tmp_path):
    save, names = FORMS[form]
    check_anonymous_parts(network(), made(save, "first"), made(save, "stock"), names, tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_part_that_was_cut_is_no_match(form, made, tmp_path):
    save, names = FORMS[form]
    # One of several libraries that is empty is one that is not there.
    check_cuts(network(), made(save, "first"), names, tmp_path, first=form == "several platforms")


@pytest.mark.skipif(not hasattr(tvmjs, "dump_tensor_cache"), reason="this TVM has no such file")
def test_the_shards_of_a_tensor_cache_are_covered_by_a_seal_only(tmp_path):
    directories = []
    for name, variant in (("first", {}), ("second", VARIANTS["a weight"])):
        directories.append(tmp_path / name)
        directories[-1].mkdir()
        save_cache(network(**variant), directories[-1], True)
        copy = directories[-1] / "tensor-cache-b16.json"  # which TVM writes, too
        write_record(copy, model_record(network(**variant)))
    first, second = directories
    (shard,) = read_artifact(first / "tensor-cache.json").files
    verdict = check(network(), first)
    assert verdict.status is Status.NO_RECORD
    assert f"nothing says which model {shard!r} (weights of tensor-cache" in verdict.reason
    seal(first)
    verdict = check(network(), first)
    assert verdict.status is Status.MATCH
    assert verdict.reason == f"same model; {shard!r} carries no record, and is covered by the seal"
    names = ["lib.so", "tensor-cache.json", shard]
    broken = {"status": Status.BROKEN_SEAL, "what": "the ones that were sealed"}
    check_exchanges(network(), first, second, names, tmp_path, **broken)
    check_cuts(network(), first, names, tmp_path)


def test_weights_that_are_missing_or_left_over_are_told(tmp_path):
    save_list(network(), tmp_path, True)
    weights = tvm.runtime.load_param_dict_from_file(str(tmp_path / "params.bin"))["w"]
    for names, message in (
        (["v"], "needs the tensor 'w'"),
        (["w", "v"], "has the tensor 'v', which no part needs"),
        ([], "needs the tensor 'w'"),
    ):
        tensors = dict.fromkeys(names, weights)
        tvm.runtime.save_param_dict_to_file(tensors, str(tmp_path / "params.bin"))
        write_record(tmp_path / "params.bin", model_record(network()))
        with pytest.raises(ValueError, match=message):
            check(network(), tmp_path)
