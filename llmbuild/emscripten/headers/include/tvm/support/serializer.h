// Part of llmbuild: the byte format of values in a packed module, for compiling the runtime's sources to WebAssembly.
//
// Numbers, enumerations and DLPack's two structures are their own little-endian bytes.  Text, lists and maps begin with
// their length as 64 bits; a map's entries are key, value, key, value.
#pragma once

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/endian.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(TVM_FFI_LITTLE_ENDIAN, "WebAssembly is little-endian");
static_assert(sizeof(DLDataType) == 4 && sizeof(DLDevice) == 8, "these structures have no padding");

namespace format {

template <typename T>
inline constexpr bool is_plain = std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, DLDataType> ||
                                 std::is_same_v<T, DLDevice>;

template <typename T>
inline constexpr bool is_text =
    std::is_same_v<T, std::string> || std::is_same_v<T, ffi::String> || std::is_same_v<T, ffi::Bytes>;

// An object reference without a default constructor can still be made empty, to be read into.
template <typename T>
T Empty() {
  if constexpr (std::is_default_constructible_v<T>) {
    return T();
  } else {
    return T(ffi::UnsafeInit{});
  }
}

inline void WriteLength(Stream* stream, size_t length) { stream->Write(static_cast<uint64_t>(length)); }

inline bool ReadLength(Stream* stream, size_t* length) {
  uint64_t wide = 0;
  if (!stream->Read(&wide)) return false;
  *length = static_cast<size_t>(wide);
  return *length == wide;
}

// Reads a length and then as many elements, each handed to `take`.
template <typename T, typename Take>
bool ReadEach(Stream* stream, Take take) {
  size_t length = 0;
  if (!ReadLength(stream, &length)) return false;
  while (length-- > 0) {
    T element = Empty<T>();
    if (!stream->Read(&element)) return false;
    take(std::move(element));
  }
  return true;
}

template <typename List>
void WriteEach(Stream* stream, const List& list) {
  WriteLength(stream, list.size());
  for (const auto& element : list) stream->Write(element);
}

}  // namespace format

template <typename T>
struct Serializer<T, std::enable_if_t<format::is_plain<T>>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const T& value) { stream->Write(static_cast<const void*>(&value), sizeof(T)); }

  static bool Read(Stream* stream, T* value) { return stream->Read(static_cast<void*>(value), sizeof(T)) == sizeof(T); }
};

template <typename T>
struct Serializer<T, std::enable_if_t<format::is_text<T>>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const T& value) {
    format::WriteLength(stream, value.size());
    stream->Write(static_cast<const void*>(value.data()), value.size());
  }

  static bool Read(Stream* stream, T* value) {
    size_t length = 0;
    if (!format::ReadLength(stream, &length)) return false;
    std::string text(length, '\0');
    if (stream->Read(static_cast<void*>(text.data()), length) != length) return false;
    *value = T(std::move(text));
    return true;
  }
};

template <typename A, typename B>
struct Serializer<std::pair<A, B>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::pair<A, B>& value) {
    stream->Write(value.first);
    stream->Write(value.second);
  }

  static bool Read(Stream* stream, std::pair<A, B>* value) {
    return stream->Read(&value->first) && stream->Read(&value->second);
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::vector<T>& value) { format::WriteEach(stream, value); }

  static bool Read(Stream* stream, std::vector<T>* value) {
    value->clear();
    return format::ReadEach<T>(stream, [&](T&& element) { value->push_back(std::move(element)); });
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::Array<T>& value) {
    format::WriteLength(stream, value.size());
    for (T element : value) stream->Write(element);
  }

  static bool Read(Stream* stream, ffi::Array<T>* value) {
    *value = ffi::Array<T>();
    return format::ReadEach<T>(stream, [&](T&& element) { value->push_back(std::move(element)); });
  }
};

template <typename K, typename V>
struct Serializer<std::unordered_map<K, V>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::unordered_map<K, V>& value) {
    format::WriteLength(stream, value.size());
    for (const auto& [key, item] : value) {
      stream->Write(key);
      stream->Write(item);
    }
  }

  static bool Read(Stream* stream, std::unordered_map<K, V>* value) {
    value->clear();
    return format::ReadEach<std::pair<K, V>>(stream, [&](std::pair<K, V>&& entry) { value->insert(std::move(entry)); });
  }
};

template <typename K, typename V>
struct Serializer<ffi::Map<K, V>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::Map<K, V>& value) {
    format::WriteLength(stream, value.size());
    for (const auto& entry : value) {
      stream->Write(entry.first);
      stream->Write(entry.second);
    }
  }

  static bool Read(Stream* stream, ffi::Map<K, V>* value) {
    *value = ffi::Map<K, V>();
    size_t length = 0;
    if (!format::ReadLength(stream, &length)) return false;
    while (length-- > 0) {
      K key = format::Empty<K>();
      V item = format::Empty<V>();
      if (!stream->Read(&key) || !stream->Read(&item)) return false;
      value->Set(std::move(key), std::move(item));
    }
    return true;
  }
};

}  // namespace support
}  // namespace tvm
