# SPDX-License-Identifier: Apache-2.0
"""Relax for other platforms. The newest TVM of ours does: the others have the same LLVM."""

import shutil

import pytest
import tvm
from cross import PLATFORMS, leaky, linker, llvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash
from tvm.support import cc

from tvm_model_hash import DuplicateRecordError, RecordError, Status, check, read_record
from tvm_model_hash.cli import main
from tvm_model_hash.versions import RELAX_TVM_VERSIONS

pytest.register_assert_rewrite("cross_tests")
from cross_tests import *  # noqa: E402, F403 - the tests that hold for either engine
from cross_tests import Built  # noqa: E402
from treatments import Export  # noqa: E402

if tvm.__version__ != RELAX_TVM_VERSIONS[-1]:
    pytest.skip(f"done with TVM {RELAX_TVM_VERSIONS[-1]}", allow_module_level=True)


def build(name, root, alpha=0.1, **keywords):
    platform = PLATFORMS[name]
    executable = relax.build(
        from_onnx(leaky(alpha), **keywords), tvm.target.Target(platform.target)
    )
    deployment = root / "deployment"
    deployment.mkdir(parents=True)
    executable.export_library(deployment / platform.library, fcompile=linker(name))
    executable.export_library(root / "lib.tar")
    executable.export_library(root / "lib.a", fcompile=cc.create_staticlib)
    paths = (deployment / platform.library, root / "lib.tar", root / "lib.a")
    return Built(
        platform,
        vm_hash.get_record(executable),
        deployment,
        dict.fromkeys(paths, "Relax VM executable"),
    )


@pytest.fixture(scope="module", params=PLATFORMS)
def built(request, tmp_path_factory):
    return build(request.param, tmp_path_factory.mktemp(request.param), get_hash=True)


@pytest.fixture(scope="module")
def export():
    platforms = ("linux-x86_64", "macos-arm64", "windows-x86_64", "wasm32")
    targets = {name: tvm.target.Target(PLATFORMS[name].target) for name in platforms}
    executables = {
        name: relax.build(from_onnx(leaky(), get_hash=True), target)
        for name, target in {**targets, "c": tvm.target.Target("c")}.items()
    }
    records = {name: vm_hash.get_record(executable) for name, executable in executables.items()}

    def to(name, path, **options):
        executables[name].export_library(path, **options)

    return Export("relax", records, to)


# Several platforms in one deployment

MIXED = ("linux-armv7", "linux-x86_64", "macos-arm64")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Libraries of two models for several platforms, and of one that says nothing."""
    root = tmp_path_factory.mktemp("mixed")
    for alpha in (0.1, 0.2):
        for name in (*MIXED, "macos-x86_64"):
            build(name, root / str(alpha) / name, alpha, get_hash=True)
    executable = relax.build(
        from_onnx(leaky()), tvm.target.Target(PLATFORMS["macos-x86_64"].target)
    )
    executable.export_library(root / "stock.dylib", fcompile=linker("macos-x86_64"))
    return root


def library(mixed, alpha, name):
    return mixed / str(alpha) / name / "deployment" / PLATFORMS[name].library


def test_libraries_for_several_platforms_are_one_deployment(mixed, tmp_path, capsys):
    for name in MIXED:
        shutil.copy(library(mixed, 0.1, name), tmp_path / f"{name}{PLATFORMS[name].library[3:]}")
    verdict = check(leaky(0.1), tmp_path)
    assert verdict.status is Status.MATCH
    assert len(verdict.deployment.parts) == 3
    assert check(leaky(0.2), tmp_path).status is Status.MISMATCH
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for name in MIXED:
        assert f"Relax VM executable  {PLATFORMS[name].name} " in shown
    # One for one of the platforms is of another model.
    shutil.copy(library(mixed, 0.2, "macos-arm64"), tmp_path / "macos-arm64.dylib")
    for alpha in (0.1, 0.2):
        verdict = check(leaky(alpha), tmp_path)
        assert verdict.status is Status.MISMATCH
        assert "'macos-arm64.dylib' is of model" in verdict.reason
    shutil.copy(mixed / "stock.dylib", tmp_path / "macos-arm64.dylib")
    verdict = check(leaky(0.1), tmp_path)
    assert verdict.status is Status.NO_RECORD
    assert "macos-arm64.dylib" in verdict.reason


def test_a_universal_library_is_of_the_model_of_all_its_slices(mixed, tmp_path, capsys):
    arm64, x86_64 = (library(mixed, 0.1, f"macos-{name}") for name in ("arm64", "x86_64"))
    both = tmp_path / "both.dylib"
    llvm("llvm-lipo", "-create", arm64, x86_64, "-output", both)
    # They are of two compilations; what is left is what they have in common.
    found, record = read_record(both), read_record(arm64)
    assert found.with_fields(None) == record.with_fields(None)
    recipe = [(key, value) for key, value in record.extra if key in ("tvm", "shapes")]
    assert list(found.extra) == recipe
    assert check(leaky(0.1), both).status is Status.MATCH
    assert check(leaky(0.2), both).status is Status.MISMATCH
    assert main(["show", str(both)]) == 0
    platforms = {"Mach-O arm64", "Mach-O x86_64"}
    shown = capsys.readouterr().out.splitlines()[0]
    assert "Relax VM executable in a shared library, " in shown
    assert all(name in shown for name in platforms)


@pytest.mark.parametrize(
    ("other", "error"), [("another model", DuplicateRecordError), ("stock", RecordError)]
)
def test_a_universal_library_with_a_slice_of_other_origin_is_an_error(
    other, error, mixed, tmp_path
):
    arm64 = library(mixed, 0.1, "macos-arm64")
    x86_64 = mixed / "stock.dylib" if other == "stock" else library(mixed, 0.2, "macos-x86_64")
    llvm("llvm-lipo", "-create", arm64, x86_64, "-output", tmp_path / "both.dylib")
    with pytest.raises(error):
        check(leaky(0.1), tmp_path / "both.dylib")
