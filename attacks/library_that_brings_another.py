# SPDX-License-Identifier: Apache-2.0
"""A good library that has another one loaded with it from beside it (DT_NEEDED, $ORIGIN).

Stopped by: `vm_hash.load` refuses a library that says where to load others from, before it loads.
"""

import subprocess

from common import error, main


def evil_library(directory):
    """A library that writes a file when it is loaded."""
    source = directory / "evil.c"
    source.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) void run(void) "
        f'{{ fclose(fopen("{directory}/was_run", "w")); }}\n'
    )
    path = directory / "libevil.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def saved(directory, *options):
    """A deployment whose library was linked with more options."""
    from checking.test_hidden_parts import compile_network
    from tvm.runtime import vm_hash

    return vm_hash.save(compile_network(), directory / "d", options=list(options))


def attack(directory):
    import tvm
    from deployments import network
    from tvm.runtime import vm_hash

    evil = evil_library(directory)
    options = [f"-L{directory}", "-Wl,--no-as-needed", "-levil", "-Wl,-rpath,$ORIGIN/.."]
    own = saved(directory, *options)
    found = error(lambda: vm_hash.load(own, tvm.cpu(), network()), "has the library 'libevil.so'")
    assert evil.exists()
    assert not (directory / "was_run").exists()
    return found


if __name__ == "__main__":
    main(attack)
