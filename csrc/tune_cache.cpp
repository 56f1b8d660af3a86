#include "tune_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "error.h"
#include "json.h"

namespace cosparse {

namespace {

// Raised whenever a kernel's speed or the meaning of a choice changes: older measurements are then of other kernels.
constexpr const char* kKernels = "15";
constexpr int64_t kCacheFormat = 1;
constexpr std::streamoff kMostBytes = 16 << 20;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string folder() {
  if (std::getenv("COSPARSE_CACHE")) return variable("COSPARSE_CACHE");
  if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) return xdg + "/cosparse";
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/cosparse";
}

bool make_folders(const std::string& path) {
  for (size_t at = 1; at != std::string::npos; ++at) {
    at = path.find('/', at);
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), 0777) != 0 && errno != EEXIST) return false;
    if (at == std::string::npos) break;
  }
  return true;
}

std::string quoted_json(const std::string& text) {
  std::string out = "\"";
  for (const char c : text)
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if ((unsigned char)c >= 0x20)
      out += c;
  return out + "\"";
}

const Json* member(const Json& object, const char* key) {
  if (const auto* members = object.as<Json::Object>())
    for (const Member& m : *members)
      if (m.key == key) return &m.value;
  return nullptr;
}

// A reference: the copy of a variant that runs out of memory is undefined in libstdc++ 12 where its types are never valueless.
template <class T> const T& wanted(const Json& object, const char* key) {
  const Json* value = member(object, key);
  const T* found = value ? value->as<T>() : nullptr;
  if (!found) throw Error(Fault::usage, "tuning cache", std::string("a ") + key, "none", "");
  return *found;
}

Form form_of(const std::string& name) {
  for (const Form form : kForms)
    if (name == name_of(form)) return form;
  throw Error(Fault::usage, "tuning cache", "a form", name, "");
}

Measured measured_of(const Json& layer) {
  Measured m;
  m.form = form_of(wanted<std::string>(layer, "form"));
  const int64_t tile = wanted<int64_t>(layer, "tile");
  if (tile < 0 || tile > 64) throw Error(Fault::usage, "tuning cache", "a tile", std::to_string(tile), "");
  m.tile = (int)tile;
  const Json::Object& times = wanted<Json::Object>(layer, "us");
  for (const Member& t : times) {
    const size_t slash = t.key.find('/');
    const double* us = t.value.as<double>();
    if (slash == std::string::npos || !us) throw Error(Fault::usage, "tuning cache", "FORM/TILE: microseconds", t.key, "");
    m.timings.push_back({form_of(t.key.substr(0, slash)), std::atoi(t.key.c_str() + slash + 1), *us});
  }
  return m;
}

BatchTimes batch_times_of(const Json& batch) {
  const BatchTimes times{wanted<double>(batch, "apart"), wanted<double>(batch, "together")};
  if (!(times.apart > 0 && times.together > 0)) throw Error(Fault::usage, "tuning cache", "microseconds", "0 or less", "");
  return times;
}

std::string microseconds(double us) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", us);
  return text;
}

}  // namespace

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0)
      if (const size_t colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return "unknown";
}

TuneCache::TuneCache(const Options& options) : options_(options) {
  const std::string base = folder();
  if (base.empty()) return;
  std::string name = cpu_name() + "-" + name_of(options.isa) + "-" + std::to_string(options.threads) + "-" + name_of(options.number);
  for (char& c : name) c = std::isalnum((unsigned char)c) ? c : c == '_' ? '_' : '-';
  path_ = base + "/" + name + ".json";
  try {
    load();
  } catch (const Error& error) {
    layers_.clear(), batches_.clear();
    warning_ = "tuning cache " + path_ + " is ignored (" + error.what() + ") and will be written anew";
  }
}

void TuneCache::load() {
  std::error_code unknown;
  const auto kind = std::filesystem::status(path_, unknown);
  if (!std::filesystem::exists(kind)) return;
  if (!std::filesystem::is_regular_file(kind))
    throw Error(Fault::usage, "file", "a regular file", "another kind", "");  // a pipe would wait
  std::ifstream file(path_, std::ios::binary | std::ios::ate);
  if (!file) return;
  if (file.tellg() > kMostBytes) throw Error(Fault::usage, "file", "at most 16 MiB", std::to_string(file.tellg()) + " bytes", "");
  file.seekg(0);
  std::stringstream content;
  content << file.rdbuf();
  const Json root = parse_json(content.str(), "file");
  if (wanted<int64_t>(root, "format") != kCacheFormat) throw Error(Fault::usage, "format", "1", "another", "");
  if (wanted<std::string>(root, "kernels") != kKernels)
    throw Error(Fault::usage, "kernels", kKernels, wanted<std::string>(root, "kernels"), "");
  if (wanted<std::string>(root, "cpu") != cpu_name() || wanted<std::string>(root, "isa") != name_of(options_.isa) ||
      wanted<int64_t>(root, "threads") != options_.threads || wanted<std::string>(root, "dtype") != name_of(options_.number))
    throw Error(Fault::usage, "machine", "this one", "another processor, instruction set, dtype or number of threads", "");
  const Json::Object& layers = wanted<Json::Object>(root, "layers");
  for (const Member& layer : layers) layers_.emplace(layer.key, measured_of(layer.value));
  if (!member(root, "batches")) return;  // a file from before there were any
  for (const Member& batch : wanted<Json::Object>(root, "batches")) batches_.emplace(batch.key, batch_times_of(batch.value));
}

const Measured* TuneCache::find(const std::string& signature) const {
  const auto at = layers_.find(signature);
  return at == layers_.end() ? nullptr : &at->second;
}

const BatchTimes* TuneCache::find_batch(const std::string& signature) const {
  const auto at = batches_.find(signature);
  return at == batches_.end() ? nullptr : &at->second;
}

std::string TuneCache::text() const {
  std::ostringstream out;
  out << "{\"format\": " << kCacheFormat << ", \"kernels\": \"" << kKernels << "\", \"cpu\": " << quoted_json(cpu_name()) << ", \"isa\": \""
      << name_of(options_.isa) << "\", \"threads\": " << options_.threads << ", \"dtype\": \"" << name_of(options_.number)
      << "\",\n \"layers\": {";
  const char* between = "\n";
  for (const auto& [key, m] : layers_) {
    out << between << "  " << quoted_json(key) << ": {\"form\": \"" << name_of(m.form) << "\", \"tile\": " << m.tile << ", \"us\": {";
    for (size_t i = 0; i < m.timings.size(); ++i)
      out << (i ? ", " : "") << "\"" << name_of(m.timings[i].form) << "/" << m.timings[i].tile << "\": " << microseconds(m.timings[i].us);
    out << "}}", between = ",\n";
  }
  out << "\n },\n \"batches\": {", between = "\n";
  for (const auto& [key, times] : batches_) {
    out << between << "  " << quoted_json(key) << ": {\"apart\": " << microseconds(times.apart)
        << ", \"together\": " << microseconds(times.together) << "}",
        between = ",\n";
  }
  out << "\n }}\n";
  return out.str();
}

int TuneCache::keep(Found found) {
  int kept = 0;
  for (auto& [signature, timings] : found)
    if (!find(signature)) put(signature, best_of(std::move(timings))), ++kept;
  save();
  return kept;
}

void TuneCache::save() {
  if (!changed_ || path_.empty()) return;
  const auto own = layers_;
  const auto own_batches = batches_;
  try {
    load();
  } catch (const Error&) {  // damaged or of other kernels: what we have replaces it
  }
  for (const auto& [key, m] : own) layers_[key] = m;
  for (const auto& [key, times] : own_batches) batches_[key] = times;
  static std::atomic<unsigned> saves{0};  // engines that load side by side write files of their own, in containers that share a folder too
  const std::string own_name = std::to_string(getpid()) + "." + std::to_string(saves++) + "." + std::to_string(std::random_device()());
  const std::string beside = path_ + "." + own_name + ".tmp", content = text();
  bool written = make_folders(path_.substr(0, path_.rfind('/')));
  if (std::FILE* file = written ? std::fopen(beside.c_str(), "wbx") : nullptr) {
    written = std::fwrite(content.data(), 1, content.size(), file) == content.size() && std::fflush(file) == 0 && fsync(fileno(file)) == 0;
    written = std::fclose(file) == 0 && written && std::rename(beside.c_str(), path_.c_str()) == 0;
    if (!written) std::remove(beside.c_str());
  } else {
    written = false;
  }
  if (!written) warning_ = "tuning cache " + path_ + " could not be written; the next load measures again";
  changed_ = false;
}

}  // namespace cosparse
