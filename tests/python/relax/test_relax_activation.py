# SPDX-License-Identifier: Apache-2.0
"""The hook beside a TVM with Relax: through .pth, through TVM's entry points, and off."""

import importlib.metadata

import pytest
from conftest import run_python

from tvm_model_hash.activation import PATCHES, RELAX_PATCHES

# Says which of the patched places are patched.
REPORT = """
def report():
    import tvm
    from tvm import relax
    import tvm.relax.frontend.onnx as onnx
    from tvm.runtime import Module
    functions = [onnx.from_onnx, onnx.onnx_frontend.from_onnx, relax.build, relax.vm_build.build]
    assert not any(hasattr(f, "__wrapped__") for f in (Module.export_library,
                                                       relax.VirtualMachine.__init__))
    return "".join([*("01"[hasattr(f, "__wrapped__")] for f in functions),
                    *("01"[hasattr(c, "get_hash")] for c in (relax.VMExecutable,
                                                             relax.VirtualMachine))])
"""
PATCHED, STOCK = "1" * 6, "0" * 6

# What .pth does at the start of the process is undone, as if there were no .pth.
WITHOUT_PTH = """
import tvm_model_hash.activation as activation
assert activation.is_installed()
activation._remove_finder()
"""


def report(code, **env):
    return run_python(REPORT + code + "\nprint(report())", env=env).stdout.strip()


@pytest.mark.parametrize("first", [*RELAX_PATCHES, "tvm", "tvm.relax", "tvm.runtime"])
def test_it_is_active_whatever_is_imported_first(first):
    assert report(f"import {first}") == PATCHED


def test_the_importer_as_a_programs_first_line():
    code = "from tvm.relax.frontend.onnx import from_onnx\nfrom_onnx(None, get_hash=True)"
    for before in ("", WITHOUT_PTH):
        result = run_python(before + code, check=False)
        assert "tvm_model_hash.errors.ModelTypeError" in result.stderr


def test_tvm_activates_it_by_its_entry_points():
    (entry,) = importlib.metadata.entry_points(group="tvm.backends", name="tvm-model-hash")
    assert entry.value == "tvm_model_hash.activation:start"
    assert report(WITHOUT_PTH) == PATCHED
    assert report(WITHOUT_PTH, TVM_DEVICE_BACKEND_AUTOLOAD="0") == STOCK


def test_the_environment_variable_switches_it_off():
    code = "import tvm_model_hash; assert not tvm_model_hash.is_installed()"
    assert report(code, TVM_MODEL_HASH="0") == STOCK
    code = "import tvm, tvm_model_hash; assert not tvm_model_hash.is_installed()"
    assert report(code, TVM_MODEL_HASH="0") == STOCK


@pytest.mark.parametrize("imported", ["", "import tvm.relax.frontend.onnx"])
def test_install_by_hand(imported):
    code = f"{imported}\nimport tvm_model_hash as t\nt.install(); assert t.is_installed()"
    assert report(code, TVM_MODEL_HASH="0") == PATCHED


@pytest.mark.parametrize("imported", ["", "import tvm.relax.frontend.onnx"])
def test_uninstall_gives_stock_tvm_back(imported):
    # Before the import too: TVM's entry points do not bring it back.
    code = f"{imported}\nimport tvm_model_hash as t\nt.uninstall(); assert not t.is_installed()"
    assert report(code) == STOCK


def test_uninstall_leaves_no_trace_in_tvm():
    code = """
import sys, tvm, tvm_model_hash
import tvm.relax.frontend.onnx
def traces():
    packages = [tvm.ir, tvm.runtime, tvm.relax, tvm.relax.frontend.onnx]
    return [list(p.__path__) for p in packages], sys.meta_path[:]
tvm_model_hash.uninstall()
stock = traces()
for _ in range(2):
    tvm_model_hash.install()
    tvm_model_hash.install()
    assert report() == "1" * 6 and traces() != stock
    tvm_model_hash.uninstall()
    assert report() == "0" * 6 and traces() == stock
"""
    assert report(code) == STOCK


def test_the_hook_is_gone_once_it_has_fired():
    run_python(
        "import sys; before = sys.meta_path[0]\nimport tvm.relax.frontend.onnx\n"
        "assert type(before).__name__ == '_Finder' and before not in sys.meta_path\n"
        "import tvm_model_hash; assert tvm_model_hash.is_installed()"
    )


def test_relays_patches_stay_away():
    integrations = [integration for integration, _ in PATCHES.values()]
    code = f"""
import sys, warnings
warnings.simplefilter("error", RuntimeWarning)
import tvm.relax.frontend.onnx, tvm.runtime.vm
assert not set({integrations!r}) & set(sys.modules)
assert not hasattr(tvm, "relay")
"""
    assert run_python(code, check=False).stderr == ""


def test_an_unsupported_tvm_is_left_unchanged_with_one_warning():
    code = """
import warnings, tvm_model_hash.versions
tvm_model_hash.versions.RELAX_TVM_VERSIONS = ("0.98.0", "0.99.0")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import tvm.relax.frontend.onnx
    tvm_model_hash.install()
ours = [str(w.message) for w in caught if "tvm-model-hash" in str(w.message)]
assert len(ours) == 1, ours
assert f"TVM {tvm.__version__} " in ours[0] and "0.19.0 (Relay)" in ours[0], ours
assert "0.98.0, 0.99.0 (Relax)" in ours[0], ours
assert not tvm_model_hash.is_installed()
"""
    assert report(code) == STOCK


def test_a_failed_activation_leaves_tvm_working():
    code = """
from tvm_model_hash.activation import RELAX_PATCHES
RELAX_PATCHES["tvm.relax.vm_build"][1]["nonsense"] = "nonsense"
import tvm.relax.frontend.onnx
"""
    result = run_python(code, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("could not patch tvm.relax.vm_build") == 1


def test_the_start_of_an_interpreter_stays_cheap():
    loaded = set(run_python("import sys; print(*sys.modules)").stdout.split())
    assert {name for name in loaded if "hash" in name} == {
        "tvm_model_hash",
        "tvm_model_hash.activation",
    }
    assert not loaded & {"tvm", "onnx", "numpy", "importlib.metadata", "warnings"}
