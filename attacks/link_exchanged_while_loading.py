# SPDX-License-Identifier: Apache-2.0
"""The library becomes a symbolic link to another model's, and a file again, all the time.

Stopped by: the private copy; each file is opened once, and the copy is what is checked and loaded.
"""

import os
import shutil

from common import main
from files_exchanged_while_loading import race


def put(source, directory):
    new = directory.parent / "new"
    if source.name == "second":
        new.symlink_to(source / "lib.so")
    else:
        shutil.copy(source / "lib.so", new)
    os.replace(new, directory / "lib.so")


def attack(directory):
    return race(directory, put)


if __name__ == "__main__":
    main(attack)
