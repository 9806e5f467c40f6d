# SPDX-License-Identifier: Apache-2.0
"""Why an artifact carries no record, as far as its kind tells, and what to do about it."""

from __future__ import annotations

from ..artifact.carrier import Artifact, Role
from ..artifact.library_record import AOT_EXECUTOR, GRAPH_EXECUTOR
from .deployment import Deployment
from .manifest import MANIFEST_NAME

_COMPILED = "it was compiled by a stock TVM, or of a module without a hash"
# By relay.build, which takes the hash from the module.
_BUILT = (
    "what relay.build was given had no hash (imported without get_hash=True, a bare function, or a "
    "pass dropped it), or TVM was a stock one"
)
_AGAIN = "Import the model with get_hash=True and compile it again"
_TAG = "where the model is known, tag it"


def why_no_record(artifact: Artifact) -> str:
    """Say why an artifact carries no record, and what to do.

    Parameters
    ----------
    artifact : Artifact
        An artifact without a record.

    Returns
    -------
    text : str
        Two sentences, the first without a capital letter.
    """
    if _is_shard(artifact):
        advice = "Seal the directory that it is in"
    elif artifact.role is Role.PARAMETERS:
        advice = _TAG.capitalize()
    else:
        advice = _AGAIN + (f"; or, {_TAG}" if artifact.container == "file" else "")
    return f"{_cause(artifact)}. {advice}"


def why_not_known(deployment: Deployment) -> str:
    """Say why nothing is known of parts of a deployment, and what to do.

    Parameters
    ----------
    deployment : Deployment
        A deployment with such parts.

    Returns
    -------
    text : str
        Two sentences, the first without a capital letter.
    """
    unknown = deployment.unknown
    causes: dict[str, list[str]] = {}
    for part in unknown:
        causes.setdefault(_cause(part.artifact), []).append(repr(part.name))
    if len(causes) == 1:
        cause = next(iter(causes)) if len(unknown) == 1 else f"of each, {next(iter(causes))}"
    else:
        cause = "; ".join(f"of {', '.join(names)}, {text}" for text, names in causes.items())
    below = [name for name in deployment.others if name.endswith(f"/{MANIFEST_NAME}")]
    if below:
        cause += f"; the manifest {below[0]!r} does not count, as it does not lie at the top"
    advice = _AGAIN
    if any(p.artifact.container == "file" and not _is_shard(p.artifact) for p in unknown):
        advice += f"; or, {_TAG}"
    if deployment.record is not None:
        advice += "; or seal the directory, so that the record of the others covers it"
    return f"{cause}. {advice}"


def _cause(artifact: Artifact) -> str:
    if _is_shard(artifact):
        return "such a file has no place for a record, and only a seal covers it"
    if artifact.kernels_record is not None:
        return (
            f"its kernels are of model {artifact.kernels_record.model}, but the executable in it, "
            "which has the weights, lost its record"
        )
    if artifact.role is Role.PARAMETERS:
        if artifact.kind == "TVM parameters":
            return (
                "a stock TVM wrote it, as late-bound constants or saved parameters, or what it was "
                "given did not come from from_onnx(..., get_hash=True)"
            )
        return "what writes such files knows nothing of records"
    if artifact.role is Role.GRAPH or artifact.kind in (GRAPH_EXECUTOR, AOT_EXECUTOR):
        return _BUILT
    return _COMPILED + (", or its record was stripped" if artifact.container == "file" else "")


def _is_shard(artifact: Artifact) -> bool:
    return artifact.kind.startswith("weights of ")
