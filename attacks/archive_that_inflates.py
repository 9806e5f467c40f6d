# SPDX-License-Identifier: Apache-2.0
"""Some hundred kilobytes of .tar.gz that are 400 MB when they are unpacked.

Stopped by: no more is inflated than 100 times the file, or 256 MiB.
"""

import gzip
import tarfile

from common import error, main

from tvm_model_hash import check


def attack(directory):
    path = directory / "package.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        member = tarfile.TarInfo("weights.bin")
        member.size = 400_000_000
        file.write(member.tobuf())
        for _ in range(400):
            file.write(bytes(1_000_000))
        file.write(bytes(2048))
    return error(lambda: check("0" * 64, path), "package.tar.gz")


if __name__ == "__main__":
    main(attack)
