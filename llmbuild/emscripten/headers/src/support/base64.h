// Part of llmbuild: Base64 (RFC 4648) between two streams, for compiling the runtime's sources to WebAssembly.
#pragma once

#include <tvm/support/io.h>

#include <cstdint>

namespace tvm {
namespace support {

inline constexpr char kBase64Digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Encodes what is written; `Finish` writes the last digits and the padding.
class Base64OutStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64OutStream(Stream* to) : to_(to) {}

  size_t Read(void*, size_t) final { return 0; }

  size_t Write(const void* from, size_t size) final {
    const uint8_t* bytes = static_cast<const uint8_t*>(from);
    for (size_t i = 0; i < size; ++i) {
      pending_ = pending_ << 8 | bytes[i];
      bits_ += 8;
      while (bits_ >= 6) PutDigit(pending_ >> (bits_ -= 6));
    }
    return size;
  }

  void Finish() {
    if (bits_ != 0) PutDigit(pending_ << (6 - bits_));
    bits_ = 0;
    while (digits_ % 4 != 0) Put('=');
  }

 private:
  void PutDigit(uint32_t value) { Put(kBase64Digits[value & 63]); }

  void Put(char digit) {
    to_->Write(static_cast<const void*>(&digit), 1);
    ++digits_;
  }

  Stream* to_;
  uint32_t pending_ = 0;
  int bits_ = 0;
  size_t digits_ = 0;
};

// Decodes what is read, up to the padding; other characters, line ends among them, are passed over.
class Base64InStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64InStream(Stream* from) : from_(from) {}

  void InitPosition() {}  // The first digit is looked for when it is needed.

  size_t Read(void* to, size_t size) final {
    uint8_t* bytes = static_cast<uint8_t*>(to);
    size_t done = 0;
    char digit = 0;
    while (done < size && digit != '=' && from_->Read(static_cast<void*>(&digit), 1) == 1) {
      const int value = Value(digit);
      if (value < 0) continue;
      pending_ = pending_ << 6 | static_cast<uint32_t>(value);
      bits_ += 6;
      if (bits_ >= 8) bytes[done++] = static_cast<uint8_t>(pending_ >> (bits_ -= 8));
    }
    return done;
  }

  size_t Write(const void*, size_t) final { return 0; }

 private:
  static int Value(char digit) {
    for (int value = 0; value < 64; ++value) {
      if (kBase64Digits[value] == digit) return value;
    }
    return -1;
  }

  Stream* from_;
  uint32_t pending_ = 0;
  int bits_ = 0;
};

}  // namespace support
}  // namespace tvm
