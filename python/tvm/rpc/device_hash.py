# SPDX-License-Identifier: Apache-2.0
"""Which model the files on devices behind RPC are of.

A device needs nothing but a stock RPC server: it sends the files, and they are checked here. No
code of theirs is loaded, neither there nor here.
"""

import contextlib
import os
import re
import socket
import struct
import tempfile
import threading
from dataclasses import dataclass, replace

# By TVM's own name, because the command line imports this file without the hook.
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvall, recvjson, sendjson
from tvm.rpc.client import connect

from tvm_model_hash.checking.expected import Expected
from tvm_model_hash.checking.verdict import Verdict, check
from tvm_model_hash.errors import DeviceError, ModelHashError

_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Device:
    """A device that a tracker knows, and what its files are.

    Parameters
    ----------
    address : str
        Host and port of its server.
    verdict : tvm_model_hash.Verdict, optional
        The verdict, None where there is none.
    reason : str
        What the verdict says, or why there is none.
    busy : bool
        Whether there is none because somebody else has the device.
    """

    address: str
    verdict: Verdict | None
    reason: str
    busy: bool = False


def check_server(expected, address, paths, key="", require=None):
    """Check files on one server.

    Parameters
    ----------
    expected : onnx.ModelProto, tvm_model_hash.Record, str or os.PathLike
        The model, as for ``tvm_model_hash.check``.
    address : tuple of str and int
        Host and port of the server.
    paths : sequence of str
        The paths of the files there, absolute or as the server takes them. Several are checked as
        one deployment.
    key : str
        The key that the server was started with, or what a tracker has given for it.
    require : mapping of str to str, optional
        As for ``tvm_model_hash.check``.

    Returns
    -------
    verdict : tvm_model_hash.Verdict

    Raises
    ------
    DeviceError
        If the server does not answer or send a file, or this is not an artifact.
    tvm_model_hash.ModelHashError
        If the model cannot be read.
    """
    record = Expected(expected).record
    name = _name(address)
    with tempfile.TemporaryDirectory() as directory:
        files = [os.path.join(directory, re.split(r"[/\\]", path)[-1]) for path in paths]
        if len(set(files)) < len(files):
            raise DeviceError(f"two of {', '.join(map(repr, paths))} have one name")
        with _session(address, key) as session:
            for path, file in zip(paths, files, strict=True):
                _fetch(session, name, path, file)
        try:
            found = check(record, files[0] if len(files) == 1 else directory, require=require)
        except ModelHashError as error:
            raise DeviceError(_without(directory, name, str(error))) from error
        return replace(found, reason=_without(directory, name, found.reason))


def check_devices(expected, tracker, key, paths, require=None):
    """Check files on every free device of a key.

    Each is held only while its files are fetched.

    Parameters
    ----------
    expected : onnx.ModelProto, tvm_model_hash.Record, str or os.PathLike
        The model, as for ``tvm_model_hash.check``.
    tracker : tuple of str and int
        Host and port of the tracker.
    key : str
        The key.
    paths : sequence of str
        As for :func:`check_server`.
    require : mapping of str to str, optional
        As for ``tvm_model_hash.check``.

    Returns
    -------
    devices : list of Device
        All that the tracker knows of the key, by their addresses, the busy ones too.

    Raises
    ------
    DeviceError
        If the tracker does not answer, or knows no device of the key.
    tvm_model_hash.ModelHashError
        If the model cannot be read.
    """
    record = Expected(expected).record
    with _connect_tracker(tracker) as connection:
        known = {
            _name(server["addr"])
            for server in _ask(connection, TrackerCode.SUMMARY)["server_info"]
            if server["key"] == f"server:{key}"
        }
        if not known:
            raise DeviceError(f"the tracker {_name(tracker)} knows no device of the key {key!r}")
        devices = {}
        while known - set(devices):
            queue = _ask(connection, TrackerCode.SUMMARY)["queue_info"].get(key)
            if not queue or queue["free"] <= queue["pending"]:
                break
            try:
                host, port, match_key = _ask(connection, TrackerCode.REQUEST, key, "", 1)
            except TimeoutError:  # somebody else was faster
                break
            name = _name((host, port))
            if name in devices:
                # They are handed out in the order in which they got free: those before are busy.
                with contextlib.suppress(DeviceError), _session((host, port), match_key):
                    pass
                break
            devices[name] = _device(record, (host, port), match_key, paths, require)
    busy = {
        name: Device(name, None, "somebody else has it", busy=True) for name in known - set(devices)
    }
    return [device for _, device in sorted({**devices, **busy}.items())]


def _device(record, address, match_key, paths, require):
    try:
        found = check_server(record, address, paths, match_key, require)
    except DeviceError as error:
        return Device(_name(address), None, str(error))
    return Device(_name(address), found, found.reason)


@contextlib.contextmanager
def _session(address, key):
    session = _connect(address, key)
    try:
        yield session
    finally:
        _close(session)


def _connect(address, key):
    """Connect, for which TVM would wait as long as another session has the server."""
    result, lock = [], threading.Lock()

    def run():
        try:
            made = connect(*address, key)
        except Exception as error:  # raised where it is waited for
            made = error
        with lock:
            result.append(made)
            is_late = len(result) > 1
        if is_late and not isinstance(made, Exception):
            _close(made)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    with lock:
        if not result:
            result.append(None)
    if result[0] is None:
        raise DeviceError(
            f"the RPC server at {_name(address)} does not answer within {_ANSWER_SECONDS} seconds: "
            "it may be busy with another session. Try again when that has ended"
        )
    if isinstance(result[0], RuntimeError):
        raise DeviceError(
            f"no RPC server with this key answers at {_name(address)}: {_reason(result[0])}"
        ) from result[0]
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _close(session):
    # At once, and not when the last reference is gone: a server has one session at a time.
    with contextlib.suppress(RuntimeError):
        session.get_function("CloseRPCConnection")()


def _fetch(session, name, path, file):
    try:
        data = session.download(path)
    except RuntimeError as error:
        raise DeviceError(f"{name} does not send {path!r}: {_reason(error)}") from error
    with open(file, "wb") as stream:
        stream.write(data)


def _connect_tracker(address):
    # TVM's own session of a tracker does not say which device it has got, and tries for a minute.
    magic = struct.pack("<i", RPC_TRACKER_MAGIC)
    try:
        connection = socket.create_connection(address, _ANSWER_SECONDS)
        connection.sendall(magic)
        answer = recvall(connection, len(magic))
    except OSError as error:
        raise DeviceError(f"no RPC tracker answers at {_name(address)}: {error}") from error
    if answer != magic:
        raise DeviceError(f"what answers at {_name(address)} is not an RPC tracker")
    return connection


def _ask(connection, *message):
    sendjson(connection, message)
    code, value = recvjson(connection)
    if code != TrackerCode.SUCCESS:
        raise DeviceError(f"the tracker answers {code} to the request {message[0]}")
    return value


def _name(address):
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error):
    """What an error of TVM says, without its stack trace and the place in its sources."""
    lines = str(error).strip().splitlines()
    return lines[-1].rpartition(": ")[2] if lines else type(error).__name__


def _without(directory, name, text):
    return text.replace(directory + os.sep, "").replace(directory, name)
