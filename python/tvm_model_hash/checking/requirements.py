# SPDX-License-Identifier: Apache-2.0
"""What is required of an artifact beside its model: how it was compiled, as its records say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..artifact.carrier import Role
from ..errors import RequirementError
from ..recipe import shortened
from ..record import DIGEST_KEYS, SHAPES_KEY, TARGET_KEY, Record
from .parts import Part

_REQUIREMENT = re.compile(r"([a-z][a-z0-9_-]*)=([!-~]+)")
# A comma within a value, as between two targets, has no key behind it.
_BETWEEN = re.compile(r",(?=[a-z][a-z0-9_-]*=)")


class Answer(NamedTuple):
    """How an artifact stands to what is required of it.

    Parameters
    ----------
    unmet : str, optional
        One sentence, if a part says something else.
    unknown : str, optional
        One sentence, if a part that computes does not say.
    """

    unmet: str | None = None
    unknown: str | None = None


def parse_requirements(texts: Iterable[str]) -> dict[str, str]:
    """Parse requirements as they are written in a command.

    Parameters
    ----------
    texts : iterable of str
        Each is ``KEY=VALUE``, or several of these with a comma between them.

    Returns
    -------
    requirements : dict of str to str
        For each key its value.

    Raises
    ------
    RequirementError
        If a text is not of this form, or no record could have what it requires.
    """
    requirements: dict[str, str] = {}
    for text in texts:
        for word in _BETWEEN.split(text):
            key, equals, value = word.partition("=")
            if not equals or key in requirements:
                raise RequirementError(
                    f"{word!r} is required, which "
                    + ("repeats its key" if equals else "is not KEY=VALUE")
                    + ": expected for example target=llvm,tvm=0.19.0"
                )
            requirements[key] = value
    check_requirements(requirements)
    return requirements


def check_requirements(requirements: Mapping[str, str]) -> None:
    """Check that a record could meet requirements.

    Parameters
    ----------
    requirements : mapping of str to str
        For each key its value.

    Raises
    ------
    RequirementError
        If a record has no such field, or a key is one of the digests.
    """
    for key, value in requirements.items():
        if not _REQUIREMENT.fullmatch(f"{key}={value}"):
            raise RequirementError(
                f"no record has a field '{key}={value}': expected a key as target, tvm or shapes, "
                "and a value in printable ASCII, without a space, as show prints it"
            )
        if key in DIGEST_KEYS:
            raise RequirementError(
                f"{key!r} can't be required: the model that is expected says what it has to be"
            )


def compare_records(
    requirements: Mapping[str, str], records: Iterable[tuple[str, Record | None, bool]]
) -> Answer:
    """Compare what records say with what is required.

    Parameters
    ----------
    requirements : mapping of str to str
        For each key of a record its value.
    records : iterable of (str, Record or None, bool)
        Of each part its name for messages, its record, and whether it has to say.

    Returns
    -------
    answer : Answer
    """
    unknown = None
    for name, record, has_to_say in records:
        for key, required in requirements.items():
            found = None if record is None else record.field(key)
            if found is None:
                if has_to_say and unknown is None:
                    unknown = (
                        f"{name} does not say its {key!r}, and {key}={required} is required: it "
                        "was tagged, or compiled by an older tvm-model-hash or for several "
                        "machines. Compile the model again with get_hash=True"
                    )
            elif not is_met(key, required, found):
                return Answer(unmet=f"{name} has {key}={found}, and {key}={required} is required")
    return Answer(unknown=unknown)


def records_of(parts: Iterable[Part]) -> list[tuple[str, Record | None, bool]]:
    """Take from the parts of a deployment what :func:`compare_records` compares.

    Parameters
    ----------
    parts : iterable of Part
        The parts. Parameters need not say how they were compiled, as they may not have been.

    Returns
    -------
    records : list of (str, Record or None, bool)
    """
    return [
        (repr(part.name), part.record, part.artifact.role is not Role.PARAMETERS) for part in parts
    ]


def is_met(key: str, required: str, found: str) -> bool:
    """Find out whether a field is as it is required.

    Parameters
    ----------
    key : str
        Its key.
    required : str
        The value that is required.
    found : str
        The value in the record.

    Returns
    -------
    is_met : bool
        Whether the values are equal. Shapes may be written out where the record has their digest;
        of targets, see :func:`_covers`, each has to be covered by one that is required, and those
        each have to cover one.
    """
    if required == found:
        return True
    if key in (SHAPES_KEY, TARGET_KEY) and shortened(required) == found:
        return True
    if key != TARGET_KEY:
        return False
    required_targets, targets = required.split(","), found.split(",")
    return all(any(_covers(one, target) for one in required_targets) for target in targets) and all(
        any(_covers(one, target) for target in targets) for one in required_targets
    )


def _covers(required: str, target: str) -> bool:
    """Whether a target is the one that is required: the kind, and the triple as far as it goes.

    ``llvm`` is any triple, and ``llvm:x86_64`` each that begins with ``x86_64-``.
    """
    kind, _, triple = target.partition(":")
    required_kind, _, required_triple = required.partition(":")
    return kind == required_kind and (
        not required_triple or f"{triple}-".startswith(f"{required_triple}-")
    )
