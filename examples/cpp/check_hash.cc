// SPDX-License-Identifier: Apache-2.0

/*!
 * \file examples/cpp/check_hash.cc
 * \brief Run a library that Relax compiled, if it is of the model that is expected.
 *
 *   check_hash LIBRARY HASH_FILE INPUTS OUTPUTS
 *
 * The inputs by their names are a file as tvm.runtime.save_param_dict writes it, and so become the
 * outputs. It needs TVM's runtime and nothing of tvm-model-hash. To build it beside an installed
 * TVM:
 *
 *   tvm=$(python -c "import tvm; print(tvm.__path__[0])")/lib
 *   g++ -o check_hash check_hash.cc $(tvm-ffi-config --cxxflags --ldflags) \
 *     -L$tvm -Wl,--no-as-needed -ltvm_runtime -ltvm_ffi \
 *     -Wl,-rpath,$tvm,-rpath,$(tvm-ffi-config --libdir)
 */

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: check_hash LIBRARY HASH_FILE INPUTS OUTPUTS\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  if (expected.size() != 64) {
    std::cerr << argv[2] << " is not a hash file: expected 64 hexadecimal digits\n";
    return 2;
  }
  try {
    // A name without a directory would be looked for where the system has its libraries.
    const ffi::Module library =
        ffi::Module::LoadFromFile(std::filesystem::absolute(argv[1]).string());
    const ffi::Optional<ffi::Function> get_model_hash =
        library->GetFunction("get_model_hash", /*query_imports=*/true);
    if (!get_model_hash.has_value()) {
      std::cerr << argv[1] << " carries no model hash\n";
      return 1;
    }
    const std::string found = (*get_model_hash)().cast<ffi::String>();
    if (found != expected) {
      std::cerr << argv[1] << ": expected model " << expected << ", found " << found << "\n";
      return 1;
    }
    // From here on as without a hash; the numbers are device type, device id and allocator.
    const auto load = library->GetFunction("vm_load_executable", /*query_imports=*/true);
    const auto vm = (*load)().cast<ffi::Module>();
    (*vm->GetFunction("vm_initialization"))(static_cast<int>(kDLCPU), 0, 2);
    using Tensors = ffi::Map<ffi::String, ffi::Tensor>;
    const auto inputs =
        ffi::Function::GetGlobalRequired("runtime.LoadParamsFromFile")(std::string(argv[3]))
            .cast<Tensors>();
    std::vector<ffi::AnyView> arguments;  // of what the map keeps
    const auto arity = (*vm->GetFunction("get_function_arity"))("main").cast<int64_t>();
    for (int64_t i = 0; i < arity; ++i) {
      const auto get_name = vm->GetFunction("get_function_param_name");
      arguments.push_back(inputs.at((*get_name)("main", i).cast<ffi::String>()));
    }
    ffi::Any result;
    (*vm->GetFunction("main")).CallPacked(arguments.data(), arguments.size(), &result);
    // One tensor, or an array of them.
    auto outputs = result.as<ffi::Array<ffi::Tensor>>();
    if (!outputs) outputs = ffi::Array<ffi::Tensor>{result.cast<ffi::Tensor>()};
    Tensors named;
    for (size_t i = 0; i < outputs->size(); ++i) {
      named.Set(std::to_string(i), (*outputs)[i]);
    }
    ffi::Function::GetGlobalRequired("runtime.SaveParamsToFile")(named, std::string(argv[4]));
    std::cout << found << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
  return 0;
}
