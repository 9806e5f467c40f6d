# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""The command ``tvm-model-hash``."""

from .command import main

__all__ = ["main"]
