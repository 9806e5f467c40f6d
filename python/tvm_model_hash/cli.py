# SPDX-License-Identifier: Apache-2.0
"""The command ``tvm-model-hash``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from .errors import ModelHashError

OK, DIFFERENT, ERROR = 0, 1, 2

_COLORS = {"red": "31", "green": "32", "yellow": "33"}


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    status : int
        0 for a match or a thing done, 1 for a mismatch, 2 for an error or where it can't be told.
    """
    arguments = _parser().parse_args(argv)
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output has left
        # So that the interpreter, which flushes too when it ends, has nothing to complain of.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (ModelHashError, OSError) as error:
        print(f"tvm-model-hash: {_printable(str(error))}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return 130


def _digest(arguments: argparse.Namespace) -> int:
    from .model.digest import model_record

    record = model_record(arguments.model)
    _print(arguments, _record_fields(record), _record_lines(record))
    return OK


def _show(arguments: argparse.Namespace) -> int:
    from .checking.deployment import Deployment, read

    artifact = read(arguments.artifact)
    if isinstance(artifact, Deployment):
        return _show_deployment(arguments, artifact)
    fields = {"path": artifact.path, **_artifact_fields(artifact)}
    written = f", by TVM {artifact.tvm_version}" if artifact.tvm_version else ""
    lines = [f"{artifact.path}: {_artifact_text(artifact)}{written}, {artifact.size:,} bytes"]
    _print(arguments, fields, [*lines, *_record_lines(artifact.record)])
    return OK


def _show_deployment(arguments: argparse.Namespace, deployment: Any) -> int:
    sealed = "sealed" if deployment.seal else "not sealed"
    rows = [("part", "what", "model", "covered by")]
    for part in deployment.parts:
        model = "no record" if part.record is None else part.record.model[:16]
        rows.append(
            (part.name, _artifact_text(part.artifact), model, _cover(deployment, part) or "nothing")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{deployment.directory}: deployment, {sealed}", *_record_lines(deployment.record)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if deployment.stated is not None:
        lines.append(f"hash.txt says model {deployment.stated.model}")
    lines += [f"{name}: not of a model" for name in deployment.others]
    if deployment.disagreement:
        lines.append(_colored("red", deployment.disagreement, sys.stdout))
    fields = {
        "path": deployment.directory,
        "kind": "deployment",
        **_deployment_fields(deployment),
        "disagreement": deployment.disagreement,
    }
    _print(arguments, fields, lines)
    return DIFFERENT if deployment.disagreement else OK


def _artifact_text(artifact: Any) -> str:
    if artifact.container == "file":
        return str(artifact.kind)
    platform = f", {artifact.platform}" if artifact.platform else ""
    article = "an" if artifact.container[0] in "aeiou" else "a"
    return f"{artifact.kind} in {article} {artifact.container}{platform}"


def _artifact_fields(artifact: Any) -> dict[str, Any]:
    return {
        "kind": artifact.kind,
        "role": artifact.role.value,
        "container": artifact.container,
        "platform": artifact.platform,
        "size": artifact.size,
        "tvm_version": artifact.tvm_version,
        "record": _record_fields(artifact.record),
    }


def _cover(deployment: Any, part: Any) -> str | None:
    covers = ["record"] * (part.record is not None) + ["seal"] * (part.file in deployment.sealed)
    return " and ".join(covers) or None


def _deployment_fields(deployment: Any) -> dict[str, Any]:
    return {
        "parts": [
            {
                "name": part.name,
                **_artifact_fields(part.artifact),
                "covered_by": _cover(deployment, part),
            }
            for part in deployment.parts
        ],
        "others": list(deployment.others),
        "stated": _record_fields(deployment.stated),
        "sealed": deployment.seal is not None,
    }


def _check(arguments: argparse.Namespace) -> int:
    if [arguments.artifact, arguments.rpc, arguments.tracker].count(None) != 2:
        arguments.refuse("expected one of ARTIFACT, --rpc and --tracker")
    if (arguments.artifact is None) != bool(arguments.remote):
        arguments.refuse("--remote goes with --rpc and --tracker, and they with it")
    if arguments.tracker:
        if arguments.key is None:
            arguments.refuse("--tracker takes --key")
        return _check_devices(arguments)
    if arguments.rpc:
        verdict = _device_hash().check_server(
            arguments.model, arguments.rpc, arguments.remote, arguments.key or ""
        )
    else:
        from .checking.verdict import check

        verdict = check(arguments.model, arguments.artifact)
    fields, lines = _verdict_fields(verdict), _verdict_lines(verdict)
    _print(arguments, fields, lines)
    return _verdict_status(arguments, verdict)


def _check_devices(arguments: argparse.Namespace) -> int:
    devices = _device_hash().check_devices(
        arguments.model, arguments.tracker, arguments.key, arguments.remote
    )
    width = max(len(device.address) for device in devices)
    lines, fields, statuses = [f"{'device':{width}}  verdict"], [], set()
    for device in devices:
        found = device.verdict
        statuses.add(ERROR if found is None else _verdict_status(arguments, found))
        color = "red" if found is None else _verdict_color(found)
        address = _printable(f"{device.address:{width}}")
        lines.append(_Shown(f"{address}  {_colored(color, device.reason, sys.stdout)}"))
        rest = {"verdict": None, "reason": device.reason} if found is None else {}
        fields.append({"device": device.address, **(rest or _verdict_fields(found))})
    _print(arguments, {"devices": fields}, lines)
    # That one has another model is worse than that it can't be told of another.
    return next(status for status in (DIFFERENT, ERROR, OK) if status in statuses)


def _device_hash() -> Any:
    """The part that asks devices, which TVM is needed for."""
    import importlib

    from .errors import DeviceError

    try:
        return importlib.import_module(f"{__package__}.tvm.rpc.device_hash")
    except ImportError as error:
        raise DeviceError(
            f"devices are asked by way of TVM's RPC, which this Python can't import: {error}. "
            'Install TVM in this environment: pip install "tvm-model-hash[relay]", or with Relax '
            '"tvm-model-hash[relax]" and "apache-tvm[rpc]"'
        ) from error


def _verdict_fields(verdict: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "verdict": verdict.status.value,
        "reason": verdict.reason,
        "expected": _record_fields(verdict.expected),
        "found": _record_fields(verdict.found),
        "contents_verified": verdict.sealed,
    }
    if verdict.deployment is not None:
        fields.update(_deployment_fields(verdict.deployment))
    return fields


def _verdict_color(verdict: Any) -> str:
    return {"match": "green", "equivalent": "yellow"}.get(verdict.status.value, "red")


def _verdict_lines(verdict: Any) -> list[str]:
    from .checking.verdict import Status

    label = verdict.status.value.replace("_", " ")
    lines = [_colored(_verdict_color(verdict), f"{label}: {verdict.reason}", sys.stdout)]
    found = "no record" if verdict.found is None else verdict.found.model
    if verdict.status is not Status.MATCH and found != verdict.expected.model:
        lines += [f"expected  {verdict.expected.model}", f"found     {found}"]
    if verdict.ok:
        lines += _scope_lines(verdict)
    return lines


def _verdict_status(arguments: argparse.Namespace, verdict: Any) -> int:
    from .checking.verdict import Status

    if verdict.status is Status.NO_RECORD:
        return ERROR
    good = (Status.MATCH,) if arguments.exact else (Status.MATCH, Status.EQUIVALENT)
    return OK if verdict.status in good else DIFFERENT


def _scope_lines(verdict: Any) -> list[str]:
    """What the verdict does not cover."""
    if not verdict.sealed:
        return ["not sealed: whose the files are was checked, not their contents bit by bit"]
    sealed = {file.name for file in verdict.deployment.seal.files}
    return [
        f"not covered by the seal: {name}"
        for name in verdict.deployment.others
        if name not in sealed
    ]


def _explain(arguments: argparse.Namespace) -> int:
    from .model.difference import explain

    difference = explain(arguments.first, arguments.second)
    fields = {"equal": difference is None, "difference": difference}
    _print(arguments, fields, [difference or "same graph, same weights"])
    return OK if difference is None else DIFFERENT


def _seal(arguments: argparse.Namespace) -> int:
    from .checking.manifest import read_seal, seal

    path = seal(arguments.directory)
    sealed = read_seal(arguments.directory)
    fields = {
        "path": path,
        "record": _record_fields(sealed.record),
        "files": [file._asdict() for file in sealed.files],
    }
    model = "no record" if sealed.record is None else f"model {sealed.record.model}"
    files = "1 file" if len(sealed.files) == 1 else f"{len(sealed.files)} files"
    _print(arguments, fields, [f"{path}: {files}, {model}"])
    return OK


def _tag(arguments: argparse.Namespace) -> int:
    from .checking.expected import Expected

    return _write(arguments, Expected(arguments.model).record)


def _strip(arguments: argparse.Namespace) -> int:
    return _write(arguments, None)


def _write(arguments: argparse.Namespace, record: Any) -> int:
    from .artifact.record_io import write_record

    path = write_record(arguments.artifact, record, arguments.output)
    fields = {"path": path, "record": _record_fields(record)}
    _print(arguments, fields, [f"{path}:", *_record_lines(record)])
    return OK


def _record_fields(record: Any) -> dict[str, str | None] | None:
    if record is None:
        return None
    digests = {"model": record.model, "graph": record.graph, "weights": record.weights}
    return {**digests, "record": str(record)}


def _record_lines(record: Any) -> list[str]:
    if record is None:
        return ["no record"]
    fields = [("model", record.model), ("graph", record.graph), ("weights", record.weights)]
    return [f"{key:8} {value}" for key, value in [*fields, *record.extra] if value is not None]


def _print(arguments: argparse.Namespace, fields: Any, lines: list[str]) -> None:
    if arguments.json:
        json.dump(fields, sys.stdout, indent=2)
        print()
    else:
        print(*(line if isinstance(line, _Shown) else _printable(line) for line in lines), sep="\n")


class _Shown(str):
    """A line that is printable, but for the colors that were put into it here."""


def _printable(text: str) -> str:
    # Names come from files: one could move the cursor and write a verdict of its own.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _colored(color: str, text: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return _printable(text)
    return _Shown(f"\033[{_COLORS[color]}m{_printable(text)}\033[0m")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tvm-model-hash",
        description="Which ONNX model was this compiled from?",
        epilog="Exit status: 0 a match, or done; 1 a mismatch; 2 an error, or it can't be told.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"Example:\n  tvm-model-hash {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=run)
        return sub

    model_help = "an ONNX file, a hash.txt, 64 hexadecimal digits, or a record (model-hash/1 ...)"
    artifact_help = (
        "code.ro, a library (.so, .dylib, .dll, .wasm, .a, .tar), a graph (.json), parameters (of "
        "TVM, .npz, tensor-cache.json, .safetensors), or the directory of a deployment"
    )
    tagged_help = (
        "code.ro, a graph (.json) or parameters (of TVM, .npz, tensor-cache.json, .safetensors), "
        "replaced unless -o is given"
    )

    sub = command("digest", _digest, "print the digests of a model", "model.onnx")
    sub.add_argument("model", metavar="MODEL", help="an ONNX file")

    sub = command("show", _show, "print the record of an artifact", "code.ro")
    sub.add_argument("artifact", metavar="ARTIFACT", help=artifact_help)

    sub = command("check", _check, "check an artifact against a model", "model.onnx deployment/")
    sub.add_argument("model", metavar="MODEL", help=model_help)
    sub.add_argument("artifact", metavar="ARTIFACT", nargs="?", help=artifact_help)
    sub.add_argument(
        "--exact",
        action="store_true",
        help="take a match only, and not an equivalent model (other bytes, same graph and weights)",
    )
    sub.add_argument(
        "--rpc", metavar="HOST:PORT", type=_address, help="check files on this RPC server of TVM"
    )
    sub.add_argument(
        "--tracker",
        metavar="HOST:PORT",
        type=_address,
        help="check files on every free device of a key that this RPC tracker knows; status 1 if "
        "any is of another model, else 2 if any could not be checked, as a busy one",
    )
    sub.add_argument("--key", metavar="KEY", help="the key of the devices, or of the server")
    sub.add_argument(
        "--remote",
        metavar="PATH",
        nargs="+",
        help="an artifact on the device, absolute; several files are checked as one deployment",
    )
    sub.set_defaults(refuse=sub.error)

    sub = command("explain", _explain, "say how two models differ", "old.onnx new.onnx")
    sub.add_argument("first", metavar="MODEL", help="an ONNX file")
    sub.add_argument("second", metavar="MODEL", help="another")

    sub = command(
        "seal", _seal, "write a manifest of a deployment: every file's SHA-256", "deployment/"
    )
    sub.add_argument("directory", metavar="DIR", help="the directory of a deployment")

    sub = command(
        "tag", _tag, "put a record into an artifact, or replace it", "code.ro --model model.onnx"
    )
    sub.add_argument("artifact", metavar="ARTIFACT", help=tagged_help)
    sub.add_argument("--model", metavar="MODEL", required=True, help=model_help)
    sub.add_argument("-o", "--output", metavar="OUT", help="write this file instead")

    sub = command("strip", _strip, "remove the record from an artifact", "code.ro -o stock.ro")
    sub.add_argument("artifact", metavar="ARTIFACT", help=tagged_help)
    sub.add_argument("-o", "--output", metavar="OUT", help="write this file instead")
    return parser
