# SPDX-License-Identifier: Apache-2.0
"""A reference to a function's attribute outside of functions: importers take what is beside it.
Once two such networks had one digest.

Stopped by: a reference may stand in functions only.
"""

from common import main


def attack(directory):
    from model_attacks import refused

    return refused("an attribute outside of functions is a reference")


if __name__ == "__main__":
    main(attack)
