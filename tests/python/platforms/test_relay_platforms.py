# SPDX-License-Identifier: Apache-2.0
"""Relay for other platforms: kernels beside code.ro, and single files."""

import shutil

import pytest
import tvm
from cross import PLATFORMS, leaky, linker, llvm
from tvm import relay
from tvm.contrib import cc
from tvm.runtime import vm_hash

pytest.register_assert_rewrite("cross_tests")
from cross_tests import *  # noqa: E402, F403 - the tests that hold for either engine
from cross_tests import Built  # noqa: E402
from treatments import Export  # noqa: E402

from tvm_model_hash import DuplicateRecordError, Status, check, read_record  # noqa: E402

# This TVM's LLVM has no back ends for the others.
NAMES = [name for name in PLATFORMS if name not in ("linux-riscv64", "linux-s390x", "wasm32")]


def compile_model(model, target, **keywords):
    mod, params = relay.frontend.from_onnx(model, **keywords)
    return relay.vm.compile(mod, target, params=params)


def build(name, root, alpha=0.1, **keywords):
    platform = PLATFORMS[name]
    executable = compile_model(leaky(alpha), tvm.target.Target(platform.target), **keywords)
    deployment = root / "deployment"
    deployment.mkdir(parents=True)
    code, kernels = executable.save()
    (deployment / "code.ro").write_bytes(code)
    kernels.export_library(str(deployment / platform.library), fcompile=linker(name))
    executable.mod.export_library(str(root / platform.library), fcompile=linker(name))
    executable.mod.export_library(str(root / "lib.tar"))
    executable.mod.export_library(str(root / "lib.a"), fcompile=cc.create_staticlib)
    names = (platform.library, "lib.tar", "lib.a")
    return Built(
        platform,
        vm_hash.get_record(executable),
        deployment,
        {
            deployment / platform.library: "TVM kernel library",
            **dict.fromkeys((root / name for name in names), "Relay VM executable"),
        },
    )


@pytest.fixture(scope="module", params=NAMES)
def built(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp(request.param), get_hash=True)


@pytest.fixture(scope="module")
def export():
    platforms = ("linux-x86_64", "macos-arm64", "windows-x86_64")
    targets = {name: tvm.target.Target(PLATFORMS[name].target) for name in platforms}
    executables = {
        name: compile_model(leaky(), target, get_hash=True) for name, target in targets.items()
    }
    with tvm.transform.PassContext(config={"tir.disable_vectorize": True}):
        executables["c"] = compile_model(leaky(), tvm.target.Target("c"), get_hash=True)
    records = {name: vm_hash.get_record(executable) for name, executable in executables.items()}

    def to(name, path, **options):
        executables[name].lib.export_library(str(path), **options)

    return Export("relay", records, to)


# Several platforms in one deployment


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Code and kernels of two models, for two platforms."""
    root = tmp_path_factory.mktemp("mixed")
    for alpha in (0.1, 0.2):
        for name in ("macos-arm64", "macos-x86_64"):
            build(name, root / str(alpha) / name, alpha, get_hash=True)
    return root


def test_code_and_kernels_for_several_platforms_are_one_deployment(mixed, tmp_path):
    for name in ("macos-arm64", "macos-x86_64"):
        shutil.copytree(mixed / "0.1" / name / "deployment", tmp_path / "d" / name)
    assert check(leaky(0.1), tmp_path / "d").status is Status.MATCH
    assert check(leaky(0.2), tmp_path / "d").status is Status.MISMATCH
    # The kernels for one of them are of another model.
    kernels = "macos-arm64/lib.dylib"
    shutil.copy(mixed / "0.2/macos-arm64/deployment/lib.dylib", tmp_path / "d" / kernels)
    for alpha in (0.1, 0.2):
        verdict = check(leaky(alpha), tmp_path / "d")
        assert verdict.status is Status.MISMATCH
        assert repr(kernels) in verdict.reason


@pytest.mark.parametrize("place", ["deployment/lib.dylib", "lib.dylib"])
def test_a_universal_library_is_of_the_model_of_all_its_slices(place, mixed, tmp_path):
    both = tmp_path / "both.dylib"
    arm64 = mixed / "0.1/macos-arm64" / place
    llvm("llvm-lipo", "-create", arm64, mixed / "0.1/macos-x86_64" / place, "-output", both)
    # They are of two compilations; what is left is what they have in common.
    found, record = read_record(both), read_record(arm64)
    assert found.with_fields(None) == record.with_fields(None)
    recipe = [(key, value) for key, value in record.extra if key in ("tvm", "shapes")]
    assert list(found.extra) == recipe
    assert check(leaky(0.1), both).status is Status.MATCH
    assert check(leaky(0.2), both).status is Status.MISMATCH
    llvm("llvm-lipo", "-create", arm64, mixed / "0.2/macos-x86_64" / place, "-output", both)
    with pytest.raises(DuplicateRecordError):
        check(leaky(0.1), both)
