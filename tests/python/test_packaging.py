# SPDX-License-Identifier: Apache-2.0
"""The wheel, and the build of the C++ library."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import ROOT

import tvm_model_hash

TVM = pathlib.Path(importlib.util.find_spec("tvm").origin).parent
SOURCES = ("CMakeLists.txt", "LICENSE", "README.md", "cmake", "pyproject.toml", "python", "src")


@pytest.fixture
def sources(tmp_path):
    """A copy of what a wheel is built from."""
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(*command, **env):
    return subprocess.run(
        [str(part) for part in command],
        env={name: value for name, value in {**os.environ, **env}.items() if value is not None},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def said(result):
    """The output on one line, because CMake breaks lines."""
    return " ".join(result.stdout.split())


def which(tool):
    """The path of a tool, of the test environment if that has it."""
    return shutil.which(tool, path=os.path.dirname(sys.executable)) or shutil.which(tool)


def build_wheel(sources, python=sys.executable, **env):
    pip = (python, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir")
    result = run(*pip, "-w", sources / "dist", sources, **env)
    wheels = list(sources.glob("dist/*.whl"))
    return result, wheels[0] if wheels else None


def configure(build, *arguments, **env):
    cmake = (which("cmake"), "-S", ROOT, "-B", build, *arguments)
    return run(*cmake, f"-DPython_EXECUTABLE={sys.executable}", **env)


def test_what_is_installed_is_a_wheel_with_the_cpp_library():
    package = pathlib.Path(tvm_model_hash.__file__).parent
    assert ROOT not in package.parents or ".venv" in str(package)
    assert (package / "lib/libtvm_model_hash.so").is_file()


def test_the_wheel_holds_nothing_under_tvm(sources):
    result, wheel = build_wheel(sources, TVM_ROOT=str(TVM))
    assert wheel, result.stdout
    assert wheel.name.startswith("tvm_model_hash-0.1.0-py3-none-")
    assert not wheel.name.endswith("any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "tvm_model_hash",
        "tvm_model_hash-0.1.0.dist-info",
        "tvm_model_hash.pth",
    }
    integrations = {name for name in names if name.startswith("tvm_model_hash/tvm/")}
    assert integrations == {
        f"tvm_model_hash/{path.relative_to(ROOT / 'python')}"
        for path in (ROOT / "python/tvm").rglob("*.py")
    }
    assert "tvm_model_hash/lib/libtvm_model_hash.so" in names
    assert {"tvm_model_hash/py.typed", "tvm_model_hash/__init__.pyi"} <= {*names}
    # Not the time of the build, which would make each wheel another.
    assert len({file.date_time for file in zipfile.ZipFile(wheel).infolist()}) == 1


def assert_pure(result, wheel, reason):
    assert reason in said(result)
    assert wheel is not None, result.stdout
    assert wheel.name == "tvm_model_hash-0.1.0-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "tvm_model_hash.pth" in names
    assert "tvm_model_hash/tvm/runtime/vm_hash.py" in names
    assert not [name for name in names if name.endswith(".so")]


def test_without_compiler_a_wheel_in_python_is_made(sources, tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("cmake", "make"):
        (tmp_path / "bin" / tool).symlink_to(which(tool))
    result, wheel = build_wheel(sources, PATH=str(tmp_path / "bin"), CXX=None, TVM_ROOT=None)
    assert_pure(result, wheel, "No C++ compiler was found. Install one")


def test_without_tvm_a_wheel_in_python_is_made(sources, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    result, wheel = build_wheel(sources, python, TVM_ROOT=None)
    assert_pure(result, wheel, "No TVM with headers was found by")


def test_a_named_tvm_that_is_none_fails_the_build(sources):
    result, wheel = build_wheel(sources, TVM_ROOT=str(sources))
    assert wheel is None
    assert "expected one of: 0.14;0.15;0.16;0.17;0.18;0.19" in said(result)


def test_the_library_builds_alone(tmp_path):
    result = configure(tmp_path, TVM_ROOT=None)
    assert f"TVM: {TVM}" in said(result), result.stdout
    result = run(which("cmake"), "--build", tmp_path)
    library = tmp_path / "libtvm_model_hash.so"
    assert library.is_file(), result.stdout
    for place in (ROOT, TVM.resolve()):
        assert os.fsencode(place) not in library.read_bytes()
    assert "warning" not in result.stdout


def headers(directory, version):
    """The headers of the installed TVM, as if it were of another version."""
    header = "include/tvm/runtime/c_runtime_api.h"
    (directory / "3rdparty").symlink_to(TVM / "3rdparty")
    shutil.copytree(TVM / "include", directory / "include")
    text = (TVM / header).read_text()
    assert text.count('TVM_VERSION "0.19.0"') == 1
    (directory / header).write_text(text.replace("0.19.0", version))
    return directory


@pytest.mark.parametrize("version", ["0.13.0", "0.20.dev0", "0.190.0"])
def test_headers_of_an_unknown_layout_fail_the_build(tmp_path, version):
    result = configure(tmp_path / "build", f"-DTVM_ROOT={headers(tmp_path, version)}")
    assert result.returncode
    assert f"of TVM '{version}', expected one of: 0.14;" in said(result)
    assert 'pip install "tvm-model-hash[relay]"' in said(result)


@pytest.mark.parametrize("version", ["0.14.0", "0.16.dev0"])
def test_headers_of_a_known_layout_build(tmp_path, version):
    result = configure(tmp_path / "build", f"-DTVM_ROOT={headers(tmp_path, version)}")
    assert not result.returncode, result.stdout
    result = run(which("cmake"), "--build", tmp_path / "build")
    assert (tmp_path / "build/libtvm_model_hash.so").is_file(), result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="libstdc++ has two ABIs, libc++ has one")
def test_another_cpp_abi_fails_the_build(tmp_path):
    result = configure(tmp_path, "-DCMAKE_CXX_FLAGS=-D_GLIBCXX_USE_CXX11_ABI=0")
    assert result.returncode
    assert "undefined reference" in said(result)
    assert "-D_GLIBCXX_USE_CXX11_ABI=0" in said(result)


def test_an_editable_install_is_refused(sources):
    pip = (sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--dry-run")
    result = run(*pip, "-e", sources)
    assert result.returncode
    assert "can't be installed as editable" in said(result)
    assert "pip install ." in said(result)


def test_the_sdist_builds_a_wheel(sources, tmp_path):
    result = run(
        *(sys.executable, "-m", "pip", "install", "-q", "--target", tmp_path / "tools"),
        "scikit-build-core",
    )
    assert not result.returncode, result.stdout
    code = "import scikit_build_core.build as b, sys; print(b.build_sdist(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "sdist"],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "tools")},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    with tarfile.open(tmp_path / "sdist" / result.stdout.split()[-1]) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    built, wheel = build_wheel(unpacked, TVM_ROOT=str(TVM))
    assert wheel, built.stdout


def test_in_tvms_own_tree_our_modules_are_tvms(tmp_path):
    # A copy of TVM in links: its libraries are found by the place of the real files.
    shutil.copytree(TVM, tmp_path / "tvm", copy_function=os.symlink)
    shutil.copytree(ROOT / "python/tvm", tmp_path / "tvm", dirs_exist_ok=True)
    code = """
import tvm
from tvm import relay
from tvm.runtime import vm_hash
x = relay.var("x", shape=(2,))
mod = tvm.IRModule.from_expr(relay.Function([x], x + x)).with_attr("model_hash", "0" * 64)
print(relay.vm.compile(mod, "llvm").get_hash() == "0" * 64, vm_hash.__file__)
"""
    result = run(sys.executable, "-c", code, PYTHONPATH=str(tmp_path))
    assert result.stdout.splitlines()[-1] == f"True {tmp_path}/tvm/runtime/vm_hash.py"


def test_tvms_own_build_takes_the_source(tmp_path):
    """In an upstream tree: TVM's own CMakeLists.txt finds executable_hash.cc and compiles it."""
    for name in ("CMakeLists.txt", "cmake", "include", "3rdparty"):
        (tmp_path / name).symlink_to(TVM / name)
    shutil.copytree(TVM / "src", tmp_path / "src")
    shutil.copy(ROOT / "src/runtime/vm/executable_hash.cc", tmp_path / "src/runtime/vm")
    tools = ("-G", "Unix Makefiles", "-DUSE_LLVM=OFF", "-DUSE_LIBBACKTRACE=OFF")
    result = run(which("cmake"), "-S", tmp_path, "-B", tmp_path / "build", *tools)
    assert not result.returncode, result.stdout
    makefile = ("-f", "CMakeFiles/tvm_runtime_objs.dir/build.make")
    target = "CMakeFiles/tvm_runtime_objs.dir/src/runtime/vm/executable_hash.cc.o"
    result = run("make", "-C", tmp_path / "build", *makefile, target)
    assert (tmp_path / "build" / target).is_file(), result.stdout
