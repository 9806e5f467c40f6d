# SPDX-License-Identifier: Apache-2.0
"""The versions of TVM that this package knows; CMakeLists.txt reads the releases from here."""

import re

#: The releases with Relay whose VM executables have the layout that is known (vm_header.py).
RELAY_TVM_RELEASES = ("0.14", "0.15", "0.16", "0.17", "0.18", "0.19")
#: The versions with Relay that this package is tested with.
RELAY_TVM_VERSIONS = ("0.19.0",)
#: The versions with Relax that this package is tested with.
RELAX_TVM_VERSIONS = ("0.25.0.post1", "0.26.0", "0.27.0.post1")


def is_relay_version(version: str) -> bool:
    """Whether the layout of the VM executables of a version of TVM is known.

    Parameters
    ----------
    version : str
        The version, as ``0.16.0``, ``0.16.dev0`` or ``0.16.dev42+g0123abc``.

    Returns
    -------
    known : bool
    """
    match = re.fullmatch(r"([0-9]+[.][0-9]+)[.][0-9A-Za-z.+_-]{1,64}", version)
    return match is not None and match[1] in RELAY_TVM_RELEASES
