# SPDX-License-Identifier: Apache-2.0
"""Options of tvmc's command line: a hash for what is compiled, a check of what is to be run."""

import argparse
import functools
from contextlib import contextmanager

import tvm_model_hash
from tvm_model_hash.integration import hash_by_default

from .main import REGISTERED_PARSER, TVMCException, _main, register_parser


@functools.wraps(_main)
def checked_main(argv):
    # The last of the registered ones finds the subcommands of all others.
    register_parser(_add_options)
    try:
        return _main(argv)
    finally:
        REGISTERED_PARSER.remove(_add_options)


def _add_options(subparsers, _main_parser, _json_params):
    compiling, running = (subparsers.choices[name] for name in ("compile", "run"))
    compiling.add_argument(
        "--get-hash",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="put the SHA-256 of an ONNX model into what is compiled of it; by default if the "
        "environment variable TVM_MODEL_HASH is 'import'",
    )
    running.add_argument(
        "--check-hash",
        metavar="MODEL",
        help="refuse a package that was not compiled from this ONNX model, or from the model with "
        "this hash",
    )
    compiling.set_defaults(func=functools.partial(_compile, compiling.get_default("func")))
    running.set_defaults(func=functools.partial(_run, running.get_default("func")))


def _compile(compile_model, args):
    if args.get_hash:
        from .frontends import get_frontend_by_name, guess_frontend

        named = args.model_format and get_frontend_by_name(args.model_format)
        frontend = named or guess_frontend(args.FILE)
        if frontend.name() != "onnx":
            raise TVMCException(
                f"--get-hash is for ONNX models, and {args.FILE!r} is read as {frontend.name()}"
            )
    with hash_by_default(args.get_hash), _errors():
        return compile_model(args)


def _run(run_package, args):
    if args.check_hash is not None:
        with _errors():
            tvm_model_hash.check(args.check_hash, args.PATH).require()
    return run_package(args)


@contextmanager
def _errors():
    """Tell an error as tvmc tells its own."""
    try:
        yield
    except tvm_model_hash.ModelHashError as error:
        raise TVMCException(str(error)) from error
