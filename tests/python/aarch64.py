# SPDX-License-Identifier: Apache-2.0
"""A stock aarch64 TVM loads what was compiled here for it, answers and computes, under qemu.

Debian's Python for aarch64 and qemu come from apt, into a directory: nothing is installed, and root
is not needed. TVM's own wheels for aarch64 come from the registry of Python's packages.

    python aarch64.py DIRECTORY
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version

import numpy as np
import tvm
from cross import PLATFORMS, leaky, linker, llvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.runtime import vm_hash

from tvm_model_hash import Status, check

PACKAGES = [
    "qemu-user-static",
    *(f"{name}:arm64" for name in ("python3", "libstdc++6", "libgomp1")),
]
MANYLINUX = (
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_24",
    "manylinux_2_27",
    "manylinux_2_28",
)

X = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)

# No package of ours is there, nor onnx.
LOAD = """
import importlib.util, json, platform, sys
import numpy, tvm
from tvm import relax
assert importlib.util.find_spec("tvm_model_hash") is None
found = {"machine": platform.machine(), "tvm": tvm.__version__}
for path in sys.argv[2:]:
    library = tvm.runtime.load_module(path)
    vm = relax.VirtualMachine(library, tvm.cpu())
    x = numpy.array(json.loads(sys.argv[1]), "float32")
    found[path] = [
        str(library.get_function("get_model_hash", True)()),
        str(library.get_function("get_model_hash_record", True)()),
        vm["main"](tvm.runtime.tensor(x)).numpy().tolist(),
    ]
print(json.dumps(found))
"""


def main(directory):
    """Try it, in a directory that keeps what was downloaded."""
    directory = pathlib.Path(directory).resolve()
    if not (directory / "ready").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        download_python(directory)
        download_tvm(directory)
        (directory / "ready").touch()
    libraries, record = compile_libraries(directory)
    began = time.perf_counter()
    output = run_there(directory, "-c", LOAD, json.dumps(X.tolist()), *libraries)
    found = json.loads(output.splitlines()[-1])
    seconds = time.perf_counter() - began
    assert found["machine"] == "aarch64", found
    assert found["tvm"] == tvm.__version__, found
    for path in libraries:
        model, text, y = found[str(path)]
        assert (model, text) == (record.model, str(record)), found
        np.testing.assert_allclose(y, np.where(X < 0, X * np.float32(0.1), X), rtol=1e-6)
        print(f"{path.name}: answers and computes")
    print(f"stock TVM {found['tvm']} on {found['machine']}, under qemu: {seconds:.0f} s")


def download_python(directory):
    """Get Debian's Python for aarch64, and qemu."""
    # A state of apt's own, so that the machine's architectures stay as they are.
    state = directory / "apt"
    for path in ("lists/partial", "cache/archives/partial"):
        (state / path).mkdir(parents=True)
    (state / "status").touch()
    options = {
        "APT::Sandbox::User": "",
        "APT::Architectures::": "arm64",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    if shutil.which("apt-get") is None:
        sys.exit("there is no apt-get here: this takes qemu and a Python for aarch64 from Debian")
    run("apt-get", "-qq", *words, "update")
    install = ("install", "--download-only", "--yes", "--no-install-recommends")
    run("apt-get", "-qq", *words, *install, *PACKAGES)
    for package in (state / "cache/archives").glob("*.deb"):
        place = "tools" if package.name.startswith("qemu-") else "root"
        if place == "tools" or package.name.endswith("_arm64.deb"):
            run("dpkg-deb", "--extract", package, directory / place)


def download_tvm(directory):
    """Get the wheels of the TVM that is installed here, for aarch64."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    platforms = [*(f"{name}_aarch64" for name in MANYLINUX), "any"]
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *(word for name in platforms for word in ("--platform", name)),
        *("--python-version", run_there(directory, "-c", code).strip()),
        *("--only-binary", ":all:", "--dest", directory / "wheels"),
        *(f"{name}=={version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")),
    )
    for wheel in (directory / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(directory / "site")


def compile_libraries(directory):
    """Compile the network for aarch64; as it is, and stripped."""
    platform = PLATFORMS["linux-aarch64"]
    target = tvm.target.Target(platform.target)
    executable = relax.build(from_onnx(leaky(), get_hash=True), target)
    plain, stripped = directory / "lib.so", directory / "stripped.so"
    executable.export_library(plain, fcompile=linker("linux-aarch64"))
    llvm("llvm-strip", plain, "-o", stripped)
    for path in (plain, stripped):
        assert check(leaky(), path).status is Status.MATCH
    return [plain, stripped], vm_hash.get_record(executable)


def run_there(directory, *arguments):
    """Run the Python for aarch64."""
    root = directory / "root"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(directory / "site"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TVM_NUM_THREADS": "1",
    }
    qemu = directory / "tools/usr/bin/qemu-aarch64-static"
    return run(qemu, "-L", root, root / "usr/bin/python3", *arguments, env=environment)


def run(*command, **options):
    """Run a program, which may say on stderr what it likes, and return what it prints."""
    command = [str(word) for word in command]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
