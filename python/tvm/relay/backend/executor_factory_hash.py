# SPDX-License-Identifier: Apache-2.0
"""The model's identity in what relay.build returns."""

from tvm_model_hash.checking import verdict
from tvm_model_hash.integration import check_hash, get_hash, save_hash

from .executor_factory import ExecutorFactoryModule

__all__ = ["check_hash", "get_hash", "save_hash"]


@verdict.read.register(ExecutorFactoryModule)
def _read(factory):
    return verdict.read(factory.module)
