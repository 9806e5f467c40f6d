# SPDX-License-Identifier: Apache-2.0
"""The hook: installed means active, in any order of imports, and gone when it is off."""

import os

import pytest
from conftest import run_python

import tvm_model_hash
from tvm_model_hash.activation import PATCHES

# Says which of the patched places are patched.
REPORT = """
import importlib, sys
def report():
    import tvm
    from tvm import relay
    from tvm.runtime.vm import Executable, VirtualMachine
    ours = [relay.frontend.from_onnx, relay.frontend.onnx.from_onnx, relay.quantize.quantize,
            relay.vm.VMCompiler.lower, relay.vm.VMCompiler.get_exec]
    return "".join([*("01"[hasattr(f, "__wrapped__")] for f in ours),
                    *("01"[hasattr(c, "get_hash")] for c in (Executable, VirtualMachine)),
                    "01"[hasattr(Executable, "save_hash")]])
"""
PATCHED, STOCK = "1" * 8, "0" * 8


def report(code, **env):
    return run_python(REPORT + code + "\nprint(report())", env=env).stdout.strip()


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


def test_the_hook_is_gone_once_it_has_fired():
    run_python(
        "import sys; before = len(sys.meta_path)\nimport tvm.relay\n"
        "assert len(sys.meta_path) == before - 1, sys.meta_path\n"
        "import tvm_model_hash; assert tvm_model_hash.is_installed()\n"
        "assert type(tvm.relay.vm.__spec__.loader).__name__ == 'SourceFileLoader'\n"
        "assert 'exec_module' not in vars(tvm.relay.vm.__spec__.loader)"
    )


def test_looking_for_a_module_without_importing_it_does_not_use_up_the_hook():
    find = "import importlib.util as u, importlib.machinery as m, sys\n" + "\n".join(
        f"[f.find_spec({name!r}, None) for f in sys.meta_path]" for name in PATCHES
    )
    assert report(find) == PATCHED


def test_an_unsupported_tvm_is_left_unchanged_with_one_warning():
    code = """
import warnings, tvm_model_hash.versions
tvm_model_hash.versions.RELAY_TVM_VERSIONS = ("0.1.0", "0.2.0")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import tvm
    from tvm import relay
    tvm_model_hash.install()
ours = [str(w.message) for w in caught if "tvm-model-hash" in str(w.message)]
assert len(ours) == 1 and "TVM 0.19.0" in ours[0] and "0.1.0, 0.2.0" in ours[0], ours
assert not tvm_model_hash.is_installed()
"""
    assert report(code) == STOCK


@pytest.mark.parametrize("action", ["always", "error"])
def test_a_failed_activation_leaves_tvm_working(action):
    # The integration of the quantizer is asked for under a name that it does not have.
    code = f"""
import warnings
from tvm_model_hash.activation import PATCHES
PATCHES["tvm.relay.quantize.quantize"][1]["nonsense"] = "nonsense"
warnings.simplefilter({action!r}, RuntimeWarning)
import tvm
from tvm import relay
assert relay.quantize.quantize
"""
    result = run_python(code, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("could not patch tvm.relay.quantize.quantize") == 1
    assert "AttributeError" in result.stderr
    assert "TVM_MODEL_HASH=0" in result.stderr


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
