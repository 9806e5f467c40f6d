# SPDX-License-Identifier: Apache-2.0
"""An attribute with two values, of which one importer takes the one and another the other.
Once two such networks had one digest.

Stopped by: only the field of an attribute's type may be set.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("an attribute has two values")


if __name__ == "__main__":
    main(attack)
