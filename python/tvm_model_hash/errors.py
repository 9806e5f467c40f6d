# SPDX-License-Identifier: Apache-2.0
"""The errors of this package: one base class, one subclass for each way to be wrong.

Every message names what was found, what was expected and what to do about it.
"""


class ModelHashError(ValueError):
    """Base class of all errors that this package raises."""


class ModelTypeError(ModelHashError):
    """What was given as a model is not an ``onnx.ModelProto``."""


class ModelFileError(ModelHashError):
    """A model's file cannot be read, or holds no ONNX model."""


class InvalidModelError(ModelHashError):
    """The model contradicts itself, so that it has no canonical form."""


class ExternalDataError(ModelHashError):
    """A tensor in a file of its own is not there, or not where it may be."""


class ModelSerializationError(ModelHashError):
    """The model has no serialized form to hash; protobuf's limit is 2 GiB."""


class InvalidHashError(ModelHashError):
    """A model hash is not 64 lowercase hexadecimal digits."""


class NoHashError(ModelHashError):
    """A hash was asked for where there is none."""


class HashConflictError(ModelHashError):
    """An operation would have replaced one model's hash by another's."""


class RecordError(ModelHashError):
    """A record is malformed or longer than the limit."""


class DuplicateRecordError(RecordError):
    """An artifact carries more than one record."""


class ArtifactError(ModelHashError):
    """A file or module is not the artifact it was taken for, or is truncated."""


class OutputError(ModelHashError):
    """A file cannot be written where it was asked for."""


class BuildMismatchError(ModelHashError):
    """The C++ library was built for another TVM than the one that is running."""
