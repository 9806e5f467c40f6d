# SPDX-License-Identifier: Apache-2.0
"""Where readers end: what a damaged file can raise leaves them as an error that names the file."""

from __future__ import annotations

import functools
import inspect
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .errors import ArtifactError, ModelHashError

_Function = TypeVar("_Function", bound=Callable[..., Any])

# What Python raises for numbers, lengths and texts that are not what they should be. Others, as
# TypeError, are mistakes of a program.
_DAMAGED = (ValueError, LookupError, ArithmeticError, EOFError, struct.error, zlib.error)


@contextmanager
def reading(path: str, error: type[ModelHashError] = ArtifactError) -> Iterator[None]:
    """Turn what a damaged file can raise into an error that names it.

    The readers check what they read, and say what is wrong. This is for what they have overlooked.

    Parameters
    ----------
    path : str
        The file.
    error : type
        Of the error, a subclass of ModelHashError.

    Raises
    ------
    ModelHashError
        Any as it was raised; else one of this type, with what was raised as its cause.
    """
    if "\0" in path:
        raise error(f"cannot read {path!r}: there is a byte 0 in its name")
    try:
        yield
    except ModelHashError:
        raise
    except OSError as found:
        raise error(f"cannot read {path!r}: {found.strerror or found}") from found
    except MemoryError as found:
        raise error(f"cannot read {path!r}: it takes more memory than there is") from found
    except RecursionError as found:
        raise error(f"{path!r} is damaged: what is in it is nested too deeply") from found
    except _DAMAGED as found:
        what = f"{type(found).__name__}: {found}"
        raise error(
            f"{path!r} is damaged, or this is a mistake of tvm-model-hash: {what}"
        ) from found


def reads(error: type[ModelHashError] = ArtifactError) -> Callable[[_Function], _Function]:
    """Make :func:`reading` the boundary of a function whose first argument is a path.

    Parameters
    ----------
    error : type
        As there.

    Returns
    -------
    decorator : callable
        Calls with another first argument, a model in memory for example, pass unchanged.
    """

    def decorate(function: _Function) -> _Function:
        name = next(iter(inspect.signature(function).parameters))

        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            path = args[0] if args else keywords.get(name)
            if not isinstance(path, (str, os.PathLike)):
                return function(*args, **keywords)
            with reading(os.fsdecode(path), error):
                return function(*args, **keywords)

        return call  # type: ignore[return-value]

    return decorate
