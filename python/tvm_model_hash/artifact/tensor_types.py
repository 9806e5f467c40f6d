# SPDX-License-Identifier: Apache-2.0
"""The names of element types in files of parameters, as NumPy has them.

Only of types whose elements are whole bytes, which every format stores in the same way.
"""

from __future__ import annotations

import re

_WIDTHS = {
    "int": (8, 16, 32, 64),
    "uint": (8, 16, 32, 64),
    "float": (16, 32, 64),
    "bfloat": (16,),
    "complex": (64, 128),
}
_NAMES = {"bool", *(f"{kind}{bits}" for kind, widths in _WIDTHS.items() for bits in widths)}

_DLPACK_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex"}
_DLPACK_BOOLS = {(1, 1), (6, 8)}  # of TVM with Relay, and of DLPack since
_SAFETENSORS_KINDS = {"I": "int", "U": "uint", "F": "float", "BF": "bfloat"}


def of_numpy(name: object) -> str | None:
    """Take a name if it is one of these types, None for all others."""
    return name if isinstance(name, str) and name in _NAMES else None


def of_dlpack(code: int, bits: int) -> str | None:
    """Name a type by DLPack's code of its kind, and its width in bits."""
    if (code, bits) in _DLPACK_BOOLS:
        return "bool"
    return of_numpy(f"{_DLPACK_KINDS.get(code)}{bits}")


def of_safetensors(name: object) -> str | None:
    """Name a type that has this name in safetensors."""
    if name == "BOOL":
        return "bool"
    match = re.fullmatch("([A-Z]+)([0-9]+)", name) if isinstance(name, str) else None
    return match and of_numpy(f"{_SAFETENSORS_KINDS.get(match[1])}{match[2]}")


def shape_of(value: object) -> tuple[int, ...] | None:
    """Take a shape from JSON; None if it is none."""
    if isinstance(value, list) and all(type(size) is int and size >= 0 for size in value):
        return tuple(value)
    return None
