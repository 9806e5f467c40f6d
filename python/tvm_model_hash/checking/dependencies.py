# SPDX-License-Identifier: Apache-2.0
"""Libraries that a library has loaded with it, which no check of a deployment has seen."""

from __future__ import annotations

import posixpath
import re

from ..boundary import reading
from ..containers.library import open_library
from ..errors import ArtifactError
from ..files import open_regular, state_of

# A process with TVM in it has these already, and the loader takes what it has: what is called
# exactly so, and is not asked for by a path.
_IN_EVERY_PROCESS = re.compile(
    r"ld-linux[^/]*\.so\.[0-9]+|lib[cm]\.so\.6|libdl\.so\.2|librt\.so\.1|libpthread\.so\.0"
    r"|libgcc_s\.so\.1|libstdc\+\+\.so\.6|libtvm(_runtime|_ffi)?\.so"
    r"|(@rpath/)?libtvm(_runtime|_ffi)?\.dylib"
)
_SYSTEM_DIRECTORIES = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/System/Library/")


def refuse_dependencies(name: str, path: str) -> None:
    """Refuse a library that says itself where further libraries are to be loaded from.

    Those of the system, which the loader finds without being told where, are not of a deployment.

    Parameters
    ----------
    name : str
        The name of the library's file, for messages.
    path : str
        The path to read it by.

    Raises
    ------
    ArtifactError
        If it asks for a library by a path, or for one and where to look for it.
    """
    with reading(name), open_regular(path) as file:
        library = open_library(file, state_of(file).size, repr(name))
        dependencies = None if library is None else library.dependencies
    if dependencies is None:
        return
    for wanted in dependencies.libraries:
        is_path = "/" in wanted
        if _IN_EVERY_PROCESS.fullmatch(wanted) or (
            is_path and posixpath.normpath(wanted).startswith(_SYSTEM_DIRECTORIES)
        ):
            continue
        if is_path or dependencies.paths:
            places = ", ".join(map(repr, dependencies.paths)) or "that path"
            raise ArtifactError(
                f"{name!r} has the library {wanted!r} loaded with it, from {places}, and nothing "
                "says which model that one is of. Link what it needs into it, or install it where "
                "the system's libraries are"
            )
