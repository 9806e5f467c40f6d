// SPDX-License-Identifier: Apache-2.0

/*!
 * \file tests/fuzz/record_harness.cc
 * \brief Sets records in an executable: reads each with its length before it, and says '+' or '-'.
 */

#include <cstdint>
#include <cstdio>
#include <string>

#include "executable_hash.cc"

int main() {
  using namespace tvm::runtime;
  const PackedFunc* set = Registry::Get("runtime.SetExecutableRecord");
  const PackedFunc* get = Registry::Get("runtime.GetExecutableRecord");
  uint32_t size = 0;
  while (std::fread(&size, sizeof(size), 1, stdin) == 1) {
    std::string record(size, '\0');
    if (size != 0 && std::fread(&record[0], 1, size, stdin) != size) return 1;
    const bool is_record = vm::FindFault(record).empty();
    char said = is_record ? '+' : '-';
    auto exec = make_object<vm::Executable>();
    exec->virtual_devices.emplace_back(tvm::Device{kDLCPU, 0}, "global");
    exec->host_device_index = 0;
    const Module mod(exec);
    if (is_record) {
      // Twice, so that it is added and then replaced.
      (*set)(mod, String(record));
      (*set)(mod, String(record));
      const String found = (*get)(mod);
      if (std::string(found) != record || exec->virtual_devices.size() != 2) said = '?';
    }
    std::fputc(said, stdout);
    std::fflush(stdout);
  }
  return 0;
}
