# SPDX-License-Identifier: Apache-2.0
"""What is patched looks as it did, and its warnings are shown at the caller's line."""

import functools

import pytest
import tvm
from conftest import layer
from surface import assert_as_good, warned
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash

from tvm_model_hash import activation, model_record, versions
from tvm_model_hash.integration import hash_by_default


def test_what_is_patched_looks_as_it_did():
    assert_as_good(
        activation.RELAX_PATCHES,
        "tvm.relax.frontend.onnx.onnx_frontend.from_onnx",
        "get_hash: bool | None = None",
    )


IMPORTERS = {
    "plain": lambda: from_onnx,
    "partial": lambda: functools.partial(from_onnx),
    "contextlib": lambda: hash_by_default(True)(from_onnx),
}


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_model_that_contradicts_itself(name):
    model = layer()
    model.graph.node.add(op_type="Relu", input=["y"], output=["y"])  # defines y again
    importer = IMPORTERS[name]()
    with warned(__file__, "the model's hash alone"):
        importer(model, get_hash=True)  # here


def test_a_version_that_is_not_tested(monkeypatch):
    monkeypatch.setattr(versions, "RELAX_TVM_VERSIONS", ())
    monkeypatch.setattr(activation, "_told", False)
    with warned(__file__, "is not tested with TVM"):
        from_onnx(layer(), get_hash=True)  # here


def test_code_that_has_no_place_for_a_record(stock):
    executable = relax.VMExecutable(tvm.runtime.load_module(stock / "lib.so"))
    with warned(__file__, "gets no record"):
        vm_hash.set_record(executable, model_record(layer()))  # here
