// A strict reader of JSON (RFC 8259): UTF-8 checked, no duplicate keys, no trailing data, integers exact in 64 bits.
// Limits that keep a hostile text harmless: depth 32, 2^22 values.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace cosparse {

struct Member;

struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;  // in the order of the text
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value;

  template <class T> const T* as() const { return std::get_if<T>(&value); }
  std::string describe() const;  // "the integer 3", "the string 'a'", "a list of 2", ...
};

struct Member {
  std::string key;
  Json value;
};

// Throws Error(Fault::artifact) about `about`, with the byte at which the text stops being JSON.
Json parse_json(std::string_view text, const std::string& about);

}  // namespace cosparse
