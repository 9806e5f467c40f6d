# SPDX-License-Identifier: Apache-2.0
"""What a release has written, this version reads: the files of tests/artifacts."""

import json
import platform
import shutil

import numpy as np
import onnx.numpy_helper
import pytest
from conftest import ROOT

from tvm_model_hash import BrokenSealError, Status, check, model_record, verify_seal

ENGINES = sorted((ROOT / "tests" / "artifacts").glob("*/*/expected.json"))
FORMS = [
    pytest.param(path.parent / form, id="-".join((*path.parts[-3:-1], form)))
    for path in ENGINES
    for form in json.loads(path.read_text())["forms"]
]


def said(form):
    return json.loads((form.parent / "expected.json").read_text())


def test_each_release_has_artifacts_of_both_engines():
    releases = {path.parts[-3] for path in ENGINES}
    assert {path.parts[-3:-1] for path in ENGINES} == {
        (release, engine) for release in releases for engine in ("relay", "relax")
    }
    assert releases


@pytest.mark.parametrize("engine", ENGINES, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_the_digests_of_a_model_are_unchanged(engine):
    record = json.loads(engine.read_text())["record"]
    assert str(model_record(engine.parents[1] / "model.onnx")) == record


@pytest.mark.parametrize("form", FORMS)
def test_what_was_a_match_is_one_and_its_parts_say_what_they_said(form):
    verdict = check(form.parents[1] / "model.onnx", form)
    assert (verdict.status, verdict.sealed) == (Status.MATCH, True)
    found = {
        part.name: {"kind": part.artifact.kind, "record": part.record and str(part.record)}
        for part in verdict.deployment.parts
    }
    assert found == said(form)["forms"][form.name]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_changed_since_is_told(form, tmp_path):
    copy = tmp_path / form.name
    shutil.copytree(form, copy)
    verify_seal(copy)
    for name in said(form)["forms"][form.name]:
        path = copy / name
        if path.is_file():  # and not in an archive
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(BrokenSealError, match=path.name):
                verify_seal(copy)
            path.write_bytes(data)
    assert check("0" * 64, copy).status is Status.MISMATCH


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are of this machine")
@pytest.mark.parametrize(
    "form",  # nothing is loaded from an archive
    [form for form in FORMS if "-relay-" in form.id and "archive" not in form.id],
)
def test_what_relay_compiled_runs(form):
    import tvm
    from tvm.runtime import vm_hash

    path = form.parents[1] / "model.onnx"
    loaded = vm_hash.load(form, tvm.cpu(), expected=path)
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    if isinstance(loaded, tvm.runtime.vm.VirtualMachine):
        y = loaded.run(x)
    else:
        loaded.run(x=x)
        y = loaded.get_output(0)
    expected = x @ onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    expected = np.where(expected < 0, 0.1 * expected, expected)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
