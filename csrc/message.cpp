#include "message.h"

#include <charconv>

namespace cosparse {

std::string quoted(std::string_view text) {
  constexpr size_t longest = 80;
  size_t end = text.size();
  if (end > longest) {
    end = longest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not within a UTF-8 character
  }
  std::string out = "'";
  for (char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F) {
      out += c;
    } else {
      constexpr char digits[] = "0123456789abcdef";
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return out + (end < text.size() ? "...'" : "'");
}

std::string text_of(const std::vector<int64_t>& numbers) {
  std::string out = "[";
  constexpr size_t kShown = 16;  // a file may have millions
  for (size_t i = 0; i < numbers.size() && i < kShown; ++i) out += (i ? ", " : "") + std::to_string(numbers[i]);
  return out + (numbers.size() > kShown ? ", ...]" : "]");
}

std::string text_of(double number) {
  char text[32];
  const std::string out(text, std::to_chars(text, text + sizeof text, number).ptr);
  return out.find_first_not_of("-0123456789") == std::string::npos ? out + ".0" : out;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i) out += (i ? ", " : "") + words[i];
  return out;
}

void refuse(const std::string& about, const std::string& want, const std::string& have, const std::string& next) {
  throw Error(Fault::artifact, about, want, have, next);
}

}  // namespace cosparse
