// SPDX-License-Identifier: Apache-2.0

/*!
 * \file examples/cpp/check_hash_relay.cc
 * \brief Run a library that Relay compiled, if it is of the model that is expected.
 *
 *   check_hash_relay LIBRARY HASH_FILE INPUTS OUTPUTS
 *
 * The library is a VM executable in a single file, or of the graph or the AOT executor. The inputs
 * by their names are a file as tvm.runtime.save_param_dict writes it, and so become the outputs.
 * It needs TVM's runtime and nothing of tvm-model-hash. To build it beside an installed TVM:
 *
 *   tvm=$(python -c "import tvm; print(tvm.__path__[0])")
 *   g++ -std=c++17 -o check_hash_relay check_hash_relay.cc -I$tvm/include \
 *     -I$tvm/3rdparty/dlpack/include -I$tvm/3rdparty/dmlc-core/include \
 *     "-DDMLC_USE_LOGGING_LIBRARY=<tvm/runtime/logging.h>" -L$tvm -ltvm_runtime -Wl,-rpath,$tvm
 */

#include <tvm/runtime/container/map.h>
#include <tvm/runtime/container/string.h>
#include <tvm/runtime/module.h>
#include <tvm/runtime/ndarray.h>
#include <tvm/runtime/registry.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

using namespace tvm::runtime;

int main(int argc, char** argv) try {
  if (argc != 5) {
    std::cerr << "usage: check_hash_relay LIBRARY HASH_FILE INPUTS OUTPUTS\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  ICHECK_EQ(expected.size(), 64) << argv[2] << " is not a hash file";
  // A name without a directory would be looked for where the system has its libraries.
  Module library = Module::LoadFromFile(std::filesystem::absolute(argv[1]).string());
  PackedFunc get_model_hash = library.GetFunction("get_model_hash", /*query_imports=*/true);
  String found = "none";
  if (get_model_hash != nullptr) found = get_model_hash().operator String();
  if (found != expected) {
    std::cerr << argv[1] << ": expected model " << expected << ", found " << found << "\n";
    return 1;
  }
  // From here on as without a hash.
  const bool is_vm = library->type_key() == std::string("VMExecutable");
  Module executor;
  if (is_vm) {
    executor = library.GetFunction("vm_load_executable")();
    executor.GetFunction("init")(static_cast<int>(kDLCPU), 0, 2);  // 2: a pooled allocator
  } else {
    executor = library.GetFunction("default")(DLDevice{kDLCPU, 0});
  }
  Map<String, NDArray> inputs = (*Registry::Get("runtime.LoadParamsFromFile"))(argv[3]);
  for (const auto& [name, value] : inputs) {
    if (is_vm) {
      executor.GetFunction("set_one_input")("main", name.c_str(), value);
    } else {
      const int index = executor.GetFunction("get_input_index")(name);
      ICHECK_GE(index, 0) << "the library has no input " << name;
      executor.GetFunction("set_input")(index, value);
    }
  }
  is_vm ? executor.GetFunction("invoke_stateful")("main") : executor.GetFunction("run")();
  Map<String, NDArray> outputs;
  for (int i = 0, count = executor.GetFunction("get_num_outputs")(); i < count; ++i) {
    outputs.Set(std::to_string(i), executor.GetFunction("get_output")(i));
  }
  (*Registry::Get("runtime.SaveParamsToFile"))(outputs, argv[4]);
  std::cout << found << "\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
