# SPDX-License-Identifier: Apache-2.0
"""A subgraph that defines a name of a graph around it: TVM's importer takes it behind it, too.
Once two such networks had one digest.

Stopped by: a name is defined once in a graph and those around it.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("a subgraph defines a name of a graph around it")


if __name__ == "__main__":
    main(attack)
