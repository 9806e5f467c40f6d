# SPDX-License-Identifier: Apache-2.0
"""``python -m tvm_model_hash`` is the command."""

import sys

from .cli.command import main

if __name__ == "__main__":
    sys.exit(main())
