# SPDX-License-Identifier: Apache-2.0
"""A model with a field that this version does not know, and a later importer may.

Stopped by: an unknown field in what counts is an error, and no digest leaves it out.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("a message has a field that nobody knows")


if __name__ == "__main__":
    main(attack)
