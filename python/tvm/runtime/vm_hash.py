# SPDX-License-Identifier: Apache-2.0
"""The model's identity in an executable and its virtual machine, and whole deployments.

The names are the same with Relay and with Relax.
"""

from tvm_model_hash.artifact.record_module import Engine

from .library_hash import ENGINE

if ENGINE is Engine.RELAY:
    from .relay_vm_hash import check_hash, get_hash, get_record, load, save, set_record
else:
    from .relax_vm_hash import (  # type: ignore[assignment]
        check_hash,
        get_hash,
        get_record,
        load,
        save,
        set_record,
    )

__all__ = ["check_hash", "get_hash", "get_record", "load", "save", "set_record"]
