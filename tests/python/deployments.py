# SPDX-License-Identifier: Apache-2.0
"""What every form of a deployment has to stand: parts exchanged, anonymous and cut.

Used with both engines, each for its rows of the table in docs/coverage.md.
"""

import re
import shutil

import onnx.parser
from conftest import ROOT

from tvm_model_hash import ModelHashError, Status, check

CUTS = 200


def network(alpha=0.1, scale=1.0, rows=1):
    """A network with an attribute, a weight and a shape, in one of which each variant differs."""
    weights = ", ".join(f"{scale * i / 512:.6f}" for i in range(512))
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 15]>\n'
        f"g (float[{rows}, 16] x) => (float[{rows}, 32] y) <float[16, 32] w = {{{weights}}}> "
        f"{{ h = MatMul(x, w) y = LeakyRelu <alpha = {alpha}> (h) }}"
    )


VARIANTS = {
    "an attribute": {"alpha": 0.2},
    "a weight": {"scale": 2.0},
    "a shape": {"rows": 2},
}


def listed_forms():
    """The forms that docs/coverage.md lists."""
    text = (ROOT / "docs/coverage.md").read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)
    assert rows[0] == "form"
    return rows[1:]


def exchanged(directory, other, name, tmp_path):
    """A copy of a deployment in which one file is another's."""
    copy = tmp_path / f"{name}-exchanged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    shutil.copy(other / name, copy / name)
    return copy


def check_exchanges(model, directory, other, names, tmp_path, *, what, status=Status.MISMATCH):
    """Each part of another deployment in the place of this one's is told, and named."""
    assert check(model, directory).status is Status.MATCH
    for name in names:
        verdict = check(model, exchanged(directory, other, name, tmp_path))
        assert verdict.status is status, (name, verdict)
        assert what in verdict.reason, (name, verdict)
        if len(names) > 1:
            assert repr(name) in verdict.reason, (name, verdict)


def check_anonymous_parts(model, directory, stock, names, tmp_path):
    """Each part of a stock deployment in the place of this one's is no match, and named."""
    for name in names:
        verdict = check(model, exchanged(directory, stock, name, tmp_path))
        assert verdict.status is Status.NO_RECORD, (name, verdict)
        if len(names) > 1:
            assert f"nothing says which model {name!r}" in verdict.reason, (name, verdict)


def check_cuts(model, directory, names, tmp_path, first=0):
    """A part that was cut is no match, wherever it was."""
    copy = tmp_path / "cut"
    shutil.copytree(directory, copy)
    for name in names:
        data = (directory / name).read_bytes()
        ends = {len(data) * i // CUTS for i in range(first, CUTS)} | {len(data) - 1}
        for end in sorted(ends):
            if name.endswith("package.tar") and not any(data[end:]):
                continue  # of an archive only the padding, which needs not be there
            (copy / name).write_bytes(data[:end])
            try:
                verdict = check(model, copy)
            except ModelHashError:
                continue
            assert not verdict.ok, (name, end, len(data), verdict)
        (copy / name).write_bytes(data)
    assert check(model, copy).status is Status.MATCH
