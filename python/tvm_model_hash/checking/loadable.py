# SPDX-License-Identifier: Apache-2.0
"""What the running TVM surely can't load, as far as the files tell. What is unknown is tried."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable

from ..containers.library import open_library
from ..errors import ModelHashError, UnloadableArtifactError
from ..recipe import kinds
from .parts import Part

# Kinds of targets that compute on a device with a runtime of its own in TVM.
_DEVICE_KINDS = ("cuda", "metal", "nvptx", "opencl", "rocm", "vulkan")
_LINKED_ONLY = ("object file", "static library")


def refuse_unloadable(
    where: str, parts: Iterable[Part], version: str, is_enabled: Callable[[str], bool]
) -> None:
    """Refuse parts that TVM would fail to load, before it has loaded any.

    Parameters
    ----------
    where : str
        The directory, for messages.
    parts : iterable of Part
        What is to be loaded.
    version : str
        The version of the running TVM.
    is_enabled : callable
        Whether the running TVM has the runtime for a kind of target.

    Raises
    ------
    UnloadableArtifactError
        If it can't load one of them.
    """
    for part in parts:
        reason = _reason(part, version, is_enabled)
        if reason:
            raise UnloadableArtifactError(f"{part.name!r} in {where!r} cannot be loaded: {reason}")


def _reason(part: Part, version: str, is_enabled: Callable[[str], bool]) -> str | None:
    artifact = part.artifact
    if artifact.container in _LINKED_ONLY:
        article = "an" if artifact.container[0] in "aeiou" else "a"
        return (
            f"it is {article} {artifact.container}, which is linked into a program; expected a "
            "shared library or a .tar, as export_library writes them"
        )
    own = process_platforms()
    # A .tar is linked here first; on Windows its files are objects of another format's name.
    found = set((artifact.platform or "").replace("COFF ", "PE ").split(", ")) - {""}
    if own and found and not found & own:
        return (
            f"it is for {artifact.platform}, and this process is {', '.join(sorted(own))}; load it "
            "on such a machine, or compile the model for a target of this one"
        )
    wrote = artifact.tvm_version
    # Behind the plus sign stands of which sources it was built, which the loader does not compare.
    if wrote is not None and wrote != version.partition("+")[0]:
        return (
            f"TVM {wrote} wrote it, and the running TVM is {version}, which loads executables of "
            f"its own version only; load it with TVM {wrote}, or compile the model again"
        )
    # With several kinds it may be that nothing was placed on one of them.
    targets = kinds(part.record)
    if len(targets) == 1 and targets[0] in _DEVICE_KINDS and not is_enabled(targets[0]):
        return (
            f"it was compiled for {targets[0]}, whose runtime the running TVM was built without; "
            "load it with a TVM that has it, or compile the model for another target"
        )
    return None


@functools.cache
def process_platforms() -> frozenset[str]:
    """Find out which platforms this process may be one of.

    Returns
    -------
    platforms : frozenset of str
        As of an artifact, those of the Python that runs; empty where that can't be told.
    """
    try:
        path = os.path.realpath(sys.executable)
        with open(path, "rb") as file:
            library = open_library(file, file.seek(0, os.SEEK_END), repr(path))
    except (OSError, ModelHashError):
        return frozenset()
    platform = library.platform if library is not None else None
    return frozenset(platform.split(", ")) if platform else frozenset()
