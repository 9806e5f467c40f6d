# SPDX-License-Identifier: Apache-2.0
"""A directory with a deployment, laid out as ONNX Runtime's TVM provider reads it.

Exactly one ``*.ro`` and one ``*.so``, ``consts`` where constants are late-bound, ``hash.txt``; or
one single-file ``*.so`` without a ``*.ro``. With a manifest, no file may differ from it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..artifact.record_io import Interface, Role, read_artifact, read_interface, read_record
from ..errors import ArtifactError
from ..record import Record
from .hash_file import HASH_FILE_NAME, read_hash_file
from .manifest import MANIFEST_NAME, verify_seal

LIBRARY_NAME = "lib.so"
CODE_NAME = "code.ro"
CONSTANTS_NAME = "consts"


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployment, and what their records say.

    Parameters
    ----------
    directory : str
        The directory.
    library : str
        Path of the library.
    code : str, optional
        Path of the serialized executable, None where it lies in the library.
    constants : str, optional
        Path of the late-bound constants, None where there are none.
    records : dict of str to (Record or None)
        The record of each part that can have one, by the name of the part. The executable's comes
        first.
    interface : Interface, optional
        What the executable wants from outside.
    """

    directory: str
    library: str
    code: str | None
    constants: str | None
    records: dict[str, Record | None]
    interface: Interface | None

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Deployment:
        """Read the records of a deployment, and check it against its manifest if it has one.

        Parameters
        ----------
        directory : str or os.PathLike
            The directory.

        Returns
        -------
        deployment : Deployment

        Raises
        ------
        ArtifactError
            If the directory is not laid out as one deployment, or a part is damaged.
        InvalidHashError
            If ``hash.txt`` is malformed.
        BrokenSealError
            If a file is not the one that the manifest lists.
        SealError
            If the manifest is not as it was written.
        """
        directory = os.fsdecode(directory)
        try:
            names = sorted(os.listdir(directory))
        except OSError as error:
            raise ArtifactError(
                f"cannot read the directory {directory!r}: {error.strerror or error}"
            ) from error
        library = _only(directory, names, ".so")
        single_file = not any(name.endswith(".ro") for name in names)
        code = None if single_file else _only(directory, names, ".ro")
        records: dict[str, Record | None] = {}
        executable = library if code is None else code
        artifact = read_artifact(os.path.join(directory, executable))
        if artifact.role is not Role.EXECUTABLE:
            raise ArtifactError(
                f"{directory!r} is no deployment: expected one *.ro, found none, and {library!r} "
                f"is a {artifact.kind}"
            )
        records[executable] = artifact.record
        if (
            code is not None
            and read_artifact(os.path.join(directory, library)).role is Role.EXECUTABLE
        ):
            raise ArtifactError(
                f"{directory!r} has two executables, {code!r} and the one in {library!r}: expected "
                "the kernel library beside code.ro, or the single-file library alone"
            )
        has_constants = CONSTANTS_NAME in names
        interface = read_interface(os.path.join(directory, executable))
        if interface and interface.late_bound and not has_constants:
            raise ArtifactError(
                f"{directory!r} is incomplete: {executable!r} binds {len(interface.late_bound)} "
                f"constants late, and the file {CONSTANTS_NAME!r} is missing"
            )
        if has_constants:
            constants = read_record(os.path.join(directory, CONSTANTS_NAME))
            # Without a record the weights could be of any model.
            if constants is not None or (interface and interface.late_bound):
                records[CONSTANTS_NAME] = constants
        if HASH_FILE_NAME in names:
            records[HASH_FILE_NAME] = read_hash_file(os.path.join(directory, HASH_FILE_NAME))
        if MANIFEST_NAME in names:
            records[MANIFEST_NAME] = verify_seal(directory).record

        def path(name: str | None) -> str | None:
            return None if name is None else os.path.join(directory, name)

        return cls(
            directory,
            os.path.join(directory, library),
            path(code),
            path(CONSTANTS_NAME if has_constants else None),
            records,
            interface,
        )

    @property
    def record(self) -> Record | None:
        """The record of the executable."""
        return next(iter(self.records.values()))

    @property
    def disagreement(self) -> str | None:
        """One sentence if the parts are not, or not known to be, of one model; None if they are.

        A record that an executable lacks is no disagreement: the verdict is on that one.
        """
        first, *others = self.records
        if self.record is None:
            return None
        different = [name for name in others if not _agree(self.record, self.records[name])]
        if not different:
            return None
        parts = [f"{name!r} {_says(self.records[name])}" for name in [first, *different]]
        return "the parts are not known to be of one model: " + ", ".join(parts)


def _agree(record: Record, other: Record | None) -> bool:
    return other is not None and record.model == other.model


def _says(record: Record | None) -> str:
    return "carries no record" if record is None else f"is of model {record.model}"


def _only(directory: str, names: list[str], suffix: str) -> str:
    found = [name for name in names if name.endswith(suffix)]
    if len(found) != 1:
        raise ArtifactError(
            f"{directory!r} is no deployment: expected one *{suffix}, found "
            + (", ".join(map(repr, found)) or "none")
        )
    return found[0]
