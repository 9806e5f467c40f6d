// SPDX-License-Identifier: Apache-2.0

/*!
 * \file src/runtime/vm/executable_hash.cc
 * \brief The record of a model's identity in a Relay VM executable.
 *
 * The record is the memory scope of one more entry of the executable's device table, with the
 * host's device. The table is serialized with the executable, listed by get_virtual_devices(), and
 * otherwise only looked up by the indices that instructions hold, none of which is that entry's. So
 * a runtime without this file loads, runs and writes executables with a record.
 *
 * FORMAT.md states the grammar of the record; tvm_model_hash/record.py is the same in Python.
 */

#include <tvm/runtime/module.h>
#include <tvm/runtime/registry.h>
// vm.h completes VMFunction, which executable.h only declares.
#include <tvm/runtime/vm/executable.h>
#include <tvm/runtime/vm/vm.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace tvm {
namespace runtime {
namespace vm {
namespace {

constexpr const char* kRecordTag = "model-hash/";
constexpr const char* kRecordVersion = "model-hash/1";
constexpr const char* kDigestKeys[] = {"model", "graph", "weights"};
constexpr int kNumDigestKeys = 3;
constexpr size_t kMaxRecordBytes = 1024;

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

bool IsLowerAlpha(char c) { return 'a' <= c && c <= 'z'; }

bool IsDigit(char c) { return '0' <= c && c <= '9'; }

bool IsSHA256(const std::string& value) {
  const std::string algorithm = "sha256:";
  return value.size() == algorithm.size() + 64 && StartsWith(value, algorithm) &&
         std::all_of(value.begin() + algorithm.size(), value.end(),
                     [](char c) { return IsDigit(c) || ('a' <= c && c <= 'f'); });
}

bool IsKey(const std::string& key) {
  return !key.empty() && IsLowerAlpha(key[0]) && std::all_of(key.begin(), key.end(), [](char c) {
    return IsLowerAlpha(c) || IsDigit(c) || c == '_' || c == '-';
  });
}

bool IsValue(const std::string& value) {
  return !value.empty() &&
         std::all_of(value.begin(), value.end(), [](char c) { return '!' <= c && c <= '~'; });
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + 1) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

/*!
 * \brief Whether a text is a record that may be set.
 * \param record The text.
 * \return What is wrong with it; empty if it is a record.
 */
std::string FindFault(const std::string& record) {
  if (record.empty()) return "it is empty";
  if (record.size() > kMaxRecordBytes) return "it is longer than 1024 bytes";
  const std::vector<std::string> fields = Split(record, ' ');
  if (fields[0] != kRecordVersion) return "it does not begin with 'model-hash/1 '";
  std::vector<std::string> keys;
  int next_digest = 0;
  for (size_t i = 1; i < fields.size(); ++i) {
    const size_t equals = fields[i].find('=');
    if (equals == std::string::npos) return "it has a field that is not 'key=value'";
    const std::string key = fields[i].substr(0, equals);
    const std::string value = fields[i].substr(equals + 1);
    if (!IsKey(key) || !IsValue(value)) return "it has a field that is not 'key=value'";
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) return "key '" + key + "' repeats";
    const auto* digest = std::find(kDigestKeys, kDigestKeys + kNumDigestKeys, key);
    if (digest != kDigestKeys + kNumDigestKeys) {
      const int index = static_cast<int>(digest - kDigestKeys);
      if (index < next_digest) return "key '" + key + "' is out of order";
      if (!IsSHA256(value)) return "key '" + key + "' is not 'sha256:' and 64 lowercase hex digits";
      next_digest = index + 1;
    } else {
      // The digests come first.
      next_digest = kNumDigestKeys;
    }
    keys.push_back(key);
  }
  if (keys.empty() || keys[0] != kDigestKeys[0]) return "it has no key 'model' in first place";
  return "";
}

Executable* GetExecutable(const Module& mod) {
  // By the type key: modules that are built without RTTI, as LLVM's are, crash a dynamic_cast.
  const std::string type_key = mod.defined() ? mod->type_key() : "nullptr";
  CHECK_EQ(type_key, "VMExecutable") << "ValueError: the module is not a VM executable";
  return static_cast<Executable*>(const_cast<ModuleNode*>(mod.operator->()));
}

/*! \brief The index of the record in the device table, or the table's size if there is none. */
size_t FindRecord(const Executable* exec) {
  const auto& table = exec->virtual_devices;
  size_t found = table.size();
  for (size_t i = 0; i < table.size(); ++i) {
    if (!StartsWith(table[i].second, kRecordTag)) continue;
    CHECK_EQ(found, table.size()) << "ValueError: the executable carries more than one record";
    found = i;
  }
  return found;
}

}  // namespace

/*!
 * \brief Put a record into an executable, in place of the one it may have.
 * \param mod The executable.
 * \param record The record.
 */
TVM_REGISTER_GLOBAL("runtime.SetExecutableRecord").set_body_typed([](Module mod, String record) {
  const std::string fault = FindFault(record);
  CHECK(fault.empty()) << "ValueError: cannot set the record '" << record << "': " << fault;
  Executable* exec = GetExecutable(mod);
  auto& table = exec->virtual_devices;
  const int host = exec->host_device_index;
  CHECK(0 <= host && static_cast<size_t>(host) < table.size())
      << "ValueError: the executable has no host device to put a record beside";
  const size_t index = FindRecord(exec);
  if (index == table.size()) {
    const Device device = table[host].first;
    table.emplace_back(device, record);
  } else {
    table[index].second = record;
  }
});

/*!
 * \brief Get the record of an executable.
 * \param mod The executable.
 * \return The record, empty if there is none.
 */
TVM_REGISTER_GLOBAL("runtime.GetExecutableRecord").set_body_typed([](Module mod) -> String {
  const Executable* exec = GetExecutable(mod);
  const size_t index = FindRecord(exec);
  return index == exec->virtual_devices.size() ? "" : exec->virtual_devices[index].second;
});

}  // namespace vm
}  // namespace runtime
}  // namespace tvm
