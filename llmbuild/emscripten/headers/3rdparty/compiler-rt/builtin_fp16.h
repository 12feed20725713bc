// Part of llmbuild: IEEE 754 half precision to single, for compiling the runtime's sources to WebAssembly.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

// The name and the parameters are those of compiler-rt's function; only half to float is asked for.
template <typename Source, typename SourceBits, int source_digits, typename Target, typename TargetBits,
          int target_digits>
inline Target __extendXfYf2__(Source half) {
  static_assert(sizeof(Source) == 2 && source_digits == 10 && std::is_same_v<Target, float>, "half to float");
  const uint32_t bits = static_cast<uint32_t>(half);
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const float digits = static_cast<float>(bits & 1023);
  float size = 0;
  if (exponent == 31) {
    size = digits == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    size = std::ldexp(digits, -24);
  } else {
    size = std::ldexp(digits + 1024, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -size : size;
}
