# SPDX-License-Identifier: Apache-2.0
"""The identity of an ONNX model in what TVM compiles from it.

This package, the core, never imports tvm. What it adds to TVM lies in ``python/tvm``, and
:mod:`tvm_model_hash.activation` puts it in place when TVM is imported.
"""

# Every interpreter of an environment imports this file at its start (see activation.py), so
# the names below are imported when they are first used; type checkers read __init__.pyi. A module
# must not have the name of what is in it, or it would stand in its place.
_EXPORTS = {
    "attest": "checking.attestation",
    "Status": "checking.verdict",
    "Verdict": "checking.verdict",
    "check": "checking.verdict",
    "check_consistent": "checking.verdict",
    "downloading": "files",
    "install": "activation",
    "is_installed": "activation",
    "uninstall": "activation",
    "Artifact": "artifact.carrier",
    "read_artifact": "artifact.record_io",
    "read_interface": "artifact.record_io",
    "read_record": "artifact.record_io",
    "write_record": "artifact.record_io",
    "explain": "model.difference",
    "model_hash": "model.digest",
    "model_record": "model.digest",
    "Record": "record",
    "Seal": "checking.manifest",
    "seal": "checking.manifest",
    "verify_seal": "checking.manifest",
    "Tagged": "checking.tagging",
    "tag": "checking.tagging",
    "ArtifactError": "errors",
    "AttestationError": "errors",
    "BrokenSealError": "errors",
    "BuildMismatchError": "errors",
    "DeviceError": "errors",
    "DuplicateRecordError": "errors",
    "FixedRecordError": "errors",
    "ExternalDataError": "errors",
    "HashConflictError": "errors",
    "InvalidHashError": "errors",
    "InvalidModelError": "errors",
    "ModelFileError": "errors",
    "ModelHashError": "errors",
    "ModelHashMismatch": "checking.verdict",
    "ModelHashWarning": "errors",
    "ModelSerializationError": "errors",
    "ModelTypeError": "errors",
    "NoHashError": "errors",
    "OutputError": "errors",
    "RemoteError": "errors",
    "RecordError": "errors",
    "RequirementError": "errors",
    "SealError": "errors",
    "UnknownArtifactError": "errors",
    "UnloadableArtifactError": "errors",
    "UnsupportedTVMError": "errors",
}
__all__ = list(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS and name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name == "__version__":
        value = _version()
    else:
        value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def _version():
    from importlib import metadata

    try:
        return metadata.version("tvm-model-hash")
    except metadata.PackageNotFoundError as error:
        raise AttributeError(
            f"the version of {__name__} is not known: it was not installed, but put on the path"
        ) from error


def __dir__():
    return sorted({*globals(), *__all__, "__version__"})
