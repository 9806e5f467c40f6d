# SPDX-License-Identifier: Apache-2.0
"""The shard of a tensor cache, which has no place for a record, is another fine-tune's.

Stopped by: a part without a record is no match; and by the seal, if there is one.
"""

import shutil

from common import main, relax_deployment, verdict

from tvm_model_hash import Status, read_artifact, seal

TVM = "relax"


def attack(directory):
    from deployments import network

    own = relax_deployment(directory / "own", "save_cache")
    other = relax_deployment(directory / "other", "save_cache", scale=2.0)
    (own / "tensor-cache-b16.json").unlink()
    (shard,) = read_artifact(own / "tensor-cache.json").files
    verdict(network(), own, Status.NO_RECORD, f"which model '{shard}'")
    seal(own)
    shutil.copy(other / shard, own)
    return verdict(network(), own, Status.BROKEN_SEAL, shard)


if __name__ == "__main__":
    main(attack)
