// SPDX-License-Identifier: Apache-2.0

/*!
 * \file examples/cpp/check_hash.cc
 * \brief Start a library that Relax compiled, if it is of the model that is expected.
 *
 *   check_hash LIBRARY HASH_FILE
 *
 * It needs TVM's runtime and nothing of tvm-model-hash. To build it beside an installed TVM:
 *
 *   tvm=$(python -c "import tvm; print(tvm.__path__[0])")/lib
 *   g++ -o check_hash check_hash.cc $(tvm-ffi-config --cxxflags --ldflags) \
 *     -L$tvm -Wl,--no-as-needed -ltvm_runtime -ltvm_ffi \
 *     -Wl,-rpath,$tvm,-rpath,$(tvm-ffi-config --libdir)
 */

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/string.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

namespace ffi = tvm::ffi;

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: check_hash LIBRARY HASH_FILE\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  if (expected.size() != 64) {
    std::cerr << argv[2] << " is no hash file: expected 64 hexadecimal digits\n";
    return 2;
  }
  try {
    const ffi::Module library = ffi::Module::LoadFromFile(argv[1]);
    const ffi::Optional<ffi::Function> get_model_hash =
        library->GetFunction("get_model_hash", /*query_imports=*/true);
    if (!get_model_hash.has_value()) {
      std::cerr << argv[1] << " carries no model hash\n";
      return 1;
    }
    const std::string found = (*get_model_hash)().cast<ffi::String>();
    std::cout << found << "\n";
    if (found != expected) {
      std::cerr << argv[1] << " is of another model: expected " << expected << "\n";
      return 1;
    }
    // From here on as without a hash; the numbers are device type, device id and allocator.
    const auto load = library->GetFunction("vm_load_executable", /*query_imports=*/true);
    const auto vm = (*load)().cast<ffi::Module>();
    (*vm->GetFunction("vm_initialization"))(static_cast<int>(kDLCPU), 0, 2);
    std::cout << "main takes " << (*vm->GetFunction("get_function_arity"))("main").cast<int64_t>()
              << " arguments\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
  return 0;
}
