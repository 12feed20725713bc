// Part of llmbuild: what the runtime's sources use of a byte stream, for compiling them to WebAssembly.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tvm {
namespace support {

// How values of type T are written to a stream and read back; the types that can be are in serializer.h, and the
// runtime adds its own.
template <typename T, typename Condition = void>
struct Serializer {
  static constexpr bool enabled = false;
};

class Stream {
 public:
  virtual ~Stream() = default;

  // Both move up to `size` bytes and return how many were moved.
  virtual size_t Read(void* to, size_t size) = 0;
  virtual size_t Write(const void* from, size_t size) = 0;

  template <typename T>
  bool Read(T* value) {
    static_assert(Serializer<T>::enabled, "values of this type cannot be read from a stream");
    return Serializer<T>::Read(this, value);
  }

  template <typename T>
  void Write(const T& value) {
    static_assert(Serializer<T>::enabled, "values of this type cannot be written to a stream");
    Serializer<T>::Write(this, value);
  }

  // Elements one after the other, without their number.
  template <typename T>
  bool ReadArray(T* first, size_t count) {
    for (T* each = first; each != first + count; ++each) {
      if (!this->Read(each)) return false;
    }
    return true;
  }

  template <typename T>
  void WriteArray(const T* first, size_t count) {
    for (const T* each = first; each != first + count; ++each) this->Write(*each);
  }
};

}  // namespace support
}  // namespace tvm
