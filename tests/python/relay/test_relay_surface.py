# SPDX-License-Identifier: Apache-2.0
"""What is patched looks as it did, and its warnings are shown at the caller's line."""

import functools
import warnings

import beartype
import onnx
import pytest
import tvm
import wrapt
from conftest import layer
from surface import assert_as_good, warned
from tvm import relay
from tvm.driver import tvmc
from tvm.relay.frontend import from_onnx
from tvm.runtime import relay_vm_hash, vm_hash
from tvm.runtime.vm import Executable

from tvm_model_hash import activation, model_record, versions
from tvm_model_hash.integration import hash_by_default


def test_what_is_patched_looks_as_it_did():
    assert_as_good(activation.PATCHES, "tvm.relay.frontend.onnx.from_onnx", "get_hash=None")


def test_what_an_import_returns_is_shown_as_it_was():
    stock, arrays = from_onnx(layer(), freeze_params=False)
    mod, params = from_onnx(layer(), freeze_params=False, get_hash=True)
    assert repr(params) == repr(arrays)
    main = mod["main"].without_attr("model_hash").without_attr("model_hash_record")
    assert repr(tvm.IRModule.from_expr(main)) == repr(stock)


# Importers in what others wrap them in.
IMPORTERS = {
    "plain": lambda: from_onnx,
    "partial": lambda: functools.partial(from_onnx),
    "wrapt": lambda: wrapt.synchronized(from_onnx),
    "beartype": lambda: beartype.beartype(from_onnx),
    "contextlib": lambda: hash_by_default(True)(from_onnx),
}


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_model_that_contradicts_itself(name):
    model = layer()
    del model.opset_import[:]
    model.opset_import.add(domain="unused", version=1)
    importer = IMPORTERS[name]()
    with warned(__file__, "the model's hash alone"):
        importer(model, opset=15, get_hash=True)  # here


def test_a_model_that_tvmc_loads(tmp_path):
    model = layer()
    model.graph.node.add(op_type="Relu", input=["y"], output=["y"])
    onnx.save(model, tmp_path / "model.onnx")
    with warned(__file__, "the model's hash alone"):
        tvmc.load(str(tmp_path / "model.onnx"), get_hash=True)  # here


def test_a_version_that_is_not_tested(monkeypatch):
    monkeypatch.setattr(versions, "RELAY_TVM_VERSIONS", ())
    monkeypatch.setattr(activation, "_told", False)
    with warned(__file__, "is not tested with TVM"):
        from_onnx(layer(), get_hash=True)  # here


def test_parameters_that_know_more_than_the_module():
    mod, params = from_onnx(layer(), get_hash=True)
    function = relay.Function(mod["main"].params, mod["main"].body)
    with warned(__file__, "nothing that is compiled gets a hash"):
        relay.build(function, "llvm", params=params)  # here


def test_a_library_that_does_not_fit(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(relay_vm_hash, "_library_path", lambda: str(tmp_path / "broken.so"))
    monkeypatch.setattr(relay_vm_hash, "get_global_func", lambda *_, **__: None)
    monkeypatch.setattr(relay_vm_hash, "_writer", relay_vm_hash._writer.__wrapped__)
    mod, _ = from_onnx(layer(), get_hash=True)
    with warned(__file__, "does not fit the running TVM"):
        relay.vm.compile(mod, "llvm")  # here


def test_code_that_has_no_place_for_a_record(tmp_path):
    mod, _ = from_onnx(layer())
    code, lib = relay.vm.compile(mod, "llvm").save()
    lib.export_library(str(tmp_path / "lib.so"))
    exe = Executable.load_exec(code, tvm.runtime.load_module(str(tmp_path / "lib.so")))
    with warned(__file__, "gets no record"):
        vm_hash.set_record(exe, model_record(layer()))  # here


def test_it_is_one_warning_per_line_and_an_error_for_who_wants_that():
    model = layer()
    model.graph.node.add(op_type="Relu", input=["y"], output=["y"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            from_onnx(model, get_hash=True)
        from_onnx(model, get_hash=True)
    lines = [one.lineno for one in caught if issubclass(one.category, RuntimeWarning)]
    assert len(lines) == len({*lines}) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(RuntimeWarning, match="the model's hash alone"):
            from_onnx(model, get_hash=True)
