# SPDX-License-Identifier: Apache-2.0
"""Comparing: hash.txt, the manifest, a deployment and its parts, the verdict."""
