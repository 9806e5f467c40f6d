# SPDX-License-Identifier: Apache-2.0
"""A tar in which a second file of the same name replaces the one that a reader sees first.

Stopped by: a name that stands twice is an error.
"""

import io
import tarfile

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    from deployments import network

    path = deployment(directory / "own", "Relay VM, single file: tar") / "single.tar"
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    evil = tarfile.TarInfo(members[0][0].name)
    evil.size = 4
    with tarfile.open(path, "w") as archive:
        for member, data in [*members, (evil, b"evil")]:
            archive.addfile(member, io.BytesIO(data))
    return error(lambda: check(network(), path), "it has two files")


if __name__ == "__main__":
    main(attack)
