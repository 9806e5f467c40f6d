# SPDX-License-Identifier: Apache-2.0
"""A record written behind the end of a stock library, as text.

Stopped by: a record counts where it is defined to stand, and text is not searched for it.
"""

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from deployments import network

    from tvm_model_hash import model_record

    own = deployment(directory / "own", "Relay VM, single file", get_hash=False)
    with open(own / "single.so", "ab") as file:
        file.write(str(model_record(network())).encode())
    return verdict(network(), own / "single.so", Status.NO_RECORD, "carries no record")


if __name__ == "__main__":
    main(attack)
