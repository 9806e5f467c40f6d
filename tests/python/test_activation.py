# SPDX-License-Identifier: Apache-2.0
"""The hook: installed means active, in any order of imports, and gone when it is off."""

import os
import re

import pytest
from conftest import run_python
from hook import PATCHED, REPORT, STOCK, changed_tvm, report

import tvm_model_hash
from tvm_model_hash.activation import PATCHES


@pytest.mark.parametrize("first", [*PATCHES, "tvm", "tvm.relay", "tvm.driver.tvmc"])
def test_it_is_active_whatever_is_imported_first(first):
    assert report(f"import {first}") == PATCHED


@pytest.mark.parametrize("module", ["tvm.runtime.vm_hash", "tvm.relay.frontend.onnx_hash"])
def test_our_modules_are_importable_first(module):
    assert report(f"import {module}") == PATCHED


def test_from_imports_get_the_patched_names():
    code = "from tvm.relay.frontend import from_onnx; from_onnx(None, get_hash=True)"
    result = run_python(code, check=False)
    assert "tvm_model_hash.errors.ModelTypeError" in result.stderr


def test_the_environment_variable_switches_it_off():
    code = "import tvm_model_hash; assert not tvm_model_hash.is_installed()"
    assert report(code, TVM_MODEL_HASH="0") == STOCK
    assert report("", TVM_MODEL_HASH="1") == PATCHED


@pytest.mark.parametrize("imported", ["", "import tvm; from tvm import relay"])
def test_install_by_hand(imported):
    code = f"{imported}\nimport tvm_model_hash as t\nt.install(); assert t.is_installed()"
    assert report(code, TVM_MODEL_HASH="0") == PATCHED


@pytest.mark.parametrize("imported", ["", "import tvm; from tvm import relay"])
def test_uninstall_gives_stock_tvm_back(imported):
    code = f"{imported}\nimport tvm_model_hash as t\nt.uninstall(); assert not t.is_installed()"
    assert report(code) == STOCK


def test_uninstall_leaves_no_trace_in_tvm():
    code = """
import tvm, tvm_model_hash
from tvm import relay
def traces():
    packages = [tvm.ir, tvm.runtime, relay.frontend, relay.backend, relay.quantize]
    return [list(p.__path__) for p in packages], sys.meta_path[:], [
        vars(relay.vm.VMCompiler)[n] for n in ("lower", "get_exec")], relay.quantize.quantize
"""
    loops = """
tvm_model_hash.uninstall()
stock = traces()
assert "tvm_model_hash" not in str(stock[0])
for _ in range(2):
    tvm_model_hash.install()
    tvm_model_hash.install()
    assert report() == "1" * 8 and traces() != stock
    tvm_model_hash.uninstall()
    tvm_model_hash.uninstall()
    assert report() == "0" * 8 and traces() == stock
"""
    assert report(code + loops) == STOCK


def test_uninstall_leaves_what_others_patched_since():
    code = """
import tvm, tvm_model_hash
from tvm import relay
theirs = lambda: 1
relay.frontend.onnx.from_onnx = theirs
tvm_model_hash.uninstall()
assert relay.frontend.onnx.from_onnx is theirs
assert not hasattr(relay.frontend.from_onnx, "__wrapped__")
"""
    run_python(code)


def test_modules_have_the_loader_that_was_found():
    run_python(
        "import sys, tvm.driver.tvmc\n"
        f"for name in {[*PATCHES]!r}:\n"
        "    module = sys.modules[name]\n"
        "    assert type(module.__loader__).__name__ == 'SourceFileLoader'\n"
        "    assert module.__spec__.loader is module.__loader__"
    )


def test_the_finder_that_stays_is_one():
    run_python(
        "import sys; before = sys.meta_path[:]\nimport tvm.relay, tvm_model_hash\n"
        "tvm_model_hash.install()\n"
        "assert sys.meta_path == before and type(before[0]).__name__ == '_Finder'\n"
        "assert [type(f).__name__ for f in before].count('_Finder') == 1"
    )


def test_looking_for_a_module_without_importing_it_does_not_use_up_the_hook():
    find = "import importlib.util as u, importlib.machinery as m, sys\n" + "\n".join(
        f"[f.find_spec({name!r}, None) for f in sys.meta_path]" for name in PATCHES
    )
    assert report(find) == PATCHED


# Imports twice without a hash, and twice with one, and says what was warned of.
USE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import tvm, tvm_model_hash
    from tvm import relay
    import onnx.parser
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 15]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    installed = tvm_model_hash.is_installed()
    relay.frontend.from_onnx(model)
    relay.frontend.from_onnx(model, get_hash=False)
    def warned():
        return [str(w.message) for w in caught if "tvm-model-hash" in str(w.message)]
    assert warned() == [], warned()
    said = []
    for _ in range(2):
        try:
            mod, _ = relay.frontend.from_onnx(model, get_hash=True)
            said.append(mod.attrs["model_hash"] == tvm_model_hash.model_hash(model))
        except tvm_model_hash.UnsupportedTVMError as error:
            said.append(str(error))
print(report(), installed, said[0] == said[1], len(warned()))
print(said[0])
print(*warned(), sep="\\n")
"""


def use(**env):
    """What is patched, whether it is installed, what get_hash=True says, and the warnings."""
    result = run_python(REPORT + USE, env=env)
    first, said, *warned = result.stdout.strip().splitlines()
    patched, installed, again, count = first.split()
    assert again == "True"
    assert len(warned) == int(count)
    return patched, installed == "True", said, warned


def test_a_tested_version_is_used_without_a_word():
    assert use() == (PATCHED, True, "True", [])


@pytest.mark.parametrize("version", ["0.14.0", "0.18.dev7+g0123abc"])
def test_an_untested_version_works_and_says_so_once_and_late(version, tmp_path):
    libinfo = {"_ffi/libinfo.py": ('__version__ = "0.19.0"', f'__version__ = "{version}"')}
    patched, installed, said, (warning,) = use(**changed_tvm(tmp_path, libinfo))
    assert (patched, installed, said) == (PATCHED, True, "True")
    assert f"not tested with TVM {version}" in warning
    assert "0.19.0 (Relay)" in warning


@pytest.mark.parametrize("version", ["0.13.0", "0.20.dev0"])
def test_relay_of_an_unknown_layout_stays_as_it_is_until_a_hash_is_asked_for(version, tmp_path):
    libinfo = {"_ffi/libinfo.py": ('__version__ = "0.19.0"', f'__version__ = "{version}"')}
    patched, installed, said, warned = use(**changed_tvm(tmp_path, libinfo))
    # But for the importer, which has to tell.
    assert (patched, installed, warned) == ("11000000", False, [])
    assert f"does not work with this TVM {version}: " in said
    assert "layout of its VM executables is not known; it is for TVM 0.14 to 0.19" in said


@pytest.mark.parametrize(
    ("file", "old", "new", "missing"),
    [
        (
            "relay/backend/vm.py",
            "def get_exec(self):",
            "def get_executable(self):",
            "AttributeError: .*'get_exec'",
        ),
        (
            "relay/backend/vm.py",
            "def lower(self, mod,",
            "def lower(self, module,",
            "tvm.relay.backend.vm.VMCompiler.lower has the parameters .self, module, .* expected "
            ".self, mod. to be the first",
        ),
        (
            "relay/frontend/onnx.py",
            "\n\ndef from_onnx(\n",
            "\n\ndef from_onnx(proto):\n    return import_onnx(proto)\n\n\ndef import_onnx(\n",
            "tvm.relay.frontend.onnx.from_onnx has the parameters .proto.",
        ),
        (
            "relay/backend/vm.py",
            "class VMCompiler(",
            "class Compiler(",
            "tvm.relay.backend.vm has no VMCompiler",
        ),
    ],
)
def test_what_is_missing_in_tvm_is_named_when_a_hash_is_asked_for(
    file, old, new, missing, tmp_path
):
    _, installed, said, warned = use(**changed_tvm(tmp_path, {file: (old, new)}))
    assert (installed, warned) == (False, [])
    assert re.search(missing, said), said
    assert "pip install --force-reinstall tvm-model-hash" in said


# As if the integrations were another's: for a module that TVM does not have, or without a function.
@pytest.mark.parametrize(
    ("damage", "installed", "missing"),
    [
        (
            'PATCHES["tvm.relay.quantize.quantize"][1]["nonsense"] = "nonsense"',
            "False",
            "tvm.relay.quantize.quantize: AttributeError: .*'nonsense'",
        ),
        (
            'PATCHES["tvm.relay.elsewhere.vm"] = PATCHES["tvm.relay.backend.vm"]',
            "True",
            "it has no module tvm.relay.elsewhere. ",
        ),
    ],
)
def test_an_integration_that_does_not_fit_leaves_tvm_working(damage, installed, missing):
    result = run_python(
        f"{REPORT}from tvm_model_hash.activation import PATCHES\n{damage}\n{USE}", check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.match(f"[01]{{8}} {installed} True 0\n", result.stdout)
    assert re.search(missing, result.stdout)


def test_a_hash_that_only_the_environment_asks_for_is_refused_too():
    code = (
        "from tvm_model_hash.activation import PATCHES\n"
        'PATCHES["tvm.relay.frontend.onnx"][1]["nonsense"] = "nonsense"\n'
        "from tvm import relay\nrelay.frontend.from_onnx(None)"
    )
    result = run_python(code, env={"TVM_MODEL_HASH": "import"}, check=False)
    assert "UnsupportedTVMError: get_hash=True does not work" in result.stderr


def test_an_interpreter_without_tvm_imports_next_to_nothing():
    loaded = set(run_python("import sys; print(*sys.modules)").stdout.split())
    assert {name for name in loaded if "hash" in name} == {
        "tvm_model_hash",
        "tvm_model_hash.activation",
    }
    assert not loaded & {"tvm", "onnx", "numpy", "re", "importlib.util", "warnings"}


def test_the_names_of_the_package_are_lazy_and_complete():
    for name in tvm_model_hash.__all__:
        assert getattr(tvm_model_hash, name).__name__ == name
    assert set(tvm_model_hash.__all__) <= set(dir(tvm_model_hash))
    with pytest.raises(AttributeError, match="nonsense"):
        tvm_model_hash.nonsense  # noqa: B018


def test_the_core_never_imports_tvm():
    package = os.path.dirname(tvm_model_hash.__file__)
    names = [f[:-3] for f in os.listdir(package) if f.endswith(".py")]
    imports = "\n".join(f"import tvm_model_hash.{name}" for name in names)
    run_python(f"import sys; sys.modules['tvm'] = None\n{imports}")
    assert len(names) > 5
