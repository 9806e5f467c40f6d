# SPDX-License-Identifier: Apache-2.0
"""Statements about a deployment, for others to sign and to verify: what it was compiled from.

docs/signing.md describes what stands in them, and what it proves.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArtifactError, AttestationError, ModelFileError, OutputError
from ..files import (
    FileState,
    file_sha256,
    is_directory,
    is_url,
    name_of,
    one_version,
    refuse_url,
    replacing,
)
from ..record import Record
from .deployment import list_files
from .expected import Expected
from .manifest import MANIFEST_NAME
from .provenance import Facts, statement
from .verdict import Verdict, check

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


def attest(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    format: str = "in-toto",
    builder_id: str | None = None,
    output: str | os.PathLike[str] | None = None,
) -> str:
    """State what a deployment was compiled from, in a form that others sign and verify.

    The statement lists each of its files, and each of the model's, by SHA-256. The same files give
    the same bytes.

    Parameters
    ----------
    path : str or os.PathLike
        The directory of a deployment, or a file of one.
    model : str or os.PathLike
        The model's file. A hash is not enough, as the files that it is of are to be listed.
    format : str
        ``"in-toto"``, a statement with SLSA provenance, or ``"cyclonedx"``, a bill of materials,
        for which the library cyclonedx-python-lib is needed.
    builder_id : str, optional
        For in-toto: the URI of the platform that compiled, which verifiers ask for. By default one
        that says that it is not known.
    output : str or os.PathLike, optional
        A file to write it into, too.

    Returns
    -------
    text : str
        JSON, in ASCII, with a line end.

    Raises
    ------
    ModelHashMismatch
        If the deployment is not a match, whole and with the seal that it has; it has the verdict.
    AttestationError
        If a name can't stand in a statement, the URI is none, or the library is missing.
    OutputError
        If the file can't be written, or lies in the deployment or is one of the model's.
    ModelHashError
        If something can't be read, or changed meanwhile.
    """
    path, model = os.fsdecode(path), os.fsdecode(model)
    if format not in _WRITERS:
        raise AttestationError(f"the format {format!r} is none of {', '.join(_WRITERS)}")
    if builder_id is not None and (format != "in-toto" or not _URI.fullmatch(builder_id)):
        raise AttestationError(
            f"{builder_id!r} is no URI that names a builder, which statements of in-toto have: "
            "expected https://example.com/builder, for example"
        )
    with one_version():
        facts = _facts(path, model)
    text = json.dumps(_WRITERS[format](facts, builder_id), indent=2) + "\n"
    if output is not None:
        output = os.fsdecode(output)
        _check_output(output, path, model)
        with replacing(output) as file:
            file.write(text.encode("ascii"))
    return text


def _facts(path: str, model: str) -> Facts:
    from ..model.model_files import model_files

    expected = Expected(model)
    if expected.path is None:
        raise ModelFileError(
            f"{model!r} is a hash, and a statement lists the files of the model: give its file"
        )
    files, of_model = _files(path), model_files(model)
    before = _states(files), _states(of_model)
    verdict = check(expected, path).require(exact=True)
    covered = _covered(verdict, files)
    digests = {name: file_sha256(files[name])[1] for name in covered}
    model_digests = {name: file_sha256(of_model[name])[1] for name in of_model}
    if (_states(_files(path)), _states(of_model)) != before:
        raise ArtifactError(f"{path!r} or {model!r} was written to meanwhile: try again")
    whole = _name(path)
    records = _records(verdict, whole)
    common = functools.reduce(Record.in_common, records.values())
    for name in (*digests, *model_digests, whole):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise AttestationError(
                f"the name {name!r} cannot stand in a statement: expected UTF-8"
            ) from error
    return Facts(whole, digests, model_digests, common, records)


def _name(path: str) -> str:
    return name_of(path.rstrip("/")) if is_url(path) else os.path.basename(os.path.abspath(path))


def _files(path: str) -> dict[str, str]:
    return list_files(path) if is_directory(path) else {_name(path): path}


def _covered(verdict: Verdict, files: Mapping[str, str]) -> list[str]:
    """Names of the files to state something of: of a sealed deployment what the seal lists."""
    if verdict.deployment is None or verdict.deployment.seal is None:
        return sorted(files)
    listed = {file.name for file in verdict.deployment.seal.files}
    return sorted(name for name in files if name in listed or name == MANIFEST_NAME)


def _records(verdict: Verdict, name: str) -> dict[str, Record]:
    parts = () if verdict.deployment is None else verdict.deployment.parts
    records = {part.name: part.record for part in parts if part.record is not None}
    if not records and verdict.found is not None:  # a file alone
        records = {name: verdict.found}
    return records


def _states(files: Mapping[str, str]) -> dict[str, FileState]:
    """What tells whether files change; behind URLs that is looked after elsewhere."""
    try:
        return {
            name: FileState.of(os.stat(path)) for name, path in files.items() if not is_url(path)
        }
    except OSError as error:
        raise ArtifactError(f"cannot read {error.filename!r}: {error.strerror or error}") from error


def _check_output(output: str, path: str, model: str) -> None:
    from ..model.model_files import model_files

    refuse_url(output)
    place = os.path.realpath(output)
    if not is_url(path):
        whole = os.path.realpath(path)
        if place == whole or place.startswith(os.path.join(whole, "")):
            raise OutputError(
                f"cannot write {output!r}: it lies in {path!r}, and would be a file that neither "
                "its seal nor the statement lists. Write it beside that"
            )
    if place in map(os.path.realpath, model_files(model).values()):
        raise OutputError(f"cannot write {output!r}: it is the model")


def _bill(facts: Facts, _: str | None) -> dict[str, Any]:
    from .bill_of_materials import bill

    return bill(facts)


_WRITERS: dict[str, Callable[[Facts, str | None], dict[str, Any]]] = {
    "in-toto": statement,
    "cyclonedx": _bill,
}
