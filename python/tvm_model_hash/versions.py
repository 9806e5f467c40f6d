# SPDX-License-Identifier: Apache-2.0
"""The versions of TVM that this package knows; CMakeLists.txt reads them from here."""

#: With Relay: the layout of the VM executable and what is patched are known for these.
RELAY_TVM_VERSIONS = ("0.19.0",)
#: With Relax: what is patched is known for these.
RELAX_TVM_VERSIONS = ("0.25.0.post1", "0.26.0", "0.27.0.post1")
