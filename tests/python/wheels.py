# SPDX-License-Identifier: Apache-2.0
"""Build the sdist and the wheels that are for everybody, and check them.

The library is compiled for each architecture against TVM's own wheel for that, linked to its
libtvm once, and loaded beside its libtvm_runtime: aarch64's with Debian's cross compiler and qemu,
which are not installed. Without apt-get there is no wheel for aarch64.

    python wheels.py DIRECTORY

Leaves the files in DIRECTORY/dist.
"""

import email
import hashlib
import os
import pathlib
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY = "tvm_model_hash/lib/libtvm_model_hash.so"
# With the number that ELF has for each.
ARCHITECTURES = {"x86_64": 62, "aarch64": 183}
# Which get the wheel in Python, whatever else there is.
OTHER_PLATFORMS = (
    "manylinux_2_17_x86_64",
    "manylinux_2_31_armv7l",
    "musllinux_1_2_x86_64",
    "macosx_14_0_arm64",
    "win_amd64",
)

# Loads TVM's runtime and then the library, every symbol of it, and looks for what it registers.
LOAD = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char** argv) {
  void* tvm = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
  void* library = tvm ? dlopen(argv[2], RTLD_NOW) : 0;
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
  auto get = (int (*)(const char*, void**))dlsym(tvm, "TVMFuncGetGlobal");
  const char* names[] = {"runtime.SetExecutableRecord", "runtime.GetExecutableRecord"};
  for (const char* name : names) {
    void* found = 0;
    if (get(name, &found) || !found) return fprintf(stderr, "no %s\n", name), 1;
  }
}
"""

# In an environment with the package and no TVM.
INSTALLED = """
import importlib.metadata as metadata, importlib.util, sys
assert "tvm_model_hash.activation" in sys.modules, "the .pth file was not run"
import onnx.helper, tvm_model_hash
assert tvm_model_hash.is_installed()
(backend,) = metadata.entry_points(group="tvm.backends")
assert backend.load() is sys.modules["tvm_model_hash.activation"].start
assert importlib.util.find_spec("tvm") is None
graph = onnx.helper.make_graph([], "empty", [], [])
onnx.save(onnx.helper.make_model(graph), sys.argv[1])
"""


def main(directory):
    """Build and check, in a directory that keeps what was downloaded."""
    directory = pathlib.Path(directory).resolve()
    for name in ("dist", "work"):
        shutil.rmtree(directory / name, ignore_errors=True)
    dist, work = directory / "dist", directory / "work"
    sdist = build(ROOT, dist, "--sdist")
    with tarfile.open(sdist) as archive:
        # For auditwheel too, which would take the time of day.
        os.environ["SOURCE_DATE_EPOCH"] = str(int(archive.getmembers()[0].mtime))
    # A second time elsewhere, because the names of places get into files.
    trees = [unpack(sdist, work / place) for place in ("one", "another/place")]
    for tree in trees:
        assert_equal(sdist, build(tree, tree.parent / "sdist", "--sdist"))
    check_sdist(trees[0])
    check_wheel(build_twice(trees, dist, "-Cwheel.cmake=false"), trees[0])
    for architecture in ARCHITECTURES:
        toolchain, emulator = find_toolchain(directory, architecture)
        if toolchain is None:
            print(f"NOT BUILT HERE: the library for {architecture}, which takes Debian's apt-get")
            continue
        package = download_tvm(directory, architecture)
        wheel = build_twice(trees, dist, architecture=architecture, package=package, **toolchain)
        check_wheel(wheel, trees[0], architecture)
        check_loads(wheel, package, work / architecture, toolchain, emulator)
    files = sorted(dist.iterdir())
    tool("twine", "--no-color", "check", "--strict", *files)
    tool("check_wheel_contents", *dist.glob("*.whl"))
    check_choices(dist, work / "choices")
    for file in files:
        if not file.name.endswith(".whl") or runs_here(file):
            check_install(file, work / f"install-{file.name}")
            print(f"{file.name}: installs without a compiler and TVM")
    for file in files:
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")


def build(sources, dist, *arguments, **env):
    """Build a file with the tools of this environment, which are pinned, and checked by hash."""
    arguments = ("--no-isolation", "--outdir", dist, *arguments, sources)
    tool("build", *arguments, **{"TVM_ROOT": None, **env})
    pattern = "*.tar.gz" if "--sdist" in arguments else "*.whl"
    (file,) = dist.glob(pattern)
    return file


def build_twice(trees, dist, *arguments, architecture="any", package=None, **env):
    """Build a wheel in two places, and put it into dist if the bytes are the same."""
    wheels = []
    for tree in trees:
        built = tree.parent / architecture
        if package is not None:
            env["_PYTHON_HOST_PLATFORM"] = f"linux-{architecture}"
            # TVM lies elsewhere, too.
            (tree.parent / "tvm").unlink(missing_ok=True)
            (tree.parent / "tvm").symlink_to(package)
            env["TVM_ROOT"] = str(tree.parent / "tvm")
        wheel = build(tree, built, "--wheel", *arguments, **env)
        if package is not None:
            # The tag says what the library's symbols need of the system, and no more.
            tool("auditwheel", "repair", "--only-plat", "--wheel-dir", built / "tagged", wheel)
            (wheel,) = built.glob("tagged/*.whl")
        wheels.append(wheel)
    assert_equal(*wheels)
    return pathlib.Path(shutil.copy(wheels[0], dist))


def assert_equal(first, second):
    """Check that two builds have made the same file."""
    assert first.name == second.name, (first, second)
    assert first.read_bytes() == second.read_bytes(), f"{first} and {second} differ"
    print(f"{first.name}: two builds, the same bytes")


def unpack(sdist, place):
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    return place / sdist.name.removesuffix(".tar.gz")


def check_sdist(tree):
    """Check that everything is there that is in git, and nothing else."""
    if not (ROOT / ".git").exists():
        return
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    expected = {name for name in names if name and not name.startswith(".ci/")} | {"PKG-INFO"}
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == expected, f"not in git, or not in the sdist: {sorted(found ^ expected)}"


def check_wheel(wheel, tree, architecture=None):
    """Check a wheel's files and metadata against the sources."""
    sources = {}
    for path in (tree / "python").rglob("*"):
        name = path.relative_to(tree / "python").as_posix()
        if path.is_file():
            sources[f"tvm_model_hash/{name}" if name.startswith("tvm/") else name] = path
    name, version, tag = re.fullmatch(r"(\w+)-([\d.]+)-py3-none-(\w+)[.]whl", wheel.name).groups()
    info = f"{name}-{version}.dist-info"
    sources[f"{info}/licenses/LICENSE"] = tree / "LICENSE"
    generated = {f"{info}/{file}" for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    if architecture:
        generated.add(LIBRARY)
    with zipfile.ZipFile(wheel) as archive:
        files = {item: archive.read(item) for item in archive.namelist() if item[-1] != "/"}
    assert set(files) == set(sources) | generated, set(files) ^ (set(sources) | generated)
    for item, path in sources.items():
        assert files[item] == path.read_bytes(), item
    labels = email.message_from_bytes(files[f"{info}/WHEEL"])
    assert labels.get_all("Tag") == [f"py3-none-{tag}"]
    assert labels["Root-Is-Purelib"] == ("false" if architecture else "true")
    metadata = email.message_from_bytes(files[f"{info}/METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("tvm-model-hash", version)
    needed = [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]
    assert needed == ["onnx>=1.17", "tqdm"], needed
    if not architecture:
        assert tag == "any", tag
        return
    assert re.fullmatch(rf"manylinux_2_\d+_{architecture}", tag), tag
    library = files[LIBRARY]
    assert struct.unpack_from("<H", library, 18) == (ARCHITECTURES[architecture],)
    places = re.findall(rb"(?<![\w./-])/[\w./-]+[.](?:h|cc)\b", library)
    assert not places, f"places on this machine are in the library: {places}"


def find_toolchain(directory, architecture):
    """Find a compiler for an architecture, and what runs its programs.

    Returns
    -------
    toolchain : dict of str to str, or None
        The environment variables that name the compiler to CMake. None if there is no compiler.
    emulator : list of str
        The words before a program's name.
    """
    if architecture == platform.machine():
        return {}, []
    if (architecture, platform.machine()) != ("aarch64", "x86_64") or not shutil.which("apt-get"):
        return None, []
    root = directory / "cross"
    if not root.exists():
        # The lists and the cache are apart, so that root is not needed.
        state = directory / "apt"
        for path in ("lists/partial", "archives/partial"):
            (state / path).mkdir(parents=True, exist_ok=True)
        options = {
            "APT::Sandbox::User": "",
            "Dir::State::lists": state / "lists",
            "Dir::Cache": state,
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        run("apt-get", "-qq", *words, "update")
        install = ("install", "--download-only", "--yes", "--no-install-recommends")
        run("apt-get", "-qq", *words, *install, "g++-aarch64-linux-gnu", "qemu-user-static")
        part = directory / "cross.part"
        shutil.rmtree(part, ignore_errors=True)
        for package in (state / "archives").glob("*.deb"):
            run("dpkg-deb", "--extract", package, part)
        part.rename(root)
    toolchain = {
        "CXX": str(root / "usr/bin/aarch64-linux-gnu-g++"),
        "CXXFLAGS": f"--sysroot={root}",
        "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu"),  # the assembler's
    }
    emulator = [root / "usr/bin/qemu-aarch64-static", "-L", root / "usr/aarch64-linux-gnu"]
    return toolchain, [str(word) for word in emulator]


def download_tvm(directory, architecture):
    """Get the package tvm of TVM's wheel with Relay, for an architecture."""
    place = directory / f"tvm-{architecture}"
    if not place.exists():
        (wheel,) = re.findall(
            r"xtc-tvm-python-bindings==[\d.]+", (ROOT / "pyproject.toml").read_text()
        )
        part = directory / f"tvm-{architecture}.part"
        shutil.rmtree(part, ignore_errors=True)
        # Headers and libraries are the same for each version of Python.
        tool(
            *("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", part),
            *("--python-version=3.11", f"--platform=manylinux_2_28_{architecture}", wheel),
        )
        (file,) = part.glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(part)
        part.rename(place)
    return place / "tvm"


def check_loads(wheel, package, place, toolchain, emulator):
    """Check that the library finds all that it needs in TVM, and registers its functions."""
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract(LIBRARY, place)
    (place / "load.cc").write_text(LOAD)
    compiler = toolchain.get("CXX") or os.environ.get("CXX") or "c++"
    flags = toolchain.get("CXXFLAGS", "").split()
    run(compiler, *flags, place / "load.cc", "-ldl", "-o", place / "load", **toolchain)
    run(*emulator, place / "load", package / "libtvm_runtime.so", library)
    print(f"{wheel.name}: loads beside TVM{', under qemu' if emulator else ''}")


def check_choices(dist, place):
    """Check what pip takes out of all of them, on this platform and others."""
    tags = [file.stem.split("-")[-1] for file in dist.glob("*.whl")]
    expected = {tag: tag for tag in tags if tag != "any"}
    for tag in (*expected, *OTHER_PLATFORMS):
        tool(
            *("pip", "download", "--quiet", "--no-deps", "--no-index", "--find-links", dist),
            *("--only-binary=:all:", f"--platform={tag}", "--dest", place / tag, "tvm-model-hash"),
        )
        (chosen,) = (place / tag).iterdir()
        assert chosen.stem.endswith(f"-py3-none-{expected.get(tag, 'any')}"), (tag, chosen.name)
        print(f"on {tag} pip takes {chosen.name}")


def runs_here(wheel):
    return wheel.stem.endswith(("-any", f"_{platform.machine()}"))


def check_install(file, place):
    """Install a file where there is no TVM and nothing else on the path, and use it."""
    run(sys.executable, "-m", "venv", place)
    tools = place / "bin"
    alone = {"PATH": str(tools), "CXX": None, "TVM_ROOT": None, "PYTHONPATH": None}
    run(tools / "python", "-m", "pip", "install", "--quiet", file, **alone)
    model = place / "model.onnx"
    run(tools / "python", "-c", INSTALLED, model, **alone)
    said = run(tools / "tvm-model-hash", "digest", model, **alone)
    assert hashlib.sha256(model.read_bytes()).hexdigest() in said, said
    has_library = bool(list(place.rglob(pathlib.Path(LIBRARY).name)))
    assert has_library == ("linux" in file.name)


def tool(module, *arguments, **env):
    """Run a tool of this environment, whose programs the tool may need in turn."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return run(sys.executable, "-m", module, *arguments, **{"PATH": path, **env})


def run(*command, **env):
    """Run a command that has to succeed; None takes a variable out of its environment."""
    environ = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=os.path.abspath(os.sep),  # away from the sources
        env=environ,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
