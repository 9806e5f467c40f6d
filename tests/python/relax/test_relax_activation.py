# SPDX-License-Identifier: Apache-2.0
"""The hook beside a TVM with Relax: through .pth, through TVM's entry points, and off."""

import importlib.metadata
import subprocess
import sys

import pytest
import tvm
from conftest import run_python
from hook import changed_tvm

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
import sys, tvm_model_hash
assert tvm_model_hash.is_installed()
sys.meta_path.pop(0)
assert not tvm_model_hash.is_installed()
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


def test_modules_have_the_loader_that_was_found():
    run_python(
        "import sys, tvm.relax.frontend.onnx\n"
        f"for name in {[*RELAX_PATCHES]!r}:\n"
        "    module = sys.modules[name]\n"
        "    assert type(module.__loader__).__name__ == 'SourceFileLoader'\n"
        "    assert module.__spec__.loader is module.__loader__"
    )


# TVM's other modules register classes, which TVM allows once only.
@pytest.mark.parametrize("name", ["tvm.relax.vm_build", "tvm.relax.frontend.onnx.onnx_frontend"])
def test_a_module_that_is_reloaded_stays_patched(name):
    code = f"""
import importlib, sys, tvm_model_hash as t
import tvm.relax.frontend.onnx
importlib.reload(sys.modules[{name!r}])
assert t.is_installed()
print(report())
t.uninstall()
assert not t.is_installed()
"""
    assert report(code).split() == [PATCHED, STOCK]


@pytest.mark.skipif(
    tvm.__version__.startswith("0.25."), reason="it does not import without docstrings"
)
def test_it_is_active_without_docstrings():
    command = [sys.executable, "-OO", "-c", f"{REPORT}\nprint(report())"]
    assert subprocess.run(command, check=True, stdout=-1, text=True).stdout.strip() == PATCHED


def test_relays_patches_stay_away():
    # What both engines have is patched in both by the same.
    shared = {integration for integration, _ in RELAX_PATCHES.values()}
    integrations = [name for name, _ in PATCHES.values() if name not in shared]
    code = f"""
import sys, warnings
warnings.simplefilter("error", RuntimeWarning)
import tvm.relax.frontend.onnx, tvm.runtime.vm
assert not set({integrations!r}) & set(sys.modules)
assert not hasattr(tvm, "relay")
"""
    assert run_python(code, check=False).stderr == ""


# Imports with a hash twice, and says whether all is installed, and what is said then.
USE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import onnx.parser, tvm, tvm_model_hash
    from tvm.relax.frontend.onnx import from_onnx
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 15]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    from_onnx(model)
    def warned():
        return [str(w.message) for w in caught if "tvm-model-hash" in str(w.message)]
    assert warned() == [], warned()
    print(tvm_model_hash.is_installed())
    for _ in range(2):
        try:
            print(from_onnx(model, get_hash=True).attrs["model_hash"])
        except tvm_model_hash.UnsupportedTVMError as error:
            print(error)
print(*warned(), sep="\\n")
"""


def use(**env):
    installed, first, second, *warned = run_python(USE, env=env).stdout.strip().split("\n")
    assert first == second
    return installed == "True", first, warned


def with_version(directory, version):
    """A copy of TVM of another version."""
    line = f"__version__ = version = '{tvm.__version__}'"
    return changed_tvm(directory, {"_version.py": (line, f"__version__ = version = '{version}'")})


def test_a_tested_version_is_used_without_a_word():
    installed, said, warned = use()
    assert (installed, len(said), warned) == (True, 64, [])


def test_an_untested_version_works_and_says_so_once_and_late(tmp_path):
    installed, said, (warning,) = use(**with_version(tmp_path, "0.28.dev0+g0123abc"))
    assert (installed, len(said)) == (True, 64)
    assert "not tested with TVM 0.28.dev0+g0123abc" in warning
    assert f"{tvm.__version__}" in warning


@pytest.mark.parametrize(
    ("file", "old", "new", "missing"),
    [
        (
            "relax/vm_build.py",
            "\n\ndef build(\n",
            "\n\ndef build(module, target):\n    return build_(module, target)\n\n\ndef build_(\n",
            "tvm.relax.vm_build.build has the parameters (module, target), expected (mod) to be",
        ),
        (
            "relax/frontend/onnx/onnx_frontend.py",
            "\n\ndef from_onnx(\n",
            "\n\ndef from_onnx(proto):\n    return import_onnx(proto)\n\n\ndef import_onnx(\n",
            "tvm.relax.frontend.onnx.onnx_frontend.from_onnx has the parameters (proto)",
        ),
    ],
)
def test_what_is_missing_in_tvm_is_named_when_a_hash_is_asked_for(
    file, old, new, missing, tmp_path
):
    installed, said, warned = use(**changed_tvm(tmp_path, {file: (old, new)}))
    assert (installed, warned) == (False, [])
    assert f"does not work with this TVM {tvm.__version__}: " in said
    assert missing in said


def test_a_c_function_that_is_missing_is_named():
    # As if tvm_ffi were one that has not got it: the name asked for is one that none has.
    code = """
import tvm_model_hash.activation as activation
activation._RELAX_C_FUNCTIONS = (*activation._RELAX_C_FUNCTIONS, "TVMFFINonsense")
"""
    assert "library of tvm_ffi has no function TVMFFINonsense" in run_python(code + USE).stdout


def test_an_integration_that_does_not_fit_leaves_tvm_working():
    code = """
from tvm_model_hash.activation import RELAX_PATCHES
RELAX_PATCHES["tvm.relax.vm_build"][1]["nonsense"] = "nonsense"
"""
    result = run_python(code + USE, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("False\n")
    assert "tvm.relax.vm_build: AttributeError: " in result.stdout


def test_the_start_of_an_interpreter_stays_cheap():
    loaded = set(run_python("import sys; print(*sys.modules)").stdout.split())
    assert {name for name in loaded if "hash" in name} == {
        "tvm_model_hash",
        "tvm_model_hash.activation",
    }
    assert not loaded & {"tvm", "onnx", "numpy", "importlib.metadata", "warnings"}
