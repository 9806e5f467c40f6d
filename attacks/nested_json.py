# SPDX-License-Identifier: Apache-2.0
"""JSON of 100,000 brackets in brackets, to exhaust the stack of whoever parses it.

Stopped by: what Python's parser does not take is an error of ours.
"""

from common import error, main

from tvm_model_hash import check


def attack(directory):
    path = directory / "graph.json"
    path.write_text('{"nodes": ' + "[" * 100_000)
    return error(lambda: check("0" * 64, path), "graph.json")


if __name__ == "__main__":
    main(attack)
