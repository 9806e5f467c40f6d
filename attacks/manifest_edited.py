# SPDX-License-Identifier: Apache-2.0
"""A file is changed, and its line in the manifest with it.

Stopped by: the manifest's last line is the digest of the lines above.
"""

import hashlib

from common import deployment, main, verdict

from tvm_model_hash import Status, seal


def attack(directory):
    from deployments import network

    own = deployment(directory / "own")
    seal(own)
    before = (own / "lib.so").read_bytes()
    after = before[:-1] + bytes([before[-1] ^ 1])
    (own / "lib.so").write_bytes(after)
    text = (own / "SHA256SUMS").read_text()
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, after))
    (own / "SHA256SUMS").write_text(text.replace(old, new))
    return verdict(network(), own, Status.BROKEN_SEAL, "SHA256SUMS")


if __name__ == "__main__":
    main(attack)
