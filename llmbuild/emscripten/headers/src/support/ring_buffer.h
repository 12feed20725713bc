// Part of llmbuild: a queue of bytes between a channel and its reader, for compiling the runtime's sources to WebAssembly.
#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace tvm {
namespace support {

class RingBuffer {
 public:
  size_t bytes_available() const { return bytes_.size() - begin_; }

  void Reserve(size_t size) { bytes_.reserve(begin_ + size); }

  void Read(void* to, size_t size) {
    if (size > bytes_available()) throw std::out_of_range("fewer bytes are in the buffer than are asked for");
    if (size != 0) std::memcpy(to, bytes_.data() + begin_, size);
    Drop(size);
  }

  void Write(const void* from, size_t size) {
    const char* first = static_cast<const char*>(from);
    bytes_.insert(bytes_.end(), first, first + size);
  }

  // `send(data, size)` returns how many bytes it took.
  template <typename Send>
  size_t ReadWithCallback(Send send, size_t limit) {
    const size_t size = limit < bytes_available() ? limit : bytes_available();
    const size_t sent = send(static_cast<const void*>(bytes_.data() + begin_), size);
    Drop(sent);
    return sent;
  }

  // `receive(data, size)` returns how many bytes it filled.
  template <typename Receive>
  size_t WriteWithCallback(Receive receive, size_t limit) {
    const size_t before = bytes_.size();
    bytes_.resize(before + limit);
    const size_t received = receive(static_cast<void*>(bytes_.data() + before), limit);
    bytes_.resize(before + received);
    return received;
  }

 private:
  void Drop(size_t size) {
    begin_ += size;
    if (2 * begin_ >= bytes_.size()) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_));
      begin_ = 0;
    }
  }

  std::vector<char> bytes_;
  size_t begin_ = 0;
};

}  // namespace support
}  // namespace tvm
