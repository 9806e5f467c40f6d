# SPDX-License-Identifier: Apache-2.0
"""A tensor cache whose JSON begins with spaces and spells a key with an escape.

Stopped by: JSON is told by its keys, as a parser reads them, and not by its first bytes.
"""

from common import deployment, main, verdict

from tvm_model_hash import Status


def attack(directory):
    from checking.test_hidden_parts import foreign_weights
    from deployments import network
    from tvm.contrib import tvmjs

    own = deployment(directory / "own")
    tvmjs.dump_ndarray_cache(foreign_weights(own), str(own), show_progress=False)
    (own / "ndarray-cache-b16.json").unlink()
    path = own / "ndarray-cache.json"
    text = path.read_text().replace('"metadata"', '"meta\\u0064ata"', 1)
    path.write_text(" " * 300 + text)
    return verdict(network(), own, Status.NO_RECORD, "'ndarray-cache.json'")


if __name__ == "__main__":
    main(attack)
