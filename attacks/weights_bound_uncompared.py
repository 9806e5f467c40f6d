# SPDX-License-Identifier: Apache-2.0
"""Another fine-tune's constants are bound to an executable by hand, and the whole is saved.

Stopped by: an executable whose constants were not compared passes no check and is not saved.
"""

from common import error, main

from tvm_model_hash import check


def attack(directory):
    from checking.test_hidden_parts import compile_network
    from deployments import network
    from tvm.runtime import vm_hash

    constants = compile_network(scale=2.0).get_late_bound_consts(256)
    exe = compile_network()
    exe.get_late_bound_consts(256)
    exe.load_late_bound_consts_from_map(constants)
    exe.mod.export_library(str(directory / "single.so"))
    error(lambda: check(network(), directory / "single.so"), "others were bound")
    return error(lambda: vm_hash.save(exe, directory / "d"), "others were bound")


if __name__ == "__main__":
    main(attack)
