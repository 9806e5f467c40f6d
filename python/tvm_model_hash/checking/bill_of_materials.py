# SPDX-License-Identifier: Apache-2.0
"""A bill of materials by CycloneDX: a deployment, its files, and the model that it is of."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

from ..errors import AttestationError
from ..record import DIGEST_KEYS
from .provenance import Facts


def bill(facts: Facts) -> dict[str, Any]:
    """Write a bill of materials.

    Parameters
    ----------
    facts : Facts
        What it is of.

    Returns
    -------
    bill : dict
        CycloneDX 1.6, as JSON has it. It has a time only if ``SOURCE_DATE_EPOCH`` says one.

    Raises
    ------
    AttestationError
        If the library for it is not installed, or ``SOURCE_DATE_EPOCH`` is no time.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType, Property
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise AttestationError(
            f"a bill of materials is written by a library that this Python can't import: {error}. "
            'Install it: pip install "tvm-model-hash[attest]"'
        ) from error

    def files(digests: Mapping[str, str], of: str) -> list[Component]:
        return [
            Component(
                name=name,
                type=ComponentType.FILE,
                bom_ref=f"{of}/{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
            for name, digest in digests.items()
        ]

    def properties(fields: Mapping[str, str | None]) -> list[Property]:
        found = fields.items()
        return [
            Property(name=f"tvm-model-hash:{key}", value=value) for key, value in found if value
        ]

    own, *external = facts.model_files
    record = facts.record
    model = Component(
        name=own,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=facts.model_files[own])],
        components=files({name: facts.model_files[name] for name in external}, "model"),
        properties=properties({key: getattr(record, key) for key in DIGEST_KEYS}),
    )
    deployment = Component(
        name=facts.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="deployment",
        components=files(facts.files, "deployment"),
        properties=properties({**dict(record.extra), "record": str(record)}),
    )
    content = json.dumps([facts.files, facts.model_files], sort_keys=True)
    # Of the same files the same one.
    number = uuid.UUID(bytes=hashlib.sha256(content.encode()).digest()[:16], version=5)
    metadata = BomMetaData(component=deployment)
    bom = Bom(components=[model], serial_number=number, metadata=metadata)
    bom.metadata.timestamp = _time()  # type: ignore[assignment]  # which else is now
    bom.register_dependency(deployment, [model])
    written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return written


def _time() -> datetime.datetime | None:
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if not seconds:
        return None
    try:
        return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise AttestationError(
            f"SOURCE_DATE_EPOCH is {seconds[:100]!r}, expected seconds since 1970"
        ) from error
