// Typed access to parsed JSON; each failure names the thing it is about.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "json.h"
#include "message.h"

namespace cosparse {

template <class T> const T& expect(const Json& json, const std::string& about, const std::string& want) {
  if (const T* value = json.as<T>()) return *value;
  refuse(about, want, json.describe());
}

inline const Json* find(const Json::Object& object, const std::string& key) {
  for (const Member& member : object) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

// The object has these fields and no other. `thing` is their noun: "field", "attribute".
inline void expect_fields(const Json::Object& object, const std::vector<std::string>& fields, const std::string& about,
                          const std::string& thing = "field") {
  for (const std::string& field : fields) {
    if (!find(object, field)) refuse(about, "the " + thing + " " + quoted(field), "none");
  }
  for (const Member& member : object) {
    if (std::find(fields.begin(), fields.end(), member.key) == fields.end()) {
      const std::string known = fields.empty() ? "" : " but " + joined(fields);
      refuse(about, "no " + thing + known, quoted(member.key), "was the file written by a newer version?");
    }
  }
}

// A name of at most `longest` bytes without control characters.
void expect_name(const std::string& name, const std::string& about, size_t longest);

}  // namespace cosparse
