# SPDX-License-Identifier: Apache-2.0
"""The versions of TVM that this package knows; CMakeLists.txt reads them from here."""

#: With Relay: the layout of the VM executable and what is patched are known for these.
RELAY_TVM_VERSIONS = ("0.19.0",)
