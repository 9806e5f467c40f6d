# SPDX-License-Identifier: Apache-2.0
"""The command line: what it takes, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from ..files import downloading
from . import actions
from .report import PROGRAM, Exit, Report, Result, complain

_EXIT_STATUS = """\
Exit status:
  0    a match, or done
  1    a mismatch: another model, or parts that do not belong together
  2    an error
  3    it can't be told: a part has no record, or a seal that is demanded is missing
  4    a sealed file was changed
  Of several results the first of 1, 4, 2, 3, 0 that there is."""


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    status : int
        As ``--help`` says; 130 if it was interrupted. Nothing is raised.
    """
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(status)
    except KeyboardInterrupt:
        _forget_output()
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        _forget_output()
        return Exit.ERROR
    except Exception as error:  # the output can't be written, or something is wrong here
        _forget_output()
        reason = actions.error_result(error, None, debug).reason
        complain(f"cannot print: {reason}" if isinstance(error, OSError) else str(reason))
        return Exit.ERROR


def _run(argv: list[str]) -> Exit:
    try:
        arguments = _parse(argv)
        return _report(arguments)
    except _UsageError as error:
        if "--json" in argv:
            report = Report(error.command, "json")
            report.fail("UsageError", str(error))
            report.finish()
        if sys.stderr is not None:
            print(error.usage, end="", file=sys.stderr)
        complain(str(error))
        return Exit.ERROR
    except SystemExit as done:  # --help, --version, and completion
        return Exit.ERROR if done.code else Exit.OK


def _report(arguments: argparse.Namespace) -> Exit:
    devices = getattr(arguments, "tracker", None) is not None
    several = arguments.command == "check" and actions.are_several(
        arguments.paths[1 - arguments.consistent :]
    )
    form = "rows" if devices or several else "text"
    form = "json" if arguments.json else "quiet" if arguments.quiet else form
    if sys.stdout is None and form != "quiet":
        raise OSError("standard output is closed. --quiet prints nothing")
    report = Report(arguments.command, form, "device" if devices else "artifact")
    with downloading() if getattr(arguments, "download", False) else contextlib.nullcontext():
        for result in _results(arguments, report):
            report.add(result)
    return report.finish()


def _results(arguments: argparse.Namespace, report: Report) -> Iterator[Result]:
    try:
        yield from arguments.run(arguments)
    except _UsageError:
        raise
    except Exception as error:
        failure = actions.error_result(error, None, arguments.debug)
        report.fail(str(failure.error), str(failure.reason))
        complain(str(failure.reason))


def _forget_output() -> None:
    """Keep the interpreter from flushing, when it ends, what can't be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _UsageError(Exception):
    """The arguments are not what the command takes."""

    def __init__(self, command: str | None, usage: str, message: str) -> None:
        super().__init__(message)
        self.command = command
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2] or None
        raise _UsageError(command, self.format_usage(), message)


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> None:
        from importlib.metadata import version

        print(PROGRAM, version(PROGRAM))
        raise SystemExit(0)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for what may come next
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments, rest = parser.parse_known_args(argv)
    # Options may stand between the paths, where argparse takes what follows for too much.
    unknown = [word for word in rest if word.startswith("-") or not hasattr(arguments, "paths")]
    if unknown:
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        arguments.paths += rest
    return arguments


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser, of which the man page is made too.

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    parser = _Parser(
        prog=PROGRAM,
        description="Which ONNX model was this compiled from?",
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version of this package, and exit"
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)

    def command(
        name: str,
        run: Callable[[argparse.Namespace], Iterator[Result]],
        text: str,
        *examples: str,
        usage: str | None = None,
        reads_urls: bool = False,
    ) -> argparse.ArgumentParser:
        shown = "".join(f"\n  {PROGRAM} {name} {example}" for example in examples)
        sub = commands.add_parser(
            name,
            help=text,
            usage=usage,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"Example:{shown}" if len(examples) == 1 else f"Examples:{shown}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        output = sub.add_mutually_exclusive_group()
        output.add_argument(
            "--json", action="store_true", help="print JSON, as docs/json.md describes it"
        )
        output.add_argument(
            "-q", "--quiet", action="store_true", help="print errors only: the exit status says it"
        )
        if reads_urls:
            sub.add_argument(
                "--download",
                action="store_true",
                help="behind a URL, transfer whole what the server gives no parts of",
            )
        sub.add_argument("--debug", action="store_true", help="print where an error comes from")
        sub.set_defaults(run=run, refuse=sub.error)
        return sub

    model_help = (
        "an ONNX file or its URL, a hash.txt, 64 hexadecimal digits, or a record (model-hash/1 ...)"
    )
    artifact_help = (
        "code.ro, a library (.so, .dylib, .dll, .wasm, .a, .tar), a graph (.json), parameters (of "
        "TVM, .npz, tensor-cache.json, .safetensors), or the directory of a deployment; or the URL "
        "of one"
    )
    links_help = (
        "take a symbolic link in a directory for the file that it leads to, also out of the "
        "directory, as sha256sum -c does"
    )
    tagged_help = (
        "code.ro, a graph (.json) or parameters (of TVM, .npz, tensor-cache.json, .safetensors), "
        "replaced unless -o is given"
    )

    sub = command(
        "digest", actions.digest, "print the digests of models", "model.onnx", reads_urls=True
    )
    sub.add_argument(
        "paths", metavar="MODEL", nargs="+", help="an ONNX file or its URL, or - for standard input"
    )
    sub.add_argument(
        "--hash-only",
        action="store_true",
        help="print the model hash alone; of several models with the path behind it, as sha256sum",
    )

    sub = command(
        "show", actions.show, "print the records of artifacts", "code.ro", reads_urls=True
    )
    sub.add_argument("paths", metavar="ARTIFACT", nargs="+", help=artifact_help)
    sub.add_argument("--follow-links", action="store_true", help=links_help)

    sub = command(
        "check",
        actions.check,
        "check artifacts against a model, or against themselves",
        "model.onnx deployment/",
        "model.onnx dist/*",
        "--consistent dist/*",
        "--consistent 's3://bucket/models/*'",
        reads_urls=True,
        usage=(
            f"{PROGRAM} check [options] MODEL ARTIFACT...\n"
            f"       {PROGRAM} check [options] --consistent ARTIFACT...\n"
            f"       {PROGRAM} check [options] MODEL --rpc HOST:PORT --remote PATH...\n"
            f"       {PROGRAM} check [options] MODEL --tracker HOST:PORT --key KEY\n"
            "           --remote PATH..."
        ),
    )
    sub.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help=f"first MODEL, {model_help}; then each ARTIFACT, {artifact_help}",
    )
    sub.add_argument(
        "--consistent",
        action="store_true",
        help="there is no MODEL: check that the parts of each artifact are of one model, whichever",
    )
    sub.add_argument(
        "--exact",
        action="store_true",
        help="take a match only, and not an equivalent model (other bytes, same graph and weights)",
    )
    sub.add_argument(
        "--sealed",
        action="store_true",
        help="demand a seal, and that no other file lies there but what the seal says to ignore",
    )
    sub.add_argument("--follow-links", action="store_true", help=links_help)
    sub.add_argument(
        "--require",
        metavar="KEY=VALUE[,...]",
        action="append",
        default=[],
        help="demand this of each record, as show prints it: target=llvm (or with the triple, as "
        "far as you like: target=llvm:x86_64), tvm=0.19.0, shapes=x:1x16. Can be given several "
        "times",
    )
    sub.add_argument(
        "--rpc", metavar="HOST:PORT", type=_address, help="check files on this RPC server of TVM"
    )
    sub.add_argument(
        "--tracker",
        metavar="HOST:PORT",
        type=_address,
        help="check files on every free device of a key that this RPC tracker knows; of a busy one "
        "it can't be told",
    )
    sub.add_argument("--key", metavar="KEY", help="the key of the devices, or of the server")
    sub.add_argument(
        "--remote",
        metavar="PATH",
        nargs="+",
        help="an artifact on the device, absolute; several files are checked as one deployment",
    )

    sub = command("explain", actions.explain, "say how two models differ", "old.onnx new.onnx")
    sub.add_argument("first", metavar="MODEL", help="an ONNX file")
    sub.add_argument("second", metavar="MODEL", help="another")

    sub = command(
        "seal",
        actions.seal,
        "write a manifest of a deployment: every file's SHA-256",
        "deployment/",
        "deployment/ --ignore '*.log'",
    )
    sub.add_argument("directory", metavar="DIR", help="the directory of a deployment")
    sub.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="do not list files with such names below DIR (* stands for anything, / too), and say "
        "so in the manifest; never what runs or holds weights. Can be given several times",
    )
    sub.add_argument("--follow-links", action="store_true", help=links_help)

    sub = command(
        "tag",
        actions.tag,
        "put the record of a model into an artifact, or into all of a deployment that has a place "
        "for one, and seal that",
        "code.ro --model model.onnx",
        "deployment/ --model model.onnx",
    )
    _add_tag_arguments(sub, tagged_help, model_help)

    sub = command(
        "attest",
        actions.attest,
        "state what a deployment was compiled from, to be signed; docs/signing.md says how",
        "deployment/ --model model.onnx -o deployment.intoto.json",
        "deployment/ --model model.onnx --format cyclonedx",
    )
    _add_attest_arguments(sub, artifact_help)

    sub = command(
        "strip", actions.strip, "remove the record from an artifact", "code.ro -o stock.ro"
    )
    sub.add_argument("artifact", metavar="ARTIFACT", help=tagged_help)
    sub.add_argument("-o", "--output", metavar="OUT", help="write this file instead")
    return parser


def _add_tag_arguments(sub: argparse.ArgumentParser, tagged_help: str, model_help: str) -> None:
    sub.add_argument(
        "artifact",
        metavar="ARTIFACT",
        help=f"{tagged_help}; or the directory of a deployment, whose files are replaced",
    )
    sub.add_argument("--model", metavar="MODEL", required=True, help=model_help)
    sub.add_argument("-o", "--output", metavar="OUT", help="write this file instead")
    sub.add_argument(
        "--force",
        action="store_true",
        help="also where there is the record of another model, weights of these names and shapes "
        "that are not the model's, or a broken seal",
    )


def _add_attest_arguments(sub: argparse.ArgumentParser, artifact_help: str) -> None:
    sub.add_argument("artifact", metavar="ARTIFACT", help=artifact_help)
    sub.add_argument("--model", metavar="MODEL", required=True, help="its ONNX file")
    sub.add_argument(
        "--format",
        choices=("in-toto", "cyclonedx"),
        default="in-toto",
        help="a statement of in-toto with SLSA provenance (the default), or a bill of materials",
    )
    sub.add_argument(
        "--builder-id",
        metavar="URI",
        help="who compiled it, for verifiers of the provenance; else that is said to be unknown",
    )
    sub.add_argument(
        "-o", "--output", metavar="OUT", help="write this file, which must not lie in ARTIFACT"
    )
