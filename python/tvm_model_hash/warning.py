# SPDX-License-Identifier: Apache-2.0
"""Warnings, which are shown at the line of whoever called TVM or this package."""

from __future__ import annotations

import sys
import warnings

from .errors import ModelHashWarning

# What lies between the line that a person wrote and the one that warns: TVM, this package, and
# what others wrap functions with. Frames are told by the names of their modules, which also code
# has that a decorator has generated.
_BETWEEN = {"tvm", "tvm_ffi", "tvm_model_hash", "wrapt", "typeguard", "beartype"}
_BETWEEN |= {"functools", "contextlib"}


def warn(message: str) -> None:
    """Warn the caller of TVM, or of this package.

    Parameters
    ----------
    message : str
        What happened, and what to do about it. It is a ``ModelHashWarning``.
    """
    frame = sys._getframe(1)
    while _package(frame.f_globals) in _BETWEEN and frame.f_back is not None:
        frame = frame.f_back
    # As warnings.warn does it for a frame that can be counted to; by how many frames of TVM this
    # is called is not known.
    warnings.warn_explicit(
        message,
        ModelHashWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__") or "<unknown>",
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _package(variables: dict[str, object]) -> str:
    return str(variables.get("__name__")).partition(".")[0]
