# SPDX-License-Identifier: Apache-2.0
"""All files that a model consists of: its own, and those beside it with its tensors."""

from __future__ import annotations

import os

from ..files import name_of
from .contents import tensors
from .external import is_external
from .file import load_model


def model_files(path: str | os.PathLike[str]) -> dict[str, str]:
    """List the files of a model.

    Parameters
    ----------
    path : str or os.PathLike
        Path or URL of its own file.

    Returns
    -------
    files : dict of str to str
        The path of each by its name: first the model's own file, then those with external data,
        sorted, by the paths that the model has for them.

    Raises
    ------
    ModelFileError, ExternalDataError
        If one can't be read, or is not where it may be.
    """
    path = os.fsdecode(path)
    loaded = load_model(path)
    found = {}
    for tensor in tensors(loaded.proto):
        if is_external(tensor):
            file_range = loaded.files.find(tensor)
            [location] = [e.value for e in tensor.external_data if e.key == "location"]
            found[location] = file_range.file.path
    return {name_of(path): path, **dict(sorted(found.items()))}
