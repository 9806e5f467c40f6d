# SPDX-License-Identifier: Apache-2.0
"""What TVM wrote: its serialization, the carriers, reading and changing a record."""
