# SPDX-License-Identifier: Apache-2.0
"""What each command does: it gives a result for each artifact or model that it is given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import ModelHashError, without_secrets
from ..files import expand, is_pattern
from .report import Colored, Exit, Result, Verbatim, table

#: What a model's path is for the model that comes in by standard input.
STDIN = "-"


def error_result(error: Exception, path: str | None, debug: bool) -> Result:
    """Make the result of an error.

    Parameters
    ----------
    error : Exception
        The error, one of this package or any other.
    path : str, optional
        What it is about.
    debug : bool
        Whether its traceback is printed.

    Returns
    -------
    result : Result
    """
    if debug:
        import traceback

        traceback.print_exception(error)
    kind = type(error).__name__
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        # Without its number, and with the name of the file as all others show it.
        names = (name for name in (error.filename, error.filename2) if name is not None)
        message = ": ".join([*(repr(name) for name in names), error.strerror])
    elif not isinstance(error, (ModelHashError, OSError)):
        message = f"unexpected {kind}: {message or 'no message'}. --debug shows where"
    return Result("error", Exit.ERROR, path, message, error=kind)


def digest(arguments: argparse.Namespace) -> Iterator[Result]:
    """Digest models."""
    from ..model.digest import model_record

    def digest_one(path: str) -> Result:
        with _model_file(path) as file:
            record = model_record(file)
        lines = _record_lines(record)
        if arguments.hash_only:
            lines = [f"{record.model}  {path}" if several else record.model]
        elif several:
            lines = [f"{path}:", *lines]
        return Result("done", Exit.OK, path, fields={"record": record.to_dict()}, lines=lines)

    if arguments.paths.count(STDIN) > 1:
        arguments.refuse(f"{STDIN} is standard input, which can be read once")
    several = are_several(arguments.paths)
    return _each(arguments, digest_one)


@contextmanager
def _model_file(path: str) -> Iterator[str]:
    """A file with the model: standard input is put into one, as models are read by seeking."""
    if path != STDIN:
        yield path
        return
    import shutil
    import tempfile

    from ..errors import ExternalDataError, ModelFileError

    if sys.stdin is None:
        raise ModelFileError("there is no standard input to read the model from")
    with tempfile.TemporaryDirectory() as directory:
        # By a name that no tensor can lead to.
        handle, copy = tempfile.mkstemp(dir=directory)
        with open(handle, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1024 * 1024)
        try:
            yield copy
        except ExternalDataError as error:
            raise ExternalDataError(
                "the model on standard input has tensors in files of their own, and there is no "
                f"directory beside it to find them in: name its file instead of {STDIN!r}"
            ) from error
        except ModelHashError as error:
            error.args = tuple(
                text.replace(repr(copy), "standard input") if isinstance(text, str) else text
                for text in error.args
            )
            raise


def show(arguments: argparse.Namespace) -> Iterator[Result]:
    """Show what artifacts are and carry."""
    return _each(arguments, lambda path: _show(path, arguments.follow_links))


def _show(path: str, follow_links: bool) -> Result:
    from ..checking.deployment import Deployment, read

    found = read(path, take_broken=True, follow_links=follow_links)
    if isinstance(found, Deployment):
        return _show_deployment(path, found)
    written = f", by TVM {found.tvm_version}" if found.tvm_version else ""
    return Result(
        "done",
        Exit.OK,
        path,
        fields=found.to_dict(),
        lines=[
            f"{found.path}: {_artifact_text(found)}{written}, {found.size:,} bytes",
            *_record_lines(found.record),
        ],
    )


def _show_deployment(path: str, deployment: Any) -> Result:
    record, broken = deployment.record, deployment.broken
    sealed = "broken seal" if broken else "sealed" if deployment.seal else "not sealed"
    lines = [f"{deployment.directory}: deployment, {sealed}", *_record_lines(record)]
    rows = [("part", "what", "in", "model", "covered by")]
    for part in deployment.parts:
        model = "no record" if part.record is None else part.record.model[:16]
        cover = " and ".join(deployment.covers(part)) or "nothing"
        rows.append((part.name, part.artifact.kind, _container_text(part.artifact), model, cover))
    lines += table(rows) if deployment.parts else []
    if deployment.stated is not None:
        lines.append(f"hash.txt says model {deployment.stated.model}")
    lines += [f"{name}: not of a model" for name in deployment.others]
    lines += [
        Colored("error", f"{name}: cannot be read: {reason}")
        for name, reason in deployment.damaged.items()
    ]
    status, exit_status, reason = "done", Exit.OK, deployment.disagreement
    if broken:
        status, exit_status, reason = "broken_seal", Exit.BROKEN_SEAL, str(broken)
    elif reason:
        status, exit_status = "mismatch", Exit.MISMATCH
    if broken:
        lines += _broken_lines(str(reason), broken, deployment)
    elif reason:
        lines.append(Colored(status, f"{status}: {reason}"))
    fields = {
        "kind": "deployment",
        "record": record and record.to_dict(),
        "sealed": deployment.seal is not None,
        **deployment.to_dict(),
        "missing": list(broken.missing) if broken else [],
        "extra": list(broken.extra) if broken else [],
        "changed": list(broken.changed) if broken else [],
    }
    return Result(status, exit_status, path, reason, fields, lines)


def _broken_lines(reason: str, broken: Any, deployment: Any) -> list[str]:
    """Say how a seal is broken, of an error or a verdict that has the names of the files."""
    from ..checking.manifest import MANIFEST_NAME

    if MANIFEST_NAME in broken.changed:
        return [Colored("broken_seal", f"broken seal: {reason}")]
    lines = [f"{how:7}  {name}" for how, names in _differences(broken) for name in names]
    if deployment.disagreement:
        lines.append(Colored("mismatch", f"besides, {deployment.disagreement}"))
    head = "broken seal: the files are not the ones that were sealed"
    return [Colored("broken_seal", head), *lines]


def _brief(verdict: Any) -> str | None:
    """The row of a broken seal: which files, and not what they were to be."""
    from ..checking.manifest import MANIFEST_NAME

    differences = _differences(verdict)
    if not differences or MANIFEST_NAME in verdict.changed:
        return None
    return "; ".join(
        f"{how} {', '.join(map(repr, names[:3]))}" + (", ..." if len(names) > 3 else "")
        for how, names in differences
    )


def _differences(broken: Any) -> list[tuple[str, tuple[str, ...]]]:
    found = ("missing", broken.missing), ("changed", broken.changed), ("extra", broken.extra)
    return [(how, names) for how, names in found if names]


def _artifact_text(artifact: Any) -> str:
    if artifact.container == "file":
        return str(artifact.kind)
    platform = f", {artifact.platform}" if artifact.platform else ""
    article = "an" if artifact.container[0] in "aeiou" else "a"
    return f"{artifact.kind} in {article} {artifact.container}{platform}"


def _container_text(artifact: Any) -> str:
    if artifact.container == "shared library" and artifact.platform:
        return str(artifact.platform)
    return ", ".join(filter(None, (artifact.container, artifact.platform)))


def check(arguments: argparse.Namespace) -> Iterator[Result]:
    """Check artifacts, or the files on devices, against a model."""
    from ..checking.requirements import parse_requirements

    require = parse_requirements(arguments.require)
    if not arguments.consistent and not arguments.paths:
        arguments.refuse("expected MODEL and ARTIFACT, or --consistent and ARTIFACT")
    model = None if arguments.consistent else arguments.paths[0]
    artifacts = arguments.paths[0 if arguments.consistent else 1 :]
    if [not artifacts, arguments.rpc is None, arguments.tracker is None].count(False) != 1:
        arguments.refuse("expected one of ARTIFACT, --rpc and --tracker")
    if (not artifacts) != bool(arguments.remote):
        arguments.refuse("--remote goes with --rpc and --tracker, and they with it")
    if arguments.remote:
        if arguments.consistent or arguments.sealed or arguments.follow_links:
            arguments.refuse(
                "--consistent, --sealed and --follow-links are for artifacts that lie here"
            )
        return _check_devices(arguments, model, require)
    from ..checking.expected import Expected
    from ..checking.verdict import check as check_against
    from ..checking.verdict import check_consistent

    expected = None if model is None else Expected(model)
    options = {
        "sealed": arguments.sealed,
        "follow_links": arguments.follow_links,
        "require": require,
    }

    def check_one(path: str) -> Result:
        if expected is None:
            verdict = check_consistent(path, **options)
        else:
            verdict = check_against(expected, path, **options)
        return _verdict_result(arguments, path, verdict)

    def is_of_the_model(error: Exception) -> bool:
        return expected is not None and error is expected.error

    return _each(arguments, check_one, artifacts, is_of_the_model)


def _check_devices(
    arguments: argparse.Namespace, model: str | None, require: dict[str, str]
) -> Iterator[Result]:
    device_hash = _device_hash()
    if arguments.rpc:
        verdict = device_hash.check_server(
            model, arguments.rpc, arguments.remote, arguments.key or "", require
        )
        host, port = arguments.rpc
        yield _verdict_result(arguments, f"{host}:{port}", verdict)
        return
    if arguments.key is None:
        arguments.refuse("--tracker takes --key")
    for device in device_hash.check_devices(
        model, arguments.tracker, arguments.key, arguments.remote, require
    ):
        if device.verdict is not None:
            yield _verdict_result(arguments, device.address, device.verdict)
        elif device.busy:
            yield Result("not_checked", Exit.UNKNOWN, device.address, device.reason)
        else:
            yield Result("error", Exit.ERROR, device.address, device.reason, error="DeviceError")


def _device_hash() -> Any:
    """The part that asks devices, which TVM is needed for."""
    import importlib

    from ..errors import DeviceError

    try:
        return importlib.import_module("tvm_model_hash.tvm.rpc.device_hash")
    except ImportError as error:
        raise DeviceError(
            f"devices are asked by way of TVM's RPC, which this Python can't import: {error}. "
            'Install TVM in this environment: pip install "tvm-model-hash[relay]", or with Relax '
            '"tvm-model-hash[relax]" and "apache-tvm[rpc]"'
        ) from error


def _verdict_result(arguments: argparse.Namespace, path: str, verdict: Any) -> Result:
    from ..checking.verdict import Status

    status, expected, found = verdict.status, verdict.expected, verdict.found
    lines: list[str] = [Colored(status.value, str(verdict))]
    if status is Status.BROKEN_SEAL:
        lines = _broken_lines(verdict.reason, verdict, verdict.deployment)
    differ = expected and found and expected.model != found.model
    if differ and status not in (Status.MATCH, Status.NO_RECORD):
        lines += [f"expected  {expected.model}", f"found     {found.model}"]
    lines += verdict.remarks
    exits = {
        Status.MATCH: Exit.OK,
        Status.EQUIVALENT: Exit.MISMATCH if arguments.exact else Exit.OK,
        Status.MISMATCH: Exit.MISMATCH,
        Status.BROKEN_SEAL: Exit.BROKEN_SEAL,
    }
    return Result(
        status.value,
        exits.get(status, Exit.UNKNOWN),
        path,
        verdict.reason,
        verdict.to_dict(),
        lines,
        tuple(r.partition(": ")[0] if r.startswith("not sealed") else r for r in verdict.remarks),
        brief=_brief(verdict),
    )


def explain(arguments: argparse.Namespace) -> Iterator[Result]:
    """Say how two models differ."""
    from ..model.difference import explain as explain_difference

    difference = explain_difference(arguments.first, arguments.second)
    reason = difference or "same graph, same weights"
    status, exit_status = ("mismatch", Exit.MISMATCH) if difference else ("equivalent", Exit.OK)
    fields = {"other": without_secrets(arguments.second)}
    yield Result(status, exit_status, arguments.first, reason, fields, [reason])


def seal(arguments: argparse.Namespace) -> Iterator[Result]:
    """Seal a directory."""
    from ..checking.manifest import read_seal
    from ..checking.manifest import seal as seal_directory

    path = seal_directory(
        arguments.directory, arguments.ignore, follow_links=arguments.follow_links
    )
    sealed = read_seal(arguments.directory)
    fields = {
        "record": sealed.record and sealed.record.to_dict(),
        "files": [file._asdict() for file in sealed.files],
        "ignored": list(sealed.ignored),
    }
    model = "no record" if sealed.record is None else f"model {sealed.record.model}"
    files = "1 file" if len(sealed.files) == 1 else f"{len(sealed.files)} files"
    lines = [f"{path}: {files}, {model}"]
    lines += [f"ignored: {pattern}" for pattern in sealed.ignored]
    yield Result("done", Exit.OK, path, fields=fields, lines=lines)


def tag(arguments: argparse.Namespace) -> Iterator[Result]:
    """Put a record into an artifact, or into the parts of a deployment, and seal that."""
    from ..checking.tagging import tag as tag_artifact

    tagged = tag_artifact(
        arguments.artifact, arguments.model, output=arguments.output, force=arguments.force
    )
    lines = [f"{tagged.path}:", *_record_lines(tagged.record)]
    lines += [f"tagged   {name}" for name in tagged.parts]
    lines += [f"by seal  {name}: its record can't be changed" for name in tagged.by_seal]
    for weights in tagged.weights:
        lines.append(f"{weights.name}: {weights}" if tagged.parts else str(weights))
    yield Result("done", Exit.OK, tagged.path, None, tagged.to_dict(), lines)


def attest(arguments: argparse.Namespace) -> Iterator[Result]:
    """State what a deployment was compiled from."""
    import json

    from ..checking.attestation import attest as state
    from ..checking.verdict import ModelHashMismatch

    path = arguments.artifact
    try:
        text = state(
            path,
            arguments.model,
            format=arguments.format,
            builder_id=arguments.builder_id,
            output=arguments.output,
        )
    except ModelHashMismatch as error:
        arguments.exact = True
        yield _verdict_result(arguments, path, error.verdict)
        return
    lines = [Verbatim(text) if arguments.output is None else f"{arguments.output}: written"]
    fields = {"statement": json.loads(text), "output": arguments.output}
    yield Result("done", Exit.OK, path, None, fields, lines)


def strip(arguments: argparse.Namespace) -> Iterator[Result]:
    """Take the record off an artifact."""
    from ..artifact.record_io import write_record

    path = write_record(arguments.artifact, None, arguments.output)
    lines = [f"{path}:", *_record_lines(None)]
    yield Result("done", Exit.OK, path, None, {"record": None}, lines)


def _each(
    arguments: argparse.Namespace,
    function: Callable[[str], Result],
    paths: list[str] | None = None,
    ends_all: Callable[[Exception], bool] = lambda _: False,
) -> Iterator[Result]:
    """The results of several; an error of one is no reason not to look at the others."""
    for given in arguments.paths if paths is None else paths:
        try:
            found = expand(given)
        except ModelHashError as error:
            yield error_result(error, given, arguments.debug)
            continue
        for path in found:
            try:
                result = function(path)
            except Exception as error:
                if ends_all(error):
                    raise
                result = error_result(error, path, arguments.debug)
            yield result


def are_several(paths: Sequence[str]) -> bool:
    """Whether paths are of several artifacts or models, or a URL may stand for several."""
    return len(paths) > 1 or any(map(is_pattern, paths))


def _record_lines(record: Any) -> list[str]:
    if record is None:
        return ["no record"]
    fields = [("model", record.model), ("graph", record.graph), ("weights", record.weights)]
    return [f"{key:8} {value}" for key, value in [*fields, *record.extra] if value is not None]
