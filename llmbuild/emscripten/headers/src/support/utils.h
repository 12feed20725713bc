// Part of llmbuild: helpers for text, for compiling the runtime's sources to WebAssembly.
#pragma once

#include <tvm/ffi/string.h>

#include <string>
#include <string_view>

namespace tvm {
namespace support {

inline bool StartsWith(const std::string& text, const char* beginning) {
  return std::string_view(text).substr(0, std::string_view(beginning).size()) == beginning;
}

}  // namespace support
}  // namespace tvm
