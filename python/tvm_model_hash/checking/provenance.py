# SPDX-License-Identifier: Apache-2.0
"""What is known of a deployment, as a statement of in-toto with SLSA provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..record import BUILD_KEY, SHAPES_KEY, TARGET_KEY, TVM_KEY, Record

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
#: The type of the build in the provenance; docs/signing.md says what its parameters are.
BUILD_TYPE = "urn:x-tvm-model-hash:compile:1"
#: Who compiled, where nobody says.
UNKNOWN_BUILDER = "urn:x-tvm-model-hash:unknown-builder"


@dataclass(frozen=True)
class Facts:
    """What is known of a deployment, and was checked.

    Parameters
    ----------
    name : str
        The name of its directory or file.
    files : mapping of str to str
        SHA-256 of each of its files, by its name.
    model_files : mapping of str to str
        The same of the model's: its own file is the first.
    record : Record
        What the records of all parts have in common.
    records : mapping of str to Record
        The records of the parts, by their names.
    """

    name: str
    files: Mapping[str, str]
    model_files: Mapping[str, str]
    record: Record
    records: Mapping[str, Record]


def statement(facts: Facts, builder_id: str | None) -> dict[str, Any]:
    """Write a statement of in-toto with SLSA provenance.

    Parameters
    ----------
    facts : Facts
        What it states.
    builder_id : str, optional
        The URI of the platform that compiled, None if that is not known.

    Returns
    -------
    statement : dict
        As JSON has it.
    """
    fields = dict(facts.record.extra)
    external = {key: fields.pop(key) for key in (TARGET_KEY, SHAPES_KEY) if key in fields}
    builder: dict[str, Any] = {"id": builder_id or UNKNOWN_BUILDER}
    if TVM_KEY in fields:
        builder["version"] = {TVM_KEY: fields[TVM_KEY]}
    details: dict[str, Any] = {"builder": builder}
    if BUILD_KEY in fields:
        details["metadata"] = {"invocationId": fields[BUILD_KEY]}
    return {
        "_type": STATEMENT_TYPE,
        "subject": _resources(facts.files),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"model": next(iter(facts.model_files)), **external},
                "internalParameters": {
                    **fields,
                    "record": str(facts.record),
                    "records": {name: str(record) for name, record in facts.records.items()},
                },
                "resolvedDependencies": _resources(facts.model_files),
            },
            "runDetails": details,
        },
    }


def _resources(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in files.items()]
