# SPDX-License-Identifier: Apache-2.0
"""An attribute in a function with a reference and a value of its own.
Once two such networks had one digest.

Stopped by: beside a reference no value may be set.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("a reference has a value too")


if __name__ == "__main__":
    main(attack)
