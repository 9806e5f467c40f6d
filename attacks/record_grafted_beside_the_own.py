# SPDX-License-Identifier: Apache-2.0
"""A second record, cut out of another model's library and put into this one as a section.

Stopped by: all notes are read, in whatever section; two records that differ are an error.
"""

import struct
import subprocess

from common import deployment, error, main

from tvm_model_hash import check, model_record

OWNER = b"tvm-model-hash\0"


def graft(payload, library):
    """Put a note with a record's text into a library, as a section that nothing refers to."""
    note = library.with_name("note")
    head = struct.pack("<III", len(OWNER), len(payload), 1) + OWNER.ljust(16, b"\0")
    note.write_bytes(head + payload + bytes(-len(payload) % 4))
    section = ".note.grafted"
    options = ["--add-section", f"{section}={note}", "--set-section-flags", f"{section}=readonly"]
    options += ["--set-section-alignment", f"{section}=4"]
    subprocess.run(["objcopy", *options, library, library], check=True)
    note.unlink()


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    graft(str(model_record(network(scale=2.0))).encode(), own / "lib.so")
    return error(lambda: check(network(), own), "records of two models")


if __name__ == "__main__":
    main(attack)
