# SPDX-License-Identifier: Apache-2.0
"""Another process replaces the files all the time, between their check and their load.

Stopped by: `vm_hash.load` takes a private copy first, checks that, and loads that.
"""

import contextlib
import os
import shutil
import threading

from common import NotStoppedError, deployment, main

from tvm_model_hash import ModelHashError

NAMES = ("code.ro", "lib.so")
LOADS = 30


def put(source, directory):
    """Replace the files of a deployment, as a writer does it."""
    for name in NAMES:
        shutil.copy(source / name, directory.parent / "new")
        os.replace(directory.parent / "new", directory / name)


@contextlib.contextmanager
def exchanged_when_checked(exchange):
    """Let somebody exchange files when all are checked, and nothing is loaded."""
    from tvm.runtime import relay_vm_hash

    checked_deployment = relay_vm_hash.checked_deployment

    @contextlib.contextmanager
    def checked_and_exchanged(*arguments, **options):
        with checked_deployment(*arguments, **options) as found:
            exchange()
            yield found

    relay_vm_hash.checked_deployment = checked_and_exchanged
    try:
        yield
    finally:
        relay_vm_hash.checked_deployment = checked_deployment


def race(directory, put, loads=LOADS):
    """Load while the files change between two fine-tunes: how often it was refused."""
    import numpy as np
    import tvm
    from deployments import network
    from tvm.runtime import vm_hash

    first = deployment(directory / "first", "Relay VM")
    second = deployment(directory / "second", "Relay VM", scale=2.0)
    both = deployment(directory / "both", "Relay VM")
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16)
    expected = vm_hash.load(first, tvm.cpu(), network()).run(x).numpy()

    # At the worst of all moments, which few of the loads below meet by chance.
    with exchanged_when_checked(lambda: put(second, both)):
        vm = vm_hash.load(both, tvm.cpu(), network())
    if not np.array_equal(vm.run(x).numpy(), expected):
        raise NotStoppedError("what was loaded is not what was checked")
    done = threading.Event()

    def exchange():
        while not done.is_set():
            put(second, both)
            put(first, both)

    thread = threading.Thread(target=exchange)
    thread.start()
    refused = 0
    try:
        for _ in range(loads):
            try:
                vm = vm_hash.load(both, tvm.cpu(), network())
            except ModelHashError:
                refused += 1
                continue
            if not np.array_equal(vm.run(x).numpy(), expected):
                raise NotStoppedError("another model was loaded")
    finally:
        done.set()
        thread.join()
    return f"{loads} times loaded: {refused} times refused, else the expected model"


def attack(directory):
    return race(directory, put)


if __name__ == "__main__":
    main(attack)
