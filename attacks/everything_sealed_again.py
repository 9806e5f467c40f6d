# SPDX-License-Identifier: Apache-2.0
"""The weights are changed behind their record, and everything is sealed again.

Stopped by: not by a check alone, as a manifest is no signature: by a digest of the manifest that
was kept elsewhere (or signed).
"""

import hashlib

from common import NotStoppedError, deployment, main

from tvm_model_hash import Status, check, seal


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    manifest = own / "SHA256SUMS"
    seal(own)
    kept = hashlib.sha256(manifest.read_bytes()).hexdigest()
    data = bytearray((own / "consts").read_bytes())
    data[len(data) // 2] ^= 1
    (own / "consts").write_bytes(data)
    assert check(network(), own).status is Status.BROKEN_SEAL
    manifest.unlink()
    seal(own)
    assert check(network(), own).status is Status.MATCH  # what a seal does not promise
    if hashlib.sha256(manifest.read_bytes()).hexdigest() == kept:
        raise NotStoppedError
    return "the manifest has another digest than the one that was kept"


if __name__ == "__main__":
    main(attack)
