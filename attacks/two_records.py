# SPDX-License-Identifier: Apache-2.0
"""A library into which objects of two models were linked: a reader takes the record that it likes.

Stopped by: all records of a file are read; two that differ are an error that names both.
"""

from common import error, main

from tvm_model_hash import read_artifact


def attack(directory):
    from binaries import OTHER_RECORD, RECORD, archive

    path = archive("x86_64-linux-gnu", "gnu", RECORD, OTHER_RECORD)
    return error(lambda: read_artifact(path), "record")


if __name__ == "__main__":
    main(attack)
