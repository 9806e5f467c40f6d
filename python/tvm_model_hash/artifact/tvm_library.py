# SPDX-License-Identifier: Apache-2.0
"""Finding what TVM put into a library, by the symbols of the library and without loading it.

FORMAT.md says what lies where.
"""

from __future__ import annotations

from functools import cached_property
from typing import BinaryIO, NamedTuple

from .. import limits
from ..containers.binary import Binary, Symbol
from ..containers.library import Library, open_library
from ..errors import ArtifactError
from .tvm_serializer import Reader

MODULES_SYMBOL = "__tvm_dev_mblob"
#: The same since TVM 0.25, where the tree of the modules stands before them.
FFI_MODULES_SYMBOL = "__tvm_ffi__library_bin"
#: Type key of the entry that stands for the library's own functions.
OWN_FUNCTIONS = "_lib"

# What TVM's loader fills in or looks up (library_module.cc). None of them is in every library.
_TVM_SYMBOLS = (
    MODULES_SYMBOL,
    FFI_MODULES_SYMBOL,
    "__tvm_ffi__library_ctx",
    "__tvm_ffi_main",
    "__tvm_module_ctx",
    "__tvm_main__",
    "__TVMAPISetLastError",
    "__TVMFuncCall",
    "__TVMBackendGetFuncFromEnv",
    "__TVMBackendAllocWorkspace",
    "__TVMBackendFreeWorkspace",
    "__TVMBackendParallelLaunch",
    "__TVMBackendParallelBarrier",
)

_INDEX_BYTES = 8


class Module(NamedTuple):
    """The first of the modules in a library, which TVM's ``load_module`` returns."""

    type_key: str
    reader: Reader  # at the beginning of what the module itself has written


class TvmLibrary:
    """A library, and what TVM put into it.

    Parameters
    ----------
    library : Library
        The library.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.container = library.container
        self.source = library.source
        self.platform = library.platform

    @classmethod
    def open(cls, file: BinaryIO, size: int, source: str) -> TvmLibrary | None:
        """Open a file, as :func:`tvm_model_hash.containers.library.open_library` does.

        Returns
        -------
        library : TvmLibrary or None
            None if the file's first bytes are those of another format.
        """
        library = open_library(file, size, source)
        return None if library is None else cls(library)

    def is_from_tvm(self) -> bool:
        """Whether the library has one of the symbols that TVM's loader looks for."""
        return bool(self.root_modules) or any(
            binary.symbols(_TVM_SYMBOLS) for binary in self.library.binaries
        )

    @cached_property
    def root_modules(self) -> tuple[Module, ...]:
        """The modules that ``tvm.runtime.load_module`` would return.

        None where the library has functions only and no modules beside them; several in a
        universal library, and where several models were linked together. All are of one type.

        Raises
        ------
        ArtifactError
            If the library is damaged, or the modules are of several types.
        """
        found = [_root_module(name, symbol) for name, symbol in self._blobs()]
        modules = tuple(module for module in found if module is not None)
        types = sorted({module.type_key for module in modules})
        if len(types) > 1:
            raise ArtifactError(
                f"{self.source} holds modules of several types, {', '.join(map(repr, types))}: "
                "expected one library of TVM's"
            )
        return modules

    def _blobs(self) -> list[tuple[str, Symbol]]:
        blobs: dict[int, tuple[str, Symbol]] = {}
        for binary in self.library.binaries:
            for name, symbol in _blobs_in(binary):
                if symbol.data is None:
                    raise ArtifactError(
                        f"{binary.window.source} is damaged: nothing in the file "
                        f"holds the symbol {symbol.name}"
                    )
                blobs.setdefault(symbol.data.start, (name, symbol))
                binary.window.limit(len(blobs), limits.FOUND_SYMBOLS, "modules")
        return list(blobs.values())


def _blobs_in(binary: Binary) -> list[tuple[str, Symbol]]:
    names = (MODULES_SYMBOL, FFI_MODULES_SYMBOL)
    found = binary.symbols(names)
    for name in names:
        if name in found:
            return [(name, found[name])]
    # A system library puts the model's prefix before the name, so that there can be several.
    return [
        (next(name for name in names if symbol.name.endswith(name)), symbol)
        for symbol in binary.search(names)
    ]


def _root_module(name: str, symbol: Symbol) -> Module | None:
    data = symbol.data
    assert data is not None
    reader = Reader(data.file, data.size, data.source, data.start, "module blob")
    # Little-endian on every machine.
    size = reader.count("size")
    room = data.size - reader.position
    if size > room or (symbol.sized and size != room):
        raise ArtifactError(
            f"{data.source} is damaged: its module blob says {size} bytes follow, and the symbol "
            f"{symbol.name} has room for {room}"
        )
    reader.size = reader.position + size
    # The modules stand in the order of a walk from the root: it is the first.
    if name == MODULES_SYMBOL:
        count = reader.count("module count")
    else:
        # For each module the beginning of its imports in the list behind, and the list's end.
        count = reader.count("module tree") - 1
        reader.skip(_INDEX_BYTES * (count + 1), "module tree")
        reader.skip(_INDEX_BYTES * reader.count("module tree"), "module tree")
    if count <= 0:
        return None
    return Module(reader.string("module's type key").decode("ascii", "replace"), reader)
