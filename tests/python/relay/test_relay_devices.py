# SPDX-License-Identifier: Apache-2.0
"""Devices behind RPC, with nothing but stock TVM, on servers and a tracker of our own."""

import json
import subprocess
import sys
import time

import jsonschema
import numpy as np
import onnx
import pytest
import tvm
from conftest import ROOT, layer, run_command, servers
from tvm import relay, rpc
from tvm.runtime import vm_hash


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two models, what was compiled of the first, and the first without a hash."""
    directory = tmp_path_factory.mktemp("devices")
    onnx.save(layer(), directory / "model.onnx")
    onnx.save(layer(2), directory / "other.onnx")
    mod, params = relay.frontend.from_onnx(layer(), get_hash=True)
    exe = relay.vm.compile(mod, "llvm", params=params)
    exe.mod.export_library(str(directory / "single.so"))
    vm_hash.save(exe, directory / "deployment", byte_limit=256, seal=False)
    mod, params = relay.frontend.from_onnx(layer())
    relay.vm.compile(mod, "llvm", params=params).mod.export_library(str(directory / "stock.so"))
    return directory


@pytest.fixture(scope="module")
def start():
    with servers() as start:
        yield start


@pytest.fixture(scope="module")
def server(start):
    return f"127.0.0.1:{start('server')}"


@pytest.fixture(scope="module")
def started_fleet(start):
    tracker = start("tracker")
    ports = [start("server", key, tracker) for key in ("board", "board", "board", "else")]
    return tracker, sorted(f"127.0.0.1:{port}" for port in ports[:3])


@pytest.fixture
def fleet(started_fleet):
    """A tracker with three devices of a key, and one of another."""
    wait_for_free(started_fleet[0], 3)
    return started_fleet


def wait_for_free(tracker, count):
    session = rpc.connect_tracker("127.0.0.1", tracker)
    deadline = time.monotonic() + 60
    while session.summary()["queue_info"].get("board", {}).get("free") != count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    session.close()


def check(directory, *arguments):
    return run_command("check", *arguments, cwd=directory)


@pytest.mark.parametrize(
    ("model", "remote", "expected"),
    [
        ("model.onnx", ["single.so"], (0, "match: same model")),
        ("other.onnx", ["single.so"], (1, "mismatch: same graph, other weights")),
        ("model.onnx", ["stock.so"], (3, "no record: the artifact carries no record of its model")),
        (
            "model.onnx",
            ["deployment/code.ro"],
            (3, "no record: 'code.ro' is of this model, but needs the kernels of a library and "),
        ),
        (
            "model.onnx",
            ["deployment/code.ro", "deployment/lib.so", "deployment/consts"],
            (0, "match: same model"),
        ),
    ],
)
def test_one_server_is_asked(model, remote, expected, server, directory):
    status, line = expected
    paths = [directory / path for path in remote]
    result = check(directory, model, "--rpc", server, "--remote", *paths)
    assert result.stdout.startswith(line), result.stderr
    assert result.returncode == status
    assert str(directory) not in result.stdout
    assert "/tmp" not in result.stdout


def test_what_is_required_is_compared_with_files_of_a_server(server, directory):
    arguments = ["model.onnx", "--rpc", server, "--remote", directory / "single.so"]
    assert check(directory, *arguments, "--require", "target=llvm").returncode == 0
    result = check(directory, *arguments, "--require", "target=c")
    assert result.returncode == 1
    assert "the artifact has target=llvm:" in result.stdout


def test_a_server_with_a_key_takes_it(start, directory):
    address = f"127.0.0.1:{start('server', 'mine')}"
    arguments = ["model.onnx", "--rpc", address, "--remote", directory / "single.so"]
    assert check(directory, *arguments, "--key", "mine").returncode == 0
    result = check(directory, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"no RPC server with this key answers at {address}: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rpc", "{server}", "--remote", "/missing"], "{server} does not send '/missing': "),
        (["--rpc", "{server}", "--remote", "{directory}"], "{server} does not send "),
        (["--rpc", "{server}", "--remote", "{directory}/model.onnx"], "'model.onnx' is "),
        (["--rpc", "{server}", "--remote", "/a/x", "/b/x"], "two of '/a/x', '/b/x' have one name"),
        (["--rpc", "127.0.0.1:1", "--remote", "x"], "no RPC server with this key answers at 127"),
        (["--tracker", "127.0.0.1:1", "--key", "k", "--remote", "x"], "no RPC tracker answers at"),
        (["--tracker", "{server}", "--key", "k", "--remote", "x"], "no RPC tracker answers at"),
        (["--rpc", "nowhere", "--remote", "x"], "'nowhere' is not HOST:PORT"),
        (["--rpc", "host:65536", "--remote", "x"], "'host:65536' is not HOST:PORT"),
        (["--rpc", "{server}"], "--remote goes with --rpc and --tracker"),
        (["single.so", "--remote", "x"], "--remote goes with --rpc and --tracker"),
        (["--tracker", "{server}", "--remote", "x"], "--tracker takes --key"),
        (["single.so", "--rpc", "{server}"], "expected one of ARTIFACT, --rpc and --tracker"),
        ([], "expected one of ARTIFACT, --rpc and --tracker"),
    ],
)
def test_what_cannot_be_asked_is_an_error(arguments, message, server, directory):
    names = {"server": server, "directory": directory}
    arguments = [argument.format(**names) for argument in arguments]
    result = check(directory, "model.onnx", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message.format(**names) in result.stderr
    assert "Traceback" not in result.stderr


def test_after_an_error_the_server_is_free(server):
    # In one process: when it ends, its sessions do.
    code = (
        "import sys\nfrom tvm_model_hash import DeviceError\n"
        "from tvm_model_hash.tvm.rpc.device_hash import check_server\nerrors = []\n"
        "for _ in range(2):\n    try:\n"
        "        check_server('0' * 64, ('127.0.0.1', int(sys.argv[1])), ['/no'])\n"
        "    except DeviceError as error:\n        errors.append(error)\n"
        "print(*errors, sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, server.partition(":")[2]],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    assert result.stdout == f"{server} does not send '/no': Cannot open /no\n" * 2


def test_a_server_that_is_busy_is_an_error_and_not_waited_for(start, directory):
    port = start("server")
    held = rpc.connect("127.0.0.1", port)
    arguments = ["model.onnx", "--rpc", f"127.0.0.1:{port}", "--remote", directory / "single.so"]
    result = check(directory, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "may be busy with another session" in result.stderr
    held.get_function("CloseRPCConnection")()
    assert check(directory, *arguments).returncode == 0


def test_every_free_device_of_a_key_is_asked(fleet, directory):
    tracker, devices = fleet
    arguments = ["--tracker", f"127.0.0.1:{tracker}", "--key", "board", "--remote"]
    arguments.append(directory / "single.so")
    for _ in range(2):  # they are free again
        result = check(directory, "model.onnx", *arguments)
        expected = [f"match        {name}: same model; not sealed" for name in devices]
        expected.append("3 devices: 3 match")
        lines = result.stdout.splitlines()
        assert (lines, result.stderr, result.returncode) == (expected, "", 0)
    result = check(directory, "other.onnx", *arguments)
    assert result.stdout.count(": same graph, other weights\n") == 3
    assert result.stdout.endswith("3 devices: 3 mismatch\n")
    assert result.returncode == 1


def test_a_busy_device_is_named_and_not_waited_for(fleet, directory):
    tracker, devices = fleet
    user = rpc.connect_tracker("127.0.0.1", tracker)
    held = user.request("board")
    wait_for_free(tracker, 2)
    arguments = ["--tracker", f"127.0.0.1:{tracker}", "--key", "board", "--remote"]
    arguments.append(directory / "single.so")
    result = check(directory, "model.onnx", "--json", *arguments)
    assert result.returncode == 3
    found = json.loads(result.stdout)
    schema = json.loads((ROOT / "docs/output.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    found = found["results"]
    assert [device["path"] for device in found] == devices
    assert sorted((device["status"], device["reason"]) for device in found) == [
        *([("match", "same model")] * 2),
        ("not_checked", "somebody else has it"),
    ]
    # What is of another model is worse.
    assert check(directory, "other.onnx", *arguments).returncode == 1
    np.testing.assert_array_equal(tvm.nd.array([1], held.cpu()).numpy(), [1])
    held.get_function("CloseRPCConnection")()


def test_a_device_without_the_file_is_told_of_in_the_table(fleet, directory):
    tracker, devices = fleet
    result = check(
        *(directory, "model.onnx", "--tracker", f"127.0.0.1:{tracker}"),
        *("--key", "board", "--remote", "/missing"),
    )
    *lines, summary = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["error", f"{name}:"] for name in devices]
    assert all("does not send '/missing'" in line for line in lines)
    assert summary == "3 devices: 3 error"
    assert (result.returncode, result.stderr) == (2, "")


def test_a_key_without_devices_is_an_error(fleet, directory):
    result = check(
        *(directory, "model.onnx", "--tracker", f"127.0.0.1:{fleet[0]}"),
        *("--key", "none", "--remote", directory / "single.so"),
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "knows no device of the key 'none'" in result.stderr


def test_without_tvm_it_is_said_what_is_missing(directory):
    code = (
        "import sys; sys.modules['tvm'] = None\n"
        "from tvm_model_hash.cli import main\n"
        "sys.exit(main(['check', sys.argv[1], '--rpc', 'x:1', '--remote', 'y']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, directory / "model.onnx"],
        check=False,
        text=True,
        capture_output=True,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "by way of TVM's RPC, which this Python can't import" in result.stderr
    assert "Traceback" not in result.stderr
