# SPDX-License-Identifier: Apache-2.0
"""A tensor cache behind a byte order mark, which browsers drop and Python's parser does not.

Stopped by: what begins like a tensor cache, also behind such a mark, and is not whole is an error.
"""

from common import deployment, error, main

from tvm_model_hash import check


def attack(directory):
    from checking.test_hidden_parts import foreign_weights
    from deployments import network
    from tvm.contrib import tvmjs

    own = deployment(directory / "own")
    tvmjs.dump_ndarray_cache(foreign_weights(own), str(own), show_progress=False)
    path = own / "ndarray-cache.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return error(lambda: check(network(), own), "is damaged: it is not valid JSON")


if __name__ == "__main__":
    main(attack)
