# SPDX-License-Identifier: Apache-2.0
"""The errors of this package: one base class, one subclass for each way to be wrong.

Every message names what was found, what was expected and what to do about it.
"""

from __future__ import annotations

import re
from typing import Any

# In a URL the user and the password stand before the host, and a store's signature behind a "?".
_SECRETS = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]+://)(?P<user>[^\s/@]*@)?(?P<path>[^\s?]*)"""
    r"""(?P<query>\?\S*?(?=['")\]]*[:;,.]*(?:\s|$)))?""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Leave out of the URLs in a text what gives access to what is behind them.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    text : str
        With ``***`` for users and passwords, and for what stands behind a ``?``.
    """
    return _SECRETS.sub(_without_secrets, text) if "://" in text else text


def _without_secrets(url: re.Match[str]) -> str:
    user, query = url["user"] and "***@", url["query"] and "?***"
    return url["scheme"] + (user or "") + url["path"] + (query or "")


class ModelHashError(ValueError):
    """Base class of all errors that this package raises.

    They can be pickled and copied with all that they have, and so come out of a pool of processes
    as what they are. Secrets in URLs are left out of the message, which may end up in a log.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(x) if isinstance(x, str) else x for x in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an error is made again by calling its class with its message alone.
        return _made_again, (type(self), self.args, self.__dict__)


class ModelHashWarning(RuntimeWarning):
    """What a hash was asked for goes on without one, or with less than it could have."""


class ModelTypeError(ModelHashError):
    """What was given as a model is not an ``onnx.ModelProto``."""


class ModelFileError(ModelHashError):
    """A model's file cannot be read, or holds no ONNX model."""


class InvalidModelError(ModelHashError):
    """The model contradicts itself, so that it has no canonical form."""


class ExternalDataError(ModelHashError):
    """A tensor in a file of its own is not there, or not where it may be."""


class ModelSerializationError(ModelHashError):
    """Protobuf cannot serialize the model, even without the data of its tensors."""


class InvalidHashError(ModelHashError):
    """A model hash is not 64 lowercase hexadecimal digits."""


class NoHashError(ModelHashError):
    """A hash was asked for where there is none."""


class HashConflictError(ModelHashError):
    """Hashes that have to be of one model are of several."""


class RecordError(ModelHashError):
    """A record is malformed or longer than the limit."""


class DuplicateRecordError(RecordError):
    """An artifact carries more than one record."""


class ArtifactError(ModelHashError):
    """A file or module is not the artifact it was taken for, or is truncated."""


class UnknownArtifactError(ArtifactError):
    """A file is of no form in which this package looks for a record."""


class FixedRecordError(ArtifactError):
    """The record of an artifact can be read, but not changed, where it lies."""


class RemoteError(ModelHashError):
    """What lies behind a URL cannot be read there, or changed while it was read."""


class UnloadableArtifactError(ArtifactError):
    """The running TVM cannot load an artifact, which is for another machine or another TVM."""


class RequirementError(ModelHashError):
    """What is required of an artifact is nothing that a record could say."""


class OutputError(ModelHashError):
    """A file cannot be written where it was asked for."""


class SealError(ModelHashError):
    """A directory cannot be sealed, or has no manifest that could be read."""


class BrokenSealError(SealError):
    """The files of a directory are not the ones that its manifest lists.

    Parameters
    ----------
    message : str
        What differs, file by file.
    missing : tuple of str
        Names of the files that the manifest lists and the directory has not.
    extra : tuple of str
        Names of the files that the directory has and the manifest does not list.
    changed : tuple of str
        Names of the files whose size or content is another.
    """

    def __init__(
        self,
        message: str,
        missing: tuple[str, ...] = (),
        extra: tuple[str, ...] = (),
        changed: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.extra = extra
        self.changed = changed


class AttestationError(ModelHashError):
    """A statement about a deployment cannot be made as it was asked for."""


class DeviceError(ModelHashError):
    """A device behind RPC, or a tracker of devices, does not answer as it has to."""


class UnsupportedTVMError(ModelHashError):
    """The TVM of this process lacks something that ``get_hash=True`` needs."""


class BuildMismatchError(ModelHashError):
    """The C++ library was built for another TVM than the one that is running."""


def _made_again(
    cls: type[ModelHashError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> ModelHashError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(attributes)
    return error
