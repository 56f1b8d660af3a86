// Words for error texts. Whatever comes from a file passes through quoted(), so that a hostile name cannot flood or garble a log.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace cosparse {

std::string quoted(std::string_view text);                  // 'text': control characters escaped, cut after 80 bytes
std::string text_of(const std::vector<int64_t>& numbers);   // [1, 2, 3]
std::string text_of(double number);                         // 0.5, 6.0, 1e+39
std::string joined(const std::vector<std::string>& words);  // a, b, c

[[noreturn]] void refuse(const std::string& about, const std::string& want, const std::string& have, const std::string& next = "");

}  // namespace cosparse
