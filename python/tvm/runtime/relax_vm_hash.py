# SPDX-License-Identifier: Apache-2.0
"""The model's identity in Relax's virtual machine."""

import functools

from tvm_model_hash.checking import verdict
from tvm_model_hash.integration import check_hash, get_hash  # noqa: F401 (methods of the class)

from .executable import Executable
from .library_hash import keep_record, read
from .vm import VirtualMachine

_init = VirtualMachine.__init__

verdict.read.register(Executable, read)
verdict.read.register(VirtualMachine, read)


@functools.wraps(_init)
def init(self, rt_mod, *args, **kwargs):
    _init(self, rt_mod, *args, **kwargs)
    # A library is asked when the hash is wanted. What was compiled here is in no library yet.
    keep_record(rt_mod, self)
