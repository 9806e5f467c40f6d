# SPDX-License-Identifier: Apache-2.0
"""The names of the tensors in a file of parameters."""

from __future__ import annotations

from collections.abc import Sequence

from .. import limits
from ..errors import ArtifactError


def check_count(count: int, source: str) -> None:
    """Check, before they are read, that there are not too many tensors.

    Parameters
    ----------
    count : int
        How many there are.
    source : str
        The file, for the error's message.

    Raises
    ------
    ArtifactError
        If there are more than the limit.
    """
    if count > limits.TENSORS:
        raise ArtifactError(
            f"{source} says that it has {count} tensors, more than the limit of {limits.TENSORS}"
        )


def tensor_names(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Check that names tell tensors apart.

    Parameters
    ----------
    names : sequence of str
        The names as they were found.
    source : str
        The file, for the error's message.

    Returns
    -------
    names : tuple of str
        The same, in their order.

    Raises
    ------
    ArtifactError
        If two of them are equal, or one is no text.
    """
    seen = set()
    for name in names:
        if name in seen:
            raise ArtifactError(f"{source} is damaged: it has two tensors {name[:100]!r}")
        seen.add(name)
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:  # half a character, which JSON can write
            raise ArtifactError(
                f"{source} is damaged: the name {name[:100]!r} is not a text: {error}"
            ) from error
    return tuple(names)
