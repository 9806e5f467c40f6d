# SPDX-License-Identifier: Apache-2.0
"""What the attacks share: deployments of real compilations, and what it is to be stopped."""

import pathlib
import re
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / place) for place in ("reference", "tests/python", "tests/python/model")]

from tvm_model_hash import ModelHashError, check  # noqa: E402 (behind the path)


class NotStoppedError(AssertionError):
    """The attack went through."""


def verdict(model, artifact, status, words):
    """Check that a check gives a verdict and says so in its words: give its sentence."""
    found = check(model, artifact)
    if found.status is not status or not re.search(words, found.reason):
        raise NotStoppedError(f"expected {status.value}: {words!r}, found {found}")
    return f"{found.status.value.replace('_', ' ')}: {found.reason}"


def error(action, words, kind=ModelHashError):
    """Check that something ends in an error of ours in its words: give its message."""
    try:
        result = action()
    except kind as raised:
        if not re.search(words, str(raised)):
            raise NotStoppedError(f"expected {words!r}, found: {raised}") from raised
        return f"{type(raised).__name__}: {raised}"
    raise NotStoppedError(f"expected {words!r}, found no error but {result}")


_made = {}


def deployment(path, form="Relay VM, constants apart", get_hash=True, compilation=1, **variant):
    """A copy of a deployment of a small network in a form of docs/coverage.md.

    Another variant (``scale=2.0``) is another fine-tune, another compilation the same model
    compiled again.
    """
    from checking.test_coverage import build

    key = (form, get_hash, compilation, *variant.items())
    if key not in _made:
        directory = tempfile.TemporaryDirectory()
        made = build(form, pathlib.Path(directory.name, "made"), get_hash, **variant)
        _made[key] = made, directory  # which goes with the process
    shutil.copytree(_made[key][0], path)
    return path


def relax_deployment(path, save, **variant):
    """A deployment by TVM with Relax; ``save`` is the name of a form's function in its tests."""
    from deployments import network
    from relax import test_relax_coverage

    path.mkdir()
    getattr(test_relax_coverage, save)(network(**variant), path, True)
    return path


def main(attack):
    """Run one attack, and print what stopped it."""
    with tempfile.TemporaryDirectory() as directory:
        stopped = attack(pathlib.Path(directory))
        print("stopped:", "".join(c if c.isprintable() else ascii(c)[1:-1] for c in stopped))
