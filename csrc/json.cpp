#include "json.h"

#include <algorithm>
#include <charconv>

#include "message.h"

namespace cosparse {
namespace {

constexpr int kDepth = 32;
constexpr int64_t kValues = int64_t{1} << 22;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, uint32_t point) {
  auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xC0 | point >> 6), put(0x80 | (point & 63));
  } else if (point < 0x10000) {
    put(0xE0 | point >> 12), put(0x80 | (point >> 6 & 63)), put(0x80 | (point & 63));
  } else {
    put(0xF0 | point >> 18), put(0x80 | (point >> 12 & 63)), put(0x80 | (point >> 6 & 63)), put(0x80 | (point & 63));
  }
}

// Bytes of the UTF-8 character at the start of `text`, 0 where it is not one (overlong, surrogate, too high, cut off).
size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
  if (length == 0 || length > text.size()) return 0;
  uint32_t point = length == 1 ? lead : lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >> 6 != 2) return 0;
    point = point << 6 | (byte & 63);
  }
  constexpr uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
  return point < lowest[length] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? 0 : length;
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& about) : text_(text), about_(about) {}

  Json document() {
    Json root = value(1);
    skip_space();
    if (at_ < text_.size()) fail("the end of the JSON text");
    return root;
  }

 private:
  std::string_view text_;
  const std::string& about_;
  size_t at_ = 0;
  int64_t values_ = 0;

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  std::string found() const {
    if (at_ >= text_.size()) return "the end of the text";
    const auto byte = static_cast<unsigned char>(text_[at_]);
    return byte < 0x80 ? quoted(text_.substr(at_, 1)) : "the byte " + std::to_string(byte);
  }

  [[noreturn]] void fail(const std::string& want) const { fail(want, found()); }
  [[noreturn]] void fail(const std::string& want, const std::string& have) const {
    refuse(about_, want, have + " at byte " + std::to_string(at_), "the file is damaged or was not written by cosparse");
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  bool accept(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }

  void expect(char c, const char* want) {
    skip_space();
    if (!accept(c)) fail(want);
  }

  Json value(int depth) {
    if (depth > kDepth) fail("JSON at most " + std::to_string(kDepth) + " levels deep", "a deeper one");
    if (++values_ > kValues) fail("at most " + std::to_string(kValues) + " JSON values", "more");
    skip_space();
    switch (peek()) {
      case '{':
        return {object(depth)};
      case '[':
        return {array(depth)};
      case '"':
        return {string()};
      case 't':
        return literal("true", {true});
      case 'f':
        return literal("false", {false});
      case 'n':
        return literal("null", {nullptr});
      default:
        return number();
    }
  }

  Json literal(std::string_view word, Json meaning) {
    if (text_.substr(at_, word.size()) != word) fail("a JSON value");
    at_ += word.size();
    return meaning;
  }

  Json::Array array(int depth) {
    Json::Array items;
    ++at_;  // the bracket
    skip_space();
    if (accept(']')) return items;
    do items.push_back(value(depth + 1));
    while (skip_space(), accept(','));
    expect(']', "',' or ']'");
    return items;
  }

  Json::Object object(int depth) {
    Json::Object members;
    ++at_;  // the brace
    skip_space();
    if (accept('}')) return members;
    do {
      skip_space();
      if (peek() != '"') fail("a key in double quotes");
      std::string key = string();
      expect(':', "':'");
      members.push_back({std::move(key), value(depth + 1)});
    } while (skip_space(), accept(','));
    expect('}', "',' or '}'");
    refuse_duplicates(members);
    return members;
  }

  void refuse_duplicates(const Json::Object& members) const {
    std::vector<std::string_view> keys;
    for (const Member& member : members) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) refuse(about_, "each key once in a JSON object", "the key " + quoted(*twice) + " twice");
  }

  std::string string() {
    std::string out;
    ++at_;  // the opening quote
    while (!accept('"')) {
      if (at_ >= text_.size()) fail("a closing quote");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte < 0x20) fail("no raw control character in a string");
      if (byte == '\\') {
        escape(out);
        continue;
      }
      const size_t length = utf8_length(text_.substr(at_));
      if (length == 0) fail("UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
    return out;
  }

  void escape(std::string& out) {
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    ++at_;  // the backslash
    if (accept('u')) {
      uint32_t point = hex4();
      if (point >= 0xD800 && point < 0xDC00) {  // a pair of surrogates is one character
        const uint32_t low = accept('\\') && accept('u') ? hex4() : 0;
        if (low < 0xDC00 || low > 0xDFFF) fail("a low surrogate after a high one");
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
      } else if (point >= 0xDC00 && point < 0xE000) {
        fail("a high surrogate before a low one");
      }
      append_utf8(out, point);
      return;
    }
    const size_t which = at_ < text_.size() ? letters.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) fail("one of \"\\/bfnrtu after a backslash");
    out += meanings[which];
    ++at_;
  }

  uint32_t hex4() {
    uint32_t point = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) fail("four hexadecimal digits");
      point = point << 4 | static_cast<uint32_t>(digit);
    }
    return point;
  }

  void digits(const char* want) {
    if (!is_digit(peek())) fail(want);
    while (is_digit(peek())) ++at_;
  }

  Json number() {
    const size_t start = at_;
    accept('-');
    if (peek() == '0') {
      ++at_;
      if (is_digit(peek())) fail("no leading zero in a number");
    } else {
      digits("a JSON value");
    }
    bool whole = true;
    if (accept('.')) whole = false, digits("a digit");
    if (accept('e') || accept('E')) {
      whole = false;
      if (!accept('+')) accept('-');
      digits("a digit");
    }
    const std::string_view word = text_.substr(start, at_ - start);
    if (whole) return {convert<int64_t>(word, "an integer of 64 bits")};
    return {convert<double>(word, "a number that a double can hold")};
  }

  template <class T> T convert(std::string_view word, const char* want) const {
    T result{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), result);
    if (error != std::errc() || end != word.data() + word.size()) fail(want, quoted(word));
    return result;
  }
};

}  // namespace

std::string Json::describe() const {
  struct Words {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(int64_t v) const { return "the integer " + std::to_string(v); }
    std::string operator()(double v) const { return "the number " + text_of(v); }
    std::string operator()(const std::string& v) const { return "the string " + quoted(v); }
    std::string operator()(const Array& v) const { return "a list of " + std::to_string(v.size()); }
    std::string operator()(const Object& v) const { return "an object of " + std::to_string(v.size()); }
  };
  return std::visit(Words{}, value);
}

Json parse_json(std::string_view text, const std::string& about) { return Parser(text, about).document(); }

}  // namespace cosparse
