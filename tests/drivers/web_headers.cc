// Uses each header of llmbuild/emscripten/headers as TVM's runtime does; exits with the line of the first thing wrong.
#include <cmath>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

#include "3rdparty/compiler-rt/builtin_fp16.h"
#include "src/support/arena.h"
#include "src/support/base64.h"
#include "src/support/bytes_io.h"
#include "src/support/ring_buffer.h"
#include "src/support/utils.h"

#include <tvm/ffi/dtype.h>
#include <tvm/support/cuda/nvtx.h>

#define CHECK(condition) \
  if (!(condition)) return std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition), 1

namespace support = tvm::support;
namespace ffi = tvm::ffi;

static std::string Encoded(const std::string& text) {
  std::string out;
  support::BytesOutStream bytes(&out);
  support::Base64OutStream base64(&bytes);
  base64.Write(static_cast<const void*>(text.data()), text.size());
  base64.Finish();
  return out;
}

static std::string Decoded(const std::string& text, size_t size) {
  support::BytesInStream bytes(text);
  support::Base64InStream base64(&bytes);
  base64.InitPosition();
  std::string out(size + 1, '\0');
  out.resize(base64.Read(static_cast<void*>(out.data()), size + 1));
  return out;
}

static float Half(uint16_t bits) { return __extendXfYf2__<uint16_t, uint16_t, 10, float, uint32_t, 23>(bits); }

int main() {
  // The test vectors of RFC 4648, section 10.
  const std::pair<const char*, const char*> vectors[] = {{"", ""},           {"f", "Zg=="},         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},    {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    CHECK(Encoded(plain) == coded);
    CHECK(Decoded(coded, 6) == plain);
  }
  CHECK(Decoded("Zm9v\nYm Fy", 6) == "foobar");

  std::string out;
  support::BytesOutStream to(&out);
  to.Write<uint16_t>(0x1234);
  to.Write(std::string("ab"));
  to.Write(DLDataType{2, 32, 1});
  to.Write(DLDevice{kDLWebGPU, 3});
  const std::string wanted("\x34\x12\2\0\0\0\0\0\0\0ab\2\x20\1\0\x0f\0\0\0\3\0\0\0", 24);
  CHECK(out == wanted);

  out.clear();
  const std::vector<int64_t> numbers = {1, -2, 3};
  to.Write(numbers);
  CHECK(out.size() == 8 + 3 * 8);
  to.Write(ffi::Map<ffi::String, ffi::Array<DLDataType>>{{"k", {DLDataType{1, 8, 1}}}});
  to.Write(std::unordered_map<std::string, std::string>{{"x", "y"}});
  to.WriteArray<uint8_t>(reinterpret_cast<const uint8_t*>("zz"), 2);
  {
    support::BytesInStream from(out);
    std::vector<int64_t> read;
    ffi::Map<ffi::String, ffi::Array<DLDataType>> types;
    std::unordered_map<std::string, std::string> texts;
    char last[2];
    CHECK(from.Read(&read) && read == numbers);
    CHECK(from.Read(&types) && types.size() == 1 && types["k"][0].bits == 8);
    CHECK(from.Read(&texts) && texts["x"] == "y");
    CHECK(from.ReadArray(last, 2) && last[0] == 'z' && last[1] == 'z');
    uint8_t more;
    CHECK(!from.Read(&more));
  }
  // Cut off anywhere, it is refused and not read beyond.
  for (size_t size = 0; size < 32; ++size) {
    const std::string part = out.substr(0, size);
    support::BytesInStream from(part);
    std::vector<int64_t> read;
    CHECK(!from.Read(&read));
  }

  support::RingBuffer ring;
  std::string seen;
  for (int round = 0; round < 100; ++round) {
    const std::string text(static_cast<size_t>(round), static_cast<char>('a' + round % 26));
    ring.Write(text.data(), text.size());
    ring.WriteWithCallback([&](void* place, size_t) { *static_cast<char*>(place) = '.'; return size_t{1}; }, 50);
    seen += text + ".";
    char byte;
    ring.Read(&byte, 1);
    CHECK(byte == seen[static_cast<size_t>(round)]);
  }
  CHECK(ring.bytes_available() == seen.size() - 100);
  std::string rest;
  ring.Reserve(1);
  while (ring.bytes_available() != 0) {
    ring.ReadWithCallback(
        [&](const void* place, size_t size) {
          const size_t taken = (size + 1) / 2;
          rest.append(static_cast<const char*>(place), taken);
          return taken;
        },
        64);
  }
  CHECK(rest == seen.substr(100));

  support::Arena arena;
  int64_t* first = arena.allocate_<int64_t>(3);
  first[2] = 5;
  arena.allocate_<char>(100)[99] = 'x';
  CHECK(first[2] == 5);
  arena.RecycleAll();

  CHECK(support::StartsWith("prefix: rest", "prefix:") && !support::StartsWith("pre", "prefix"));
  CHECK(Half(0x3c00) == 1.0f && Half(0xc000) == -2.0f && Half(0x7bff) == 65504.0f && Half(1) == std::ldexp(1.0f, -24));
  CHECK(std::isinf(Half(0xfc00)) && Half(0xfc00) < 0 && std::isnan(Half(0x7e00)) && std::signbit(Half(0x8000)));
  support::NVTXScopedRange range("range");
  return 0;
}
