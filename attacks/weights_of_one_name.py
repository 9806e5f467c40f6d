# SPDX-License-Identifier: Apache-2.0
"""Two subgraphs with weights of one name: TVM's importer reads the first one's in both.
Once two such networks had one digest.

Stopped by: initializers of one name in two subgraphs have to be equal.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("weights of two subgraphs have one name")


if __name__ == "__main__":
    main(attack)
