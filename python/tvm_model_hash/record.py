# SPDX-License-Identifier: Apache-2.0
"""The record: one line of ASCII that carries a model's identities.

``model-hash/1 model=sha256:<64 hex> graph=sha256:<64 hex> weights=sha256:<64 hex>``

FORMAT.md states the grammar; ``src/runtime/vm/executable_hash.cc`` implements the same
grammar in C++, and both are tested on the records in ``tests/vectors/records.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from . import limits
from .errors import InvalidHashError, RecordError

#: What the text of every record begins with, whatever its version.
RECORD_TAG = "model-hash/"
#: Tag and version of the records that this package reads and writes.
RECORD_VERSION = RECORD_TAG + "1"

#: The keys that have a meaning, in the order in which they stand.
DIGEST_KEYS = ("model", "graph", "weights")

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
# Values stop at a space and hold nothing that a terminal or a log would interpret.
_COUNT = re.compile("0|[1-9][0-9]{0,8}")
_FIELD = re.compile(r"([a-z][a-z0-9_-]*)=([!-~]+)")


def check_model_hash(value: object, where: str) -> str:
    """Check that a value is a model hash.

    Parameters
    ----------
    value : object
        What is to be a model hash.
    where : str
        Where the value comes from, for the error's message.

    Returns
    -------
    model_hash : str
        The value itself.

    Raises
    ------
    InvalidHashError
        If the value is not a string of 64 lowercase hexadecimal digits.
    """
    if isinstance(value, str) and _HEX_DIGEST.fullmatch(value):
        return str(value)
    raise InvalidHashError(
        f"{where} is {_quote(value)}, not a model hash: expected a string of 64 lowercase "
        "hexadecimal digits, as hashlib.sha256(...).hexdigest() returns"
    )


#: The key of the identity of one compilation.
BUILD_KEY = "build"
#: The key of the number of tensors that a part needs from a file of parameters.
PARAMS_KEY = "params"
#: The key of the version of the TVM that compiled the part.
TVM_KEY = "tvm"
#: The key of what it was compiled for: kinds of targets, and triples.
TARGET_KEY = "target"
#: The key of the shapes of the inputs of ``main``.
SHAPES_KEY = "shapes"
#: How a part was compiled; recipe.py has the values.
RECIPE_KEYS = (TVM_KEY, TARGET_KEY, SHAPES_KEY)


@dataclass(frozen=True)
class Record:
    """The identities of one model, and of the compilation that a part comes from.

    Parameters
    ----------
    model : str
        SHA-256 of the serialized model, 64 lowercase hexadecimal digits.
    graph : str, optional
        SHA-256 of what the model computes, without the values of its weights.
    weights : str, optional
        SHA-256 of the values of its weights.
    extra : tuple of (str, str)
        The other fields, in the order they stand in: ``build`` and ``params``, the recipe, and
        those with keys that this version does not know, which are kept, so that rewriting an
        artifact loses nothing, and otherwise ignored.

    Raises
    ------
    InvalidHashError
        If a digest is not 64 lowercase hexadecimal digits.
    RecordError
        If an extra field cannot stand in a record, or the record gets too long.
    """

    model: str
    graph: str | None = None
    weights: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for key in DIGEST_KEYS:
            value = getattr(self, key)
            if value is not None or key == "model":
                check_model_hash(value, f"digest '{key}' of the record")
        seen = set(DIGEST_KEYS)
        for key, value in self.extra:
            if not _FIELD.fullmatch(f"{key}={value}"):
                raise RecordError(f"field {_quote(f'{key}={value}')} cannot stand in a record")
            if key in seen:
                raise RecordError(f"key '{key}' stands twice in the record")
            seen.add(key)
        _check_size(str(self))

    def __str__(self) -> str:
        digests = ((key, getattr(self, key)) for key in DIGEST_KEYS)
        fields = [f"{key}=sha256:{value}" for key, value in digests if value is not None]
        fields += [f"{key}={value}" for key, value in self.extra]
        return " ".join([RECORD_VERSION, *fields])

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it.

        Returns
        -------
        fields : dict
            The digests (None where there is none), the other fields by their keys as ``fields``,
            and the text of it all as ``record``.
        """
        digests = {key: getattr(self, key) for key in DIGEST_KEYS}
        return {**digests, "fields": dict(self.extra), "record": str(self)}

    def field(self, key: str) -> str | None:
        """Get one of the other fields.

        Parameters
        ----------
        key : str
            Its key.

        Returns
        -------
        value : str or None
            None if there is no such field.
        """
        return dict(self.extra).get(key)

    @property
    def build(self) -> str | None:
        """The identity of the compilation that this part comes from, None where it is not said."""
        return self.field(BUILD_KEY)

    @property
    def params(self) -> int:
        """The number of tensors that this part needs and that lie in a file of parameters.

        Raises
        ------
        RecordError
            If the field is not a decimal number.
        """
        text = dict(self.extra).get(PARAMS_KEY, "0")
        if not _COUNT.fullmatch(text):
            raise RecordError(
                f"key '{PARAMS_KEY}' of the record is {_quote(text)}: expected a decimal number"
            )
        return int(text)

    def with_fields(self, build: str | None, params: int = 0) -> Record:
        """Make the record of a part from the record of its model.

        Parameters
        ----------
        build : str, optional
            The identity of the compilation, None for a part that belongs to none, and so has no
            recipe either.
        params : int
            The number of tensors that the part needs from a file of parameters.

        Returns
        -------
        record : Record
            This record with these fields, in place of those that it has.

        Raises
        ------
        RecordError
            If it gets too long.
        """
        replaced = (BUILD_KEY, PARAMS_KEY, *(RECIPE_KEYS if build is None else ()))
        others = [field for field in self.extra if field[0] not in replaced]
        build_field = [] if build is None else [(BUILD_KEY, build)]
        params_field = [(PARAMS_KEY, str(params))] if params else []
        return replace(self, extra=(*build_field, *params_field, *others))

    def in_common(self, other: Record) -> Record:
        """Make the record of what two compilations of one model have in common.

        Parameters
        ----------
        other : Record
            Another record of the model.

        Returns
        -------
        record : Record
            This record without the fields that the other has not, or has with another value.
        """
        return replace(self, extra=tuple(field for field in self.extra if field in other.extra))

    @classmethod
    def parse(cls, text: str) -> Record:
        """Parse a record's text; ``str`` of the result gives the same text back.

        Parameters
        ----------
        text : str
            The whole record, without line end or padding.

        Returns
        -------
        record : Record
            What the text says.

        Raises
        ------
        RecordError
            If the text is not a record; the message says at which point it is not.
        """
        _check_size(text)
        version, *fields = text.split(" ")
        if version != RECORD_VERSION:
            if re.fullmatch(re.escape(RECORD_TAG) + "[0-9]+", version):
                raise RecordError(
                    f"the record has version {_quote(version)}, expected '{RECORD_VERSION}': "
                    "it was written by a newer tvm-model-hash; upgrade this one to read it"
                )
            raise RecordError(f"{_quote(text)} is not a record: expected '{RECORD_VERSION} ...'")
        digests: dict[str, str] = {}
        extra: list[tuple[str, str]] = []
        for field in fields:
            match = _FIELD.fullmatch(field)
            if not match:
                raise RecordError(
                    f"the record's field {_quote(field)} is malformed: expected 'key=value', and "
                    "one space between fields"
                )
            key, value = match.groups()
            if key not in DIGEST_KEYS:
                extra.append((key, value))
                continue
            if extra or any(DIGEST_KEYS.index(key) <= DIGEST_KEYS.index(k) for k in digests):
                raise RecordError(
                    f"key '{key}' of the record is out of order: expected each of "
                    f"{', '.join(DIGEST_KEYS)} at most once, in this order, before other keys"
                )
            algorithm, _, digest = value.partition(":")
            if algorithm != "sha256" or not _HEX_DIGEST.fullmatch(digest):
                raise RecordError(
                    f"key '{key}' of the record is {_quote(value)}: expected 'sha256:' and 64 "
                    "lowercase hexadecimal digits"
                )
            digests[key] = digest
        if "model" not in digests:
            raise RecordError(f"{_quote(text)} has no field 'model', which every record has")
        return cls(**digests, extra=tuple(extra))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Parse a record's bytes, as :meth:`parse` its text.

        Parameters
        ----------
        data : bytes
            The whole record.

        Returns
        -------
        record : Record

        Raises
        ------
        RecordError
            If the bytes are not a record.
        """
        try:
            return cls.parse(data.decode("ascii"))
        except UnicodeDecodeError as error:
            raise RecordError(f"the record has a byte that is not ASCII: {error}") from error


def conflict(a: Record, b: Record) -> str | None:
    """Find out whether two records can't be of parts that belong together.

    Parameters
    ----------
    a, b : Record
        The records of two parts. One that has no build goes with any compilation of its model.

    Returns
    -------
    conflict : str or None
        What they differ in; None if they are of one model, and not of two compilations of it.
        Two compilations of one build, which ``TVM_MODEL_HASH_BUILD`` allows, are told by their
        recipes.
    """
    # Of one model there is one graph; None is what a record does not say.
    for key in DIGEST_KEYS:
        values = {getattr(a, key), getattr(b, key)} - {None}
        if len(values) > 1:
            return "two models"
    # Parts that belong to no compilation have no build and no recipe.
    for key in (BUILD_KEY, *RECIPE_KEYS):
        said = (a.field(key), b.field(key))
        if None not in said and said[0] != said[1]:
            return "two compilations of this model"
    return None


def _check_size(text: str) -> None:
    # Characters are bytes in a record; other texts fail on their first wrong character.
    if len(text) > limits.RECORD_BYTES:
        raise RecordError(
            f"the record is {len(text)} bytes long, more than the limit of {limits.RECORD_BYTES}"
        )


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}... ({len(text)} characters)"
