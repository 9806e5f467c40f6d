# SPDX-License-Identifier: Apache-2.0
"""Print the directory of the TVM that the running Python would import, for CMakeLists.txt.

TVM is not imported: a wheel is built where TVM's own dependencies need not be installed.
"""

import importlib.util
import pathlib
import sysconfig


def package_directories():
    spec = importlib.util.find_spec("tvm")
    if spec is not None:
        yield from map(pathlib.Path, spec.submodule_search_locations or ())
    # pip builds wheels with the environment's packages hidden, though not its Python.
    for scheme in ("platlib", "purelib"):
        yield pathlib.Path(sysconfig.get_path(scheme)) / "tvm"


for package in package_directories():
    # A wheel has the headers inside the package, a source tree beside python/tvm.
    for root in (package, package.parent.parent):
        if (root / "include" / "tvm" / "runtime" / "c_runtime_api.h").is_file():
            print(root)
            raise SystemExit
