# SPDX-License-Identifier: Apache-2.0
"""Errors and verdicts as values: pickled, copied, printed, and taken for true or false."""

import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle

import onnx
import pytest
from conftest import layer, sha256
from tvm import relay
from tvm.runtime import vm_hash

from tvm_model_hash import ModelHashMismatch, Status, Verdict, check, errors, model_record
from tvm_model_hash.checking.verdict import check_consistent
from tvm_model_hash.model.contents import UnexpectedSizeError

CLASSES = [
    *(c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ValueError)),
    UnexpectedSizeError,
    ModelHashMismatch,
]
VERDICT = Verdict(Status.MISMATCH, model_record(layer(2)), model_record(layer()), "other weights")


def make(cls):
    """An error as it is raised, with all that it can have."""
    if cls is ModelHashMismatch:
        error = cls(VERDICT)
    elif cls is errors.BrokenSealError:
        error = cls("broken", ("a",), ("b",), ("c", "d"))
    else:
        error = cls("what is wrong")
    error.noted = ["by somebody"]
    return error


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    directory = tmp_path_factory.mktemp("values") / "deployment"
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    vm_hash.save(relay.vm.compile(mod, "llvm", params=params), directory)
    return directory


def test_all_errors_are_here():
    assert len(CLASSES) > 20
    assert errors.ModelHashError in CLASSES


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "again",
    [
        *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle {p}" for p in range(6)), "copy", "deepcopy"],
)
def test_an_error_comes_back_as_it_was(cls, again):
    error = make(cls)
    found = again(error)
    assert type(found) is cls
    assert found is not error
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
    # Also where its text was changed on the way.
    error.args = ("another text",)
    assert str(again(error)) == "another text"


def require(model, directory):
    return check(model, directory).require()


def test_a_mismatch_in_a_process_of_a_pool_arrives_with_its_verdict(deployment, tmp_path):
    onnx.save(layer(2), tmp_path / "2.onnx")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        with pytest.raises(ModelHashMismatch, match="other weights") as raised:
            pool.submit(require, tmp_path / "2.onnx", deployment).result()
        verdict = raised.value.verdict
        assert verdict == check(layer(2), deployment)
        assert verdict.deployment.parts
        assert pool.submit(require, sha256(layer()), deployment).result().ok
        (deployment / "hash.txt").write_text("")
        with pytest.raises(ModelHashMismatch) as raised:
            pool.submit(require, tmp_path / "2.onnx", deployment).result()
    assert raised.value.verdict.status is Status.BROKEN_SEAL
    assert raised.value.verdict.changed == ("hash.txt",)
    assert str(raised.value.verdict.deployment.broken) == raised.value.verdict.reason
    (deployment / "hash.txt").write_text(sha256(layer()))


def test_a_verdict_is_as_true_as_it_is_ok():
    for status in Status:
        verdict = Verdict(status, None, None, "why")
        assert bool(verdict) is verdict.ok is (status in (Status.MATCH, Status.EQUIVALENT))
        assert str(verdict) == f"{status.label}: why"
        if not verdict:
            with pytest.raises(ModelHashMismatch, match="why"):
                verdict.require()


def test_parts_are_checked_against_each_other(deployment):
    verdict = check_consistent(deployment)
    assert verdict
    assert (verdict.expected, verdict.found.model) == (None, sha256(layer()))
    assert check_consistent(deployment, sealed=True).status is Status.MATCH
    (deployment / "notes").write_text("")
    assert check_consistent(deployment).status is Status.MATCH
    verdict = check(layer(), deployment, sealed=True)
    assert (verdict.status, verdict.extra) == (Status.BROKEN_SEAL, ("notes",))
    (deployment / "notes").unlink()
