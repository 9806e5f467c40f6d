# SPDX-License-Identifier: Apache-2.0
"""Make the artifacts of a release, which every later version has to read and check.

Once for a release, in an environment of each engine, the newest of Relax's::

    .venv-test/bin/python tests/release_artifacts.py
    .venv-relax-0.27.0.post1/bin/python tests/release_artifacts.py

They are kept under ``tests/artifacts/<version>/<engine>/<form>/``, each with a manifest and a
``hash.txt``; the model lies with the version, what the parts say in ``expected.json``.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from importlib import metadata

# The n-th compilation has the same build each time; and TVM does not look for schedules.
os.environ.setdefault("TVM_MODEL_HASH_BUILD", "release")
os.environ.setdefault("TOPHUB_LOCATION", "NONE")

TESTS = pathlib.Path(__file__).parent
ARTIFACTS = TESTS / "artifacts"
sys.path[:0] = [str(TESTS / "python" / folder) for folder in ("", "checking", "relax")]

import onnx  # noqa: E402
import tvm  # noqa: E402
from deployments import network  # noqa: E402

from tvm_model_hash import check, model_hash, model_record, seal  # noqa: E402
from tvm_model_hash.checking.hash_file import write_hash_file  # noqa: E402


def relay_forms():
    from test_coverage import FORMS
    from tvm import relay

    def save(form, directory):
        mod, params = relay.frontend.from_onnx(network(), get_hash=True)
        FORMS[form][0](mod, params, directory)

    return dict.fromkeys(FORMS, save)


def relax_forms():
    from test_relax_coverage import FORMS, save_cache

    saves = {**{form: FORMS[form][0] for form in FORMS}, "Relax, tensor cache": save_cache}
    return {
        form: lambda _, directory, save=save: save(network(), directory, True)
        for form, save in saves.items()
    }


def main():
    """Write the artifacts of this engine."""
    engine, forms = (
        ("relax", relax_forms)
        if hasattr(tvm, "relax") and not hasattr(tvm, "relay")
        else ("relay", relay_forms)
    )
    version = ARTIFACTS / metadata.version("tvm-model-hash")
    version.mkdir(parents=True, exist_ok=True)
    onnx.save(network(), version / "model.onnx")
    expected = {}
    shutil.rmtree(version / engine, ignore_errors=True)
    for form, save in forms().items():
        directory = version / engine / re.sub("[^a-z]+", "-", form.lower()).strip("-")
        with tempfile.TemporaryDirectory() as made:  # some forms leave files beside it
            inside = pathlib.Path(made, "form")
            inside.mkdir()
            save(form, inside)
            shutil.copytree(inside, directory)
        write_hash_file(directory, model_hash(network()))
        seal(directory)
        verdict = check(version / "model.onnx", directory).require(exact=True)
        expected[directory.name] = {
            part.name: {"kind": part.artifact.kind, "record": part.record and str(part.record)}
            for part in verdict.deployment.parts
        }
    said = {"record": str(model_record(version / "model.onnx")), "tvm": tvm.__version__}
    text = json.dumps({**said, "forms": expected}, indent=1)
    (version / engine / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
