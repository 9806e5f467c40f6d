# SPDX-License-Identifier: Apache-2.0
import tvm

from tvm_model_hash.versions import RELAX_TVM_VERSIONS, RELAY_TVM_VERSIONS

# In the environments of the other tests there is nothing here to test.
if tvm.__version__ in RELAY_TVM_VERSIONS + RELAX_TVM_VERSIONS:
    collect_ignore_glob = ["test_*.py"]
