# SPDX-License-Identifier: Apache-2.0
"""Measure what hashing costs: each row is two things measured in turn, in one run.

What a machine does beside it makes a thing slower and never faster, so the result is of the fastest
of each; that of the medians stands beside it.

usage: python benchmarks/run.py [RESULTS.json]
"""

import gc
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import warnings

import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper
from tvm import relay
from tvm.ir.module_hash import set_record
from tvm.runtime.vm import Executable, VirtualMachine

import tvm_model_hash
from tvm_model_hash import Record, Status, check, model_hash, model_record

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "python"))
from servers import serving

ROUNDS = 5
MEGA, MIB = 10**6, 1 << 20
SCRIPT = os.path.join(os.path.dirname(sys.executable), "tvm-model-hash")
ROOT = pathlib.Path(sysconfig.get_path("purelib"))
NETWORKS = {
    "magika": (ROOT / "magika/models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}),
    "silero_vad": (
        ROOT / "silero_vad/data/silero_vad_16k_sequence.onnx",
        {"input": (4, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
    ),
    "squeezenet": (
        ROOT / "onnx/backend/test/data/light/light_squeezenet.onnx",
        {"data_0": (1, 3, 224, 224)},
    ),
}

rows = []


def main():
    warnings.simplefilter("ignore")
    started = time.time()
    print(f"{'':58} {'ours':>9} {'other':>9} {'result':>9} {'median':>8}  goal")
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        in_memory(directory)
        for measure in (
            first_digest,
            inline,
            external,
            large_structures,
            imports,
            executables,
            inference,
            start_up,
        ):
            measure(directory / measure.__name__)
    results = {"environment": environment(), "seconds": time.time() - started, "rows": rows}
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/benchmarks.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{results['seconds']:.0f} s; {path}")


def in_turn(ours, other, rounds):
    """The seconds that two functions take, called in turn, each first every other time."""
    times = [], []
    for number in range(rounds):
        pairs = list(zip((ours, other), times, strict=True))
        for function, found in pairs[:: -1 if number % 2 else 1]:
            gc.collect()
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return times


def ratio(name, goal, ours, other, rounds=ROUNDS):
    times = in_turn(ours, other, rounds)
    (a, b), (c, d) = (map(choose, times) for choose in (min, statistics.median))
    add(name, f"{a:.3f} s", f"{b:.3f} s", a / b, goal, "", c / d, times)


def difference(name, goal, unit, ours, other, rounds):  # noqa: PLR0917
    times = in_turn(ours, other, rounds)
    scale = 1000 if unit == "ms" else 1
    a, b = (min(found) * scale for found in times)
    medians = [statistics.median(found) * scale for found in times]
    add(
        name,
        f"{a:.3g} {unit}",
        f"{b:.3g} {unit}",
        a - b,
        goal,
        f" {unit}",
        medians[0] - medians[1],
        times,
    )


def add(name, ours, other, result, goal, unit, median=None, samples=()):  # noqa: PLR0917
    rows.append(
        {
            "row": name,
            "ours": ours,
            "other": other,
            "result": result,
            "unit": unit.strip(),
            "median": median,
            "goal": goal,
            "met": result <= goal,
            "samples": samples,
        }
    )
    missed = "" if result <= goal else "  missed"
    shown = "" if median is None else f"{median:.3f}"
    result = f"{result:.3f}" if isinstance(result, float) else result
    print(
        f"{name:58} {ours:>9} {other:>9} {result:>8}{unit} {shown:>8}  <= {goal}{missed}",
        flush=True,
    )


def memory(name, goal, function, *arguments, before):
    """The peak of this process against what it had before."""
    peak = peak_of(lambda: function(*arguments))
    add(name, f"{peak} MiB", f"{before} MiB", peak - before, goal, " MiB")


def rss():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def openssl(path):
    run("openssl", "dgst", "-sha256", path)


def one_gigabyte(external=False, count=40, size=25 * MEGA):
    """A model of tensors that are used in the order in which they stand in it."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Sum", [f"w{number}" for number in range(count)], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], [output]))
    for number in range(count):
        tensor = model.graph.initializer.add(name=f"w{number}", data_type=TensorProto.FLOAT)
        tensor.dims.append(size // 4)
        if external:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "data"), ("offset", number * size), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
        else:
            tensor.raw_data = np.random.default_rng(number).bytes(size)
    return model


def in_memory(directory):
    model_record(onnx.load(NETWORKS["magika"][0]))  # what is imported once
    model = one_gigabyte()
    before = rss()  # before it is saved, which leaves free memory behind
    memory("model hash, 1 GB in memory: peak", 64, model_hash, model, before=before)
    memory("all three digests: peak", 64, model_record, model, before=before)
    folder = directory / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(model, path)
    ratio(
        "model hash, 1 GB in memory / openssl",
        1.10,
        lambda: model_hash(model),
        lambda: openssl(path),
    )
    ratio(
        "all three digests, 1 GB / openssl",
        1.25,
        lambda: model_record(model),
        lambda: openssl(path),
    )
    ratio(
        "model hash, 1 GB in memory / sha256(SerializeToString())",
        1.0,
        lambda: model_hash(model),
        lambda: hashlib.sha256(model.SerializeToString()).hexdigest(),
    )
    model = None  # free its memory

    from model_signing import hashing

    from tvm_model_hash.files import file_sha256

    ratio(
        "digest of a model's directory, 1 GB / model-signing",
        1.0,
        lambda: [file_sha256(str(file)) for file in folder.iterdir()],
        lambda: hashing.hash(folder),
    )
    shutil.rmtree(folder)


def model_alone(path):
    """The digest ``model`` of a file, without the other two."""
    from tvm_model_hash.model.contents import open_model
    from tvm_model_hash.model.hashing import hash_stream
    from tvm_model_hash.model.protobuf_bytes import serialized
    from tvm_model_hash.progress import hashing

    with hashing(0, "") as progress:
        return hash_stream(serialized(*open_model(path)), False, progress)


IMPORTS = """
import tvm_model_hash.model.canonical, tvm_model_hash.model.hashing, concurrent.futures.thread, time
time.sleep(0.1)
"""


def first_digest(directory):
    path = NETWORKS["magika"][0]
    load = f"import onnx; model = onnx.load({str(path)!r})"
    difference(
        "first digest of a process, magika - import onnx and load",
        0.15,
        "s",
        lambda: run(
            sys.executable,
            "-c",
            f"{load}; import tvm_model_hash; tvm_model_hash.model_record(model)",
        ),
        lambda: run(sys.executable, "-c", load),
        11,
    )


def inline(directory):
    directory.mkdir()
    path = directory / "model.onnx"
    data = np.random.default_rng(0).bytes(25 * MEGA)
    for gigabytes in (1, 3):
        write_inline(path, 40 * gigabytes, data)
        what = f"{gigabytes} GB inline, by path"
        assert model_record(path).model == model_alone(path)
        ratio(
            f"model alone, {what} / openssl",
            1.15,
            lambda: model_alone(path),
            lambda: openssl(path),
            ROUNDS + 2,
        )
        ratio(
            f"all three digests, {what} / openssl",
            1.25,
            lambda: model_record(path),
            lambda: openssl(path),
            ROUNDS + 2,
        )
        imported = peak_of_process(sys.executable, "-c", IMPORTS)
        peak = peak_of_process(SCRIPT, "digest", path)
        add(
            f"digest, {what}: peak above the imports",
            f"{peak} MiB",
            f"{imported} MiB",
            peak - imported,
            64,
            " MiB",
        )
    shutil.rmtree(directory)


def write_inline(path, count, data):
    """Write a model of so many tensors of this data, and never hold it."""
    model = one_gigabyte(external=True, count=count, size=len(data))
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    starts = []
    for tensor in tensors:
        tensor.ClearField("data_location")
        del tensor.external_data[:]
        message = tensor.SerializeToString() + tag(9) + varint(len(data))
        starts.append(tag(5) + varint(len(message) + len(data)) + message)
    graph = model.graph.SerializeToString()
    size = len(graph) + sum(map(len, starts)) + count * len(data)
    model.ClearField("graph")
    with open(path, "wb") as file:
        file.write(model.SerializeToString() + tag(7) + varint(size) + graph)
        for start in starts:
            file.write(start)
            file.write(data)


def tag(number):
    return varint(number << 3 | 2)


def varint(value):
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value >> 7 else bytes([value])


def external(directory):
    size = 8 * 1000 * MEGA
    free = shutil.disk_usage(directory.parent).free
    if free < size + 1000 * MEGA:
        print(f"digest, 8 GB of external data: skipped, the disk has {free // MEGA:,} MB free")
        return
    directory.mkdir()
    onnx.save(one_gigabyte(external=True, count=40, size=size // 40), directory / "m.onnx")
    with open(directory / "data", "wb") as file:
        file.truncate(size)
    peaks = []

    def digest():
        peaks.append(peak_of_process(SCRIPT, "digest", directory / "m.onnx"))

    ratio(
        "digest, 8 GB of external data / openssl", 1.15, digest, lambda: openssl(directory / "data")
    )
    imported = peak_of_process(sys.executable, "-c", IMPORTS)
    peak = max(peaks)
    add("digest, 8 GB: peak", f"{peak} MiB", "", peak, 128, " MiB")
    add(
        "digest, 8 GB: peak above the imports",
        f"{peak} MiB",
        f"{imported} MiB",
        peak - imported,
        128,
        " MiB",
    )
    shutil.rmtree(directory)


def small_files(directory):
    """A model with 10,000 tensors of 1 KB, each in a file of its own."""
    tensors = [TensorProto(name=f"w{n}", data_type=1, dims=[256]) for n in range(10000)]
    for number, tensor in enumerate(tensors):
        tensor.raw_data = number.to_bytes(4, "little") * 256
    model = of_nodes([helper.make_node("Sum", [t.name for t in tensors], ["y"])], tensors)
    onnx.save(
        model,
        directory / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )


def chain(directory):
    names = ["x", *(f"v{number}" for number in range(199999)), "y"]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in itertools.pairwise(names)]
    onnx.save(of_nodes(nodes), directory / "m.onnx")


def many_initializers(directory):
    tensors = [
        TensorProto(name=f"w{number}", data_type=1, float_data=[number]) for number in range(MEGA)
    ]
    node = helper.make_node("Sum", [tensor.name for tensor in tensors], ["y"])
    onnx.save(of_nodes([node], tensors), directory / "m.onnx")


def many_outputs(directory):
    names = [f"v{number}" for number in range(MEGA)]
    nodes = [helper.make_node("Op", ["x"], names), helper.make_node("Sum", names, ["y"])]
    onnx.save(of_nodes(nodes), directory / "m.onnx")


def captured(directory):
    names = [f"v{number}" for number in range(100000)]
    graph = of_nodes([helper.make_node("Sum", names, ["y"])], inputs=()).graph
    for level in range(29):
        graph.output[0].name = graph.node[0].output[0] = f"y{level}"
        graph = of_nodes([helper.make_node("Op", [], ["y"], body=graph)], inputs=()).graph
    graph.output[0].name = graph.node[0].output[0] = "y29"
    nodes = [helper.make_node("Op", ["x"], names), helper.make_node("Op", [], ["y"], body=graph)]
    onnx.save(of_nodes(nodes), directory / "m.onnx")


def of_nodes(nodes, tensors=(), inputs=("x",)):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in (*inputs, "y")]
    graph = helper.make_graph(nodes, "g", infos[:-1], infos[-1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def large_structures(directory):
    """Whole processes, against one that only loads the model."""
    directory.mkdir()
    path = directory / "m.onnx"
    load = [sys.executable, "-c", f"import onnx; onnx.load({str(path)!r})"]
    for name, write, seconds, mib in (
        ("10,000 external tensors of 1 KB", small_files, 5, None),
        ("200,000 nodes in a chain", chain, 5, 250),
        ("10^6 initializers of one float", many_initializers, 20, 1000),
        ("10^6 outputs of one node", many_outputs, 20, None),
        ("10^5 captured values through 30 levels", captured, 20, None),
    ):
        write(directory)
        gc.collect()
        peaks = []

        def digest(peaks=peaks):
            peaks.append(peak_of_process(SCRIPT, "digest", path))

        times = in_turn(digest, lambda: run(*load), 3)
        a, b = map(min, times)
        add(
            f"digest, {name} (other: onnx.load)",
            f"{a:.3g} s",
            f"{b:.3g} s",
            a,
            seconds,
            " s",
            statistics.median(times[0]),
            times,
        )
        if mib is not None:
            peak = min(peaks)
            add(f"digest, {name}: peak", f"{peak} MiB", "", peak, mib * MEGA // MIB, " MiB")
    shutil.rmtree(directory)


def imports(directory):
    for name, (path, shape) in NETWORKS.items():

        def convert(get_hash, path=path, shape=shape):
            relay.frontend.from_onnx(onnx.load(path), dict(shape), get_hash=get_hash)

        convert(True)
        ratio(
            f"from_onnx, {name}: with / without hash",
            1.02,
            lambda: convert(True),
            lambda: convert(False),
        )


def executable(size, with_hash, count=8):
    """An executable with constants of so many bytes."""
    index = relay.var("x", shape=(1,), dtype="int32")
    rng = np.random.default_rng(0)
    takes = [
        relay.take(relay.const(rng.random(size // count // 4, np.float32)), index)
        for _ in range(count)
    ]
    mod = tvm.IRModule.from_expr(relay.Function([index], relay.Tuple(takes)))
    if with_hash:
        mod = set_record(mod, Record("0" * 64))
    return relay.vm.compile(mod, "llvm")


def executables(directory):
    directory.mkdir()
    ours, stock = executable(512 * MEGA, True), executable(512 * MEGA, False)
    assert ours.get_hash() is not None
    saved = []

    def save(exe):
        saved[:] = exe.save()

    ratio(
        "save, 512 MB of constants: with / without hash",
        1.01,
        lambda: save(ours),
        lambda: save(stock),
        11,
    )
    codes = []
    for number, exe in enumerate((ours, stock)):
        code, lib = exe.save()
        lib.export_library(directory / f"{number}.so")
        codes.append((code, tvm.runtime.load_module(directory / f"{number}.so")))
    code = exe = None
    ratio(
        "load_exec, 512 MB of constants: with / without hash",
        1.01,
        lambda: Executable.load_exec(*codes[0]),
        lambda: Executable.load_exec(*codes[1]),
        11,
    )
    saved.clear()
    peaks = []
    for exe in (stock, ours):
        before = rss()
        peaks.append(peak_of(lambda exe=exe: exe.save()) - before)
    add(
        "save, 512 MB: peak with - without hash",
        f"{peaks[1]} MiB",
        f"{peaks[0]} MiB",
        peaks[1] - peaks[0],
        16,
        " MiB",
    )
    codes = ours = stock = exe = None  # free their memory
    small = executable(16 * MEGA, True), executable(16 * MEGA, False)
    ratio(
        "export_library, 16 MB of constants: with / without hash",
        1.01,
        lambda: small[0].mod.export_library(directory / "ours.so"),
        lambda: small[1].mod.export_library(directory / "stock.so"),
    )

    deployment = directory / "deployment"
    deployment.mkdir()
    exe = executable(1000 * MEGA, True)
    exe.mod.export_library(directory / "large.so")
    behind_a_url(directory / "large.so")
    code, lib = exe.save()
    exe = None
    (deployment / "code.ro").write_bytes(code)
    lib.export_library(deployment / "lib.so")
    code = lib = None
    nothing = [sys.executable, "-c", "pass"]
    for command in (["show"], ["check", "0" * 64]):
        difference(
            f"{command[0]}, deployment of 1 GB - python -c pass",
            0.1,
            "s",
            lambda command=command: run(SCRIPT, *command, deployment),
            lambda: run(*nothing),
            11,
        )


def behind_a_url(library):
    """What is transferred to check a library at a web server, and how long that takes."""
    with serving(library.parent) as server:
        url = server.of(library.name)
        assert check("0" * 64, url).status == Status.MATCH
        requests, sent = len(server.requests), server.sent
        add(
            "check, library of 1 GB at a web server: transferred",
            f"{sent / MEGA:.3f} MB",
            f"{library.stat().st_size / MEGA:.0f} MB",
            sent / MEGA,
            1,
            " MB",
        )
        add(
            "check, library of 1 GB at a web server: requests",
            str(requests),
            "",
            requests,
            20,
            "",
        )
        difference(
            "check, library of 1 GB, at a web server on loopback - here",
            0.1,
            "s",
            lambda: check("0" * 64, url),
            lambda: check("0" * 64, library),
            11,
        )


def peak_of(function):
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], rss())

    thread = threading.Thread(target=watch)
    thread.start()
    function()
    done.set()
    thread.join()
    return peak[0]


def peak_of_process(*command):
    """Run a command and sample its peak: what wait4 tells begins with that of this process."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        if "VmHWM" in status and "python" in os.path.realpath(f"/proc/{process.pid}/exe"):
            peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
        time.sleep(0.01)
    assert not process.returncode
    return peak


def inference(directory):
    path, shape = NETWORKS["magika"]
    data = tvm.nd.array(np.random.default_rng(0).integers(0, 256, (1, 2048)).astype("int32"))
    machines = []
    for get_hash in (True, False):
        mod, params = relay.frontend.from_onnx(onnx.load(path), dict(shape), get_hash=get_hash)
        machine = VirtualMachine(relay.vm.compile(mod, "llvm", params=params), tvm.cpu())
        machine.set_input("main", data)
        machine.invoke_stateful("main")
        machines.append(machine)
    ratio(
        "inference, magika: with / without hash",
        1.01,
        lambda: machines[0].invoke_stateful("main"),
        lambda: machines[1].invoke_stateful("main"),
        51,
    )


def start_up(directory):
    interpreters = []
    package = pathlib.Path(tvm_model_hash.__file__).parent
    for name in ("with", "without"):
        run(sys.executable, "-m", "venv", "--without-pip", directory / name)
        (site,) = (directory / name).glob("lib/python*/site-packages")
        if name == "with":
            shutil.copytree(package, site / package.name)
            shutil.copy(package.parent / "tvm_model_hash.pth", site)
        interpreters.append(directory / name / "bin/python")
        run(interpreters[-1], "-c", "pass")
    difference(
        "start-up of Python: with - without the hook",
        1,
        "ms",
        lambda: run(interpreters[0], "-c", "pass"),
        lambda: run(interpreters[1], "-c", "pass"),
        101,
    )


def environment():
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    names = ["tvm-model-hash", "onnx", "protobuf", "numpy", "model-signing"]
    return {
        "versions": {name: importlib.metadata.version(name) for name in names}
        | {"tvm": tvm.__version__, "python": platform.python_version()},
        "openssl": subprocess.check_output(["openssl", "version"], text=True).strip(),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform()},
        "load": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
