# SPDX-License-Identifier: Apache-2.0
"""The hook in the company it meets: interpreters, other importers, threads, and pip."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipapp

import pytest
from conftest import ROOT, run_python
from hook import PATCHED, REPORT, STOCK, TVM, changed_tvm, report

import tvm_model_hash
from tvm_model_hash.activation import PATCHES

SITE = TVM.parent
PACKAGE = pathlib.Path(tvm_model_hash.__file__).parent

# Typeguard and beartype cannot check all of TVM 0.19, which fails then by itself.
CHECKED = ["tvm.relay.backend", "tvm.relay.frontend", "tvm.relay.quantize", "tvm.runtime"]


def python(*arguments, executable=sys.executable, env=(), check=True):
    """Run an interpreter, by default the one of the tests, away from the sources."""
    return subprocess.run(
        [executable, *map(str, arguments)],
        env={**os.environ, **dict(env)},
        cwd=os.sep,
        check=check,
        text=True,
        capture_output=True,
    )


# --- interpreters ---

# TVM itself can't execute tvm.relay.build_module twice, which registers a function.
RELOADABLE = [name for name in PATCHES if name != "tvm.relay.build_module"]


@pytest.mark.parametrize("flags", ["-I", "-E", "-O", "-W error", "-X importtime"])
def test_it_is_active_in_an_interpreter_started_with(flags):
    result = python(*flags.split(), "-c", REPORT + "print(report())")
    assert result.stdout.strip() == PATCHED
    if flags != "-X importtime":
        assert result.stderr == ""


def test_without_docstrings_tvm_fails_by_itself():
    result = python("-OO", "-c", "import tvm", check=False)
    stock = python("-OO", "-c", "import tvm", check=False, env={"TVM_MODEL_HASH": "0"})
    assert result.stderr.splitlines()[-1] == stock.stderr.splitlines()[-1]
    assert "NoneType" in stock.stderr


def test_where_pth_files_are_not_read_it_is_installed_by_hand():
    path = f"import sys; sys.path.append({str(SITE)!r})\n{REPORT}"
    result = python("-S", "-c", f"{path}print(report())")
    assert result.stdout.strip() == STOCK
    install = "import tvm_model_hash as t; assert not t.is_installed(); t.install()\n"
    result = python("-S", "-c", f"{path}{install}print(report(), t.is_installed())")
    assert result.stdout.strip() == f"{PATCHED} True"


def test_it_is_active_in_a_zipapp(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text(f"{REPORT}print(report())")
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    assert python(tmp_path / "app.pyz").stdout.strip() == PATCHED


def test_it_works_from_within_a_zip(tmp_path):
    app = tmp_path / "app"
    shutil.copytree(PACKAGE, app / "tvm_model_hash", ignore=shutil.ignore_patterns("*.so"))
    main = f"import sys; sys.path.append({str(SITE)!r})\nimport tvm_model_hash as t; t.install()"
    where = "print(report(), '.pyz' in t.__file__ and '.pyz' in sys.modules["
    (app / "__main__.py").write_text(
        f"{main}\n{REPORT}{where}'tvm.runtime.relay_vm_hash'].__file__)"
    )
    zipapp.create_archive(app, tmp_path / "app.pyz")
    # Without site, or the package beside TVM would be imported first.
    assert python("-S", tmp_path / "app.pyz").stdout.strip() == f"{PATCHED} True"


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.parametrize("before", ["", "import tvm"])
def test_it_is_active_in_the_processes_of_multiprocessing(method, before, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""{REPORT}{before}
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(pool.apply(report))
"""
    )
    assert python(script).stdout.strip() == PATCHED


def test_twenty_threads_import_at_once():
    # Not modules within TVM: that fails in TVM by itself.
    names = ["tvm", "tvm_model_hash.integration", "json.tool", "onnx", "colorsys"]
    code = f"""
import importlib, sys, threading
names = {names!r}
sys.setswitchinterval(1e-5)
barrier, failed = threading.Barrier(20), []
def run(i):
    barrier.wait()
    for k in range(len(names)):
        try:
            importlib.import_module(names[(i + k) % len(names)])
        except BaseException as error:
            failed.append(repr(error))
threads = [threading.Thread(target=run, args=(i,)) for i in range(20)]
[t.start() for t in threads]
[t.join() for t in threads]
import tvm_model_hash
print(failed, tvm_model_hash.is_installed())
"""
    result = run_python(code + REPORT + "print(report())", check=False)
    assert result.stdout.split("\n")[:2] == ["[] True", PATCHED], result.stderr


# --- a TVM that is not as usual ---


def test_a_tvm_that_fails_to_import_fails_with_its_own_error(tmp_path):
    broken = {
        "driver/__init__.py": ("from .build_module import", "1 / 0\nfrom .build_module import")
    }
    env = changed_tvm(tmp_path, broken)
    code = """
import sys
import tvm_model_hash as t
for _ in range(2):
    try:
        import tvm
    except ZeroDivisionError as error:
        traceback = error.__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        print(traceback.tb_frame.f_globals["__name__"], t.is_installed(), "tvm" in sys.modules)
"""
    result = python("-c", code, env=env)
    assert result.stdout == "tvm.driver True False\n" * 2
    assert result.stderr == ""


def test_without_tvm_its_import_is_what_fails():
    code = "import sys; sys.modules['tvm'] = None\nimport tvm"
    result = python("-c", code, check=False)
    assert "tvm_model_hash" not in result.stderr
    assert "ModuleNotFoundError" in result.stderr


def test_of_two_copies_on_the_path_the_first_is_patched(tmp_path):
    env = changed_tvm(tmp_path, {})
    code = "import tvm.relay.frontend.onnx as m; assert m.__file__.startswith(sys.argv[1])"
    result = run_python(f"{REPORT}{code}\nprint(report())", tmp_path, env=env)
    assert result.stdout.strip() == PATCHED


def test_a_second_pth_file_changes_nothing(tmp_path):
    shutil.copy(SITE / "tvm_model_hash.pth", tmp_path)
    code = "before = sys.meta_path[:]\nimport site; site.addsitedir(sys.argv[1])"
    check = "assert sys.meta_path == before"
    result = run_python(f"{REPORT}{code}\n{check}\nprint(report())", tmp_path)
    assert result.stdout.strip() == PATCHED


# --- other importers ---


def test_an_importer_that_comes_first_is_overtaken():
    code = f"""
import typeguard, tvm_model_hash
typeguard.config.typecheck_fail_callback = lambda error, memo: None
typeguard.install_import_hook({CHECKED})
assert type(sys.meta_path[0]).__name__ == "TypeguardFinder"
import tvm
# Theirs did its work all the same.
assert type(tvm.runtime.vm.__loader__).__name__ == "TypeguardLoader"
assert tvm_model_hash.is_installed()
"""
    assert report(code) == PATCHED


# It takes all of TVM, at the front of the path, by loaders of its own.
IMPORTER = """
import importlib.machinery
class Importer:
    def __init__(self, make=lambda loader: loader):
        self.make = make
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tvm":
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            if spec is not None and spec.origin.endswith(".py"):
                spec.loader = self.make(spec.loader)
            return spec
        return None
"""


def test_an_importer_of_all_of_tvm_is_overtaken():
    # Nothing is imported after TVM, nor is anything of this package asked.
    code = f"{IMPORTER}\nsys.meta_path.insert(0, Importer())\nimport tvm"
    assert report(code) == PATCHED


def test_what_slipped_past_is_patched_at_the_next_import():
    code = f"""{IMPORTER}
import tvm_model_hash
ours = sys.meta_path[0]
sys.meta_path.remove(ours)
import tvm
sys.meta_path.insert(0, ours)
stock = tvm.relay.frontend.from_onnx
assert not hasattr(stock, "__wrapped__")
import colorsys  # whatever was not imported yet
assert tvm.relay.frontend.from_onnx is not stock
assert tvm_model_hash.is_installed()
"""
    assert report(code) == PATCHED


def test_whoever_asks_for_a_hash_has_all_patched():
    code = f"""{IMPORTER}
import tvm_model_hash, onnx.parser
model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 15]> g (float[2] x) => (float[2] y) {{ y = Relu(x) }}')
model_hash = tvm_model_hash.model_hash(model)
ours = sys.meta_path[0]
import tvm.relay.frontend
# So that nothing is left to be imported.
tvm.relay.frontend.from_onnx(onnx.ModelProto.FromString(model.SerializeToString()), get_hash=True)
for name in {RELOADABLE!r}:
    if "frontend" not in name and name in sys.modules:
        # As executed without us.
        sys.meta_path.remove(ours)
        importlib.reload(sys.modules[name])
        sys.meta_path.insert(1, ours)
relay = tvm.relay
assert not hasattr(relay.vm.VMCompiler.lower, "__wrapped__")
tvm_model_hash.activation.require()  # what from_onnx does first
assert hasattr(relay.vm.VMCompiler.lower, "__wrapped__")
mod, _ = relay.frontend.from_onnx(model, get_hash=True)
assert tvm_model_hash.is_installed()
assert relay.vm.compile(mod, "llvm").get_hash() == model_hash
"""
    run_python("import importlib, sys\n" + code)


@pytest.mark.parametrize(
    "loader",
    [
        # Nothing can be set in it.
        "class Loader:\n"
        "    __slots__ = ('one',)\n"
        "    def __init__(self, one): self.one = one\n"
        "    def create_module(self, spec): return self.one.create_module(spec)\n"
        "    def exec_module(self, module): self.one.exec_module(module)\n"
        "make = Loader",
        # One for all modules.
        "class Loader:\n"
        "    loaders = {}\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): self.loaders[module.__name__].exec_module(module)\n"
        "shared = Loader()\n"
        "def make(loader):\n"
        "    shared.loaders[loader.name] = loader\n"
        "    return shared",
    ],
    ids=["slots", "shared"],
)
def test_any_kind_of_loader_is_followed(loader):
    code = f"""{IMPORTER}
{loader}
sys.meta_path.insert(1, Importer(make))
import tvm, tvm_model_hash
assert type(tvm.runtime.vm.__loader__).__name__ == "Loader"
assert type(tvm.runtime.vm.__spec__.loader).__name__ == "Loader"
assert tvm_model_hash.is_installed()
"""
    assert report(code) == PATCHED


def test_a_loader_of_the_old_kind_is_left_to_python():
    code = f"""{IMPORTER}
class Loader:
    def __init__(self, one): self.one = one
    def load_module(self, name): return self.one.load_module(name)
def make(loader):
    return Loader(loader) if loader.name in {[*PATCHES]!r} else loader
sys.meta_path.insert(1, Importer(make))
import warnings
warnings.simplefilter("ignore")
import tvm, tvm_model_hash
assert tvm_model_hash.is_installed()
"""
    if sys.version_info >= (3, 15):
        pytest.skip("Python 3.15 has no such loaders any more")
    assert report(code) == PATCHED


def test_with_pytests_rewriting(tmp_path):
    (tmp_path / "conftest.py").write_text(
        f"import pytest\npytest.register_assert_rewrite(*{[*PATCHES]!r})\n"
    )
    (tmp_path / "test_it.py").write_text(
        f"""{REPORT}
def test_it():
    import tvm.runtime.vm, tvm_model_hash
    assert type(tvm.runtime.vm.__loader__).__name__ == "AssertionRewritingHook"
    assert report() == {PATCHED!r} and tvm_model_hash.is_installed()
"""
    )
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path, check=False)
    assert "1 passed" in result.stdout, result.stdout


def test_with_wrapts_import_hooks():
    code = f"""
import wrapt, tvm_model_hash
seen = []
for name in {[*PATCHES]!r}:
    wrapt.register_post_import_hook(lambda module: seen.append(module.__name__), name)
@wrapt.when_imported("tvm.relay.frontend.onnx")
def wrap(module):
    wrapt.wrap_function_wrapper(module, "from_onnx", lambda f, _, args, kw: f(*args, **kw))
import tvm.driver.tvmc
assert sorted(seen) == {sorted(PATCHES)!r}
theirs = tvm.relay.frontend.onnx.from_onnx
assert isinstance(theirs, wrapt.FunctionWrapper)
assert theirs.__wrapped__.__module__ == "tvm.relay.frontend.onnx"
assert "get_hash" in theirs.__code__.co_varnames
assert tvm_model_hash.is_installed()  # ours is inside
"""
    assert report(code) == PATCHED


def test_with_beartypes_claw():
    code = f"""
import warnings
from beartype import BeartypeConf
from beartype.claw import beartype_packages
beartype_packages({CHECKED}, conf=BeartypeConf(violation_type=UserWarning))
warnings.simplefilter("ignore", UserWarning)
import tvm, tvm_model_hash
assert "eartype" in type(tvm.runtime.vm.__loader__).__name__
assert tvm_model_hash.is_installed()
"""
    assert report(code) == PATCHED


# --- after the import ---


@pytest.mark.parametrize("name", RELOADABLE)
def test_a_module_that_is_reloaded_stays_patched(name):
    code = f"""
import tvm, tvm_model_hash as t
integration, paths = __import__("tvm_model_hash.activation").activation.PATCHES[{name!r}]
module = importlib.import_module({name!r})
for _ in range(2):
    assert importlib.reload(module) is module
    assert t.is_installed()
    for path, replacement in paths.items():
        found = module
        for part in path.split("."):
            found = getattr(found, part)
        if hasattr(found, "__wrapped__"):
            # Around the function of this execution, and not of one before.
            scope, _, attribute = path.rpartition(".")
            wrapped = found.__wrapped__
            assert not hasattr(wrapped, "__wrapped__"), path
            assert wrapped.__code__.co_filename == module.__file__
            t.uninstall()
            now = vars(getattr(module, scope) if scope else module)[attribute]
            assert getattr(now, "__func__", now) is wrapped, path
            t.install()
    assert t.is_installed()
t.uninstall()
assert not t.is_installed()
print(report())
t.install()
"""
    assert report(code).split() == [STOCK, PATCHED]


@pytest.mark.parametrize(
    ("change", "installed"),
    [
        ("", True),
        ("sys.meta_path.clear()", False),
        ("relay.frontend.onnx.from_onnx = lambda model: None", False),
        ("del tvm.runtime.vm.Executable.get_hash", False),
        (
            "ours = relay.frontend.onnx.from_onnx\n"
            "relay.frontend.onnx.from_onnx = functools.wraps(ours)(lambda *a: ours(*a))",
            True,
        ),
    ],
)
def test_is_installed_looks_at_what_is_loaded(change, installed):
    code = f"import functools, sys, tvm\nfrom tvm import relay\n{change}\n"
    look = "import tvm_model_hash.activation as a; print(a.is_installed())"
    assert run_python(code + look).stdout.strip() == str(installed)


def test_before_tvm_it_looks_at_the_path():
    run_python(
        "import sys, tvm_model_hash as t\n"
        "assert t.is_installed(); sys.meta_path.clear(); assert not t.is_installed()\n"
        "t.install(); assert t.is_installed()"
    )


# --- pip ---


@pytest.fixture
def environment(tmp_path):
    """A new environment with the dependencies of both distributions, in links, but neither."""
    python("-m", "venv", tmp_path / "venv")
    scheme = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    target = pathlib.Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    for path in SITE.iterdir():
        if "tvm" not in path.name and not (target / path.name).exists():
            (target / path.name).symlink_to(path)
    return Environment(tmp_path / "venv/bin/python", target)


class Environment:
    def __init__(self, executable, target):
        self.executable, self.target = executable, target

    def python(self, *arguments, **options):
        return python(*arguments, executable=self.executable, **options)

    def install_tvm(self):
        """As pip does, but in links, because nobody has the wheel any more."""
        sources = shutil.ignore_patterns("3rdparty", "include", "src", "__pycache__")
        shutil.copytree(TVM, self.target / "tvm", copy_function=os.symlink, ignore=sources)
        (info,) = SITE.glob("xtc_tvm_python_bindings-*.dist-info")
        shutil.copytree(info, self.target / info.name)

    def pip(self, *arguments):
        self.python("-m", "pip", *arguments)

    def quiet(self):
        """That an interpreter starts without a word."""
        result = self.python("-c", "")
        return result.stdout + result.stderr == ""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel, and the one of a later version."""
    made = {}
    for version in ("0.1.0", "0.1.1"):
        sources = tmp_path_factory.mktemp("sources")
        for name in ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"):
            shutil.copy(ROOT / name, sources)
        for name in ("cmake", "python", "src"):
            shutil.copytree(ROOT / name, sources / name)
        project = (sources / "pyproject.toml").read_text()
        assert project.count('version = "0.1.0"') == 1
        project = project.replace('version = "0.1.0"', f'version = "{version}"')
        # What is tested is not the C++ library.
        project = project.replace(
            "[tool.scikit-build]\n", "[tool.scikit-build]\nwheel.cmake = false\n"
        )
        (sources / "pyproject.toml").write_text(project)
        python("-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "-w", sources / "dist", sources)
        (made[version],) = (sources / "dist").glob("*.whl")
    return made


@pytest.mark.parametrize("ours_first", [True, False])
def test_installed_upgraded_and_uninstalled_in_either_order(environment, wheels, ours_first):
    install = [lambda: environment.pip("install", "--no-deps", wheels["0.1.0"])]
    install.insert(ours_first, environment.install_tvm)
    for step in install:
        step()
        assert environment.quiet()

    def state():
        code = "import importlib.metadata as m; print(report(), m.version('tvm-model-hash'))"
        return environment.python("-c", REPORT + code).stdout.split()

    assert state() == [PATCHED, "0.1.0"]
    environment.pip("install", "--no-deps", wheels["0.1.1"])
    assert environment.quiet()
    assert state() == [PATCHED, "0.1.1"]
    environment.pip("uninstall", "-y", "xtc-tvm-python-bindings")
    environment.install_tvm()  # another version, say
    assert state() == [PATCHED, "0.1.1"]

    uninstall = ["tvm-model-hash", "xtc-tvm-python-bindings"]
    for name in uninstall if ours_first else reversed(uninstall):
        environment.pip("uninstall", "-y", name)
        assert environment.quiet()
        if ours_first and name == "tvm-model-hash":
            result = environment.python("-c", REPORT + "print(report())")
            assert (result.stdout.strip(), result.stderr) == (STOCK, "")
        elif name != "tvm-model-hash" and not ours_first:
            result = environment.python("-c", "import tvm", check=False)
            assert result.stderr.endswith("ModuleNotFoundError: No module named 'tvm'\n")
            assert "tvm_model_hash" not in result.stderr
    # Neither has left anything of the other, nor of itself.
    assert not [path.name for path in environment.target.iterdir() if "tvm" in path.name]


def test_a_pth_file_without_its_package_says_nothing(environment):
    shutil.copy(SITE / "tvm_model_hash.pth", environment.target)
    assert environment.quiet()
    # What is left of a package is no package.
    (environment.target / "tvm_model_hash/tvm/relay").mkdir(parents=True)
    assert environment.quiet()
