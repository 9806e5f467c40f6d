# SPDX-License-Identifier: Apache-2.0
"""What a model is: its file, the names in it, its canonical form, digests and differences."""
