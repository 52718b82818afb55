#include "golden.h"

#include <cmath>
#include <cstring>

namespace finet {
namespace {

constexpr std::uint64_t kMaxHeader = 16u << 20, kMaxTensor = 256u << 20, kMaxRank = 8;

std::uint64_t element_size(const std::string& dtype) { return dtype == "F32" ? 4 : dtype == "F64" ? 8 : 0; }

}  // namespace

GoldenFile::GoldenFile(const std::string& path) : path_(path), file_(path) {
  const std::uint64_t size = file_.size();
  std::uint64_t length = 0;
  const auto damaged = [&](const std::string& found) {
    return Problem("not a safetensors file: " + found + " [" + path_ + "]; export the bundle again");
  };
  if (size < 8) throw damaged("shorter than its header");
  file_.read_at(0, &length, 8);
  if (length > kMaxHeader || length > size - 8) throw damaged("its header is longer than the file");
  std::string text(length, '\0');
  file_.read_at(8, text.data(), length);
  header_ = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header_.is_object()) throw damaged("its header is not a JSON object");
  data_start_ = 8 + length;
  data_bytes_ = size - data_start_;
}

GoldenFile::Entry GoldenFile::entry(const std::string& key) const {
  const auto found = header_.find(key);
  if (found == header_.end()) {
    throw Problem("no golden tensor '" + key + "' [" + path_ + "]; export the bundle again");
  }
  Entry entry;
  std::uint64_t count = 1, end = 0;
  bool good = true;
  try {
    entry.dtype = found->at("dtype").get<std::string>();
    entry.shape = found->at("shape").get<Shape>();
    entry.offset = found->at("data_offsets").at(0).get<std::uint64_t>();
    end = found->at("data_offsets").at(1).get<std::uint64_t>();
  } catch (const nlohmann::json::exception&) {
    good = false;
  }
  good = good && entry.shape.size() <= kMaxRank;
  for (const auto size : entry.shape) {
    good = good && size >= 0 && static_cast<std::uint64_t>(size) <= kMaxTensor;
    count = good ? std::min(count * static_cast<std::uint64_t>(size), kMaxTensor) : 0;
  }
  entry.bytes = count * element_size(entry.dtype);
  good = good && element_size(entry.dtype) != 0 && entry.bytes <= kMaxTensor && entry.offset <= end &&
         end <= data_bytes_ && end - entry.offset == entry.bytes;
  if (!good) throw Problem("golden tensor '" + key + "' is damaged [" + path_ + "]; export the bundle again");
  return entry;
}

Input GoldenFile::input(const std::string& name) {
  const Entry found = entry("input." + name);
  if (found.dtype != "F32") throw Problem("golden input '" + name + "' is not fp32 [" + path_ + "]");
  Input input;
  input.shape = found.shape;
  input.data.reset(static_cast<float*>(std::aligned_alloc(64, (found.bytes + 63) / 64 * 64 + 64)));
  if (!input.data) throw std::bad_alloc();
  file_.read_at(data_start_ + found.offset, input.data.get(), found.bytes);
  return input;
}

Reference GoldenFile::output(const std::string& name) {
  const Entry found = entry("output." + name);
  std::string bytes(found.bytes, '\0');
  file_.read_at(data_start_ + found.offset, bytes.data(), bytes.size());
  Reference reference{found.shape, {}};
  if (found.dtype == "F64") {
    reference.values.resize(bytes.size() / 8);
    std::memcpy(reference.values.data(), bytes.data(), bytes.size());
  } else {
    std::vector<float> values(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    reference.values.assign(values.begin(), values.end());
  }
  return reference;
}

std::vector<std::string> GoldenFile::inputs() const {
  std::vector<std::string> names;
  for (const auto& item : header_.items()) {
    if (item.key().rfind("input.", 0) == 0) names.push_back(item.key().substr(6));
  }
  return names;
}

std::optional<double> relative_error(const Output& found, const Reference& expected) {
  const std::size_t count = expected.values.size();
  if (count == 0 || found.values.size() != count || found.shape != expected.shape) return std::nullopt;
  double scale = 0, largest = 0, reference_scale = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double a = found.values[i], b = expected.values[i];
    if (!std::isfinite(a) || !std::isfinite(b)) return std::nullopt;
    scale = std::max({scale, std::fabs(a), std::fabs(b)});
    reference_scale = std::max(reference_scale, std::fabs(b));
    largest = std::max(largest, std::fabs(a - b));
  }
  if (scale == 0) return 0.0;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double a = found.values[i] / scale, b = expected.values[i] / scale;
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  const double error = reference_scale == 0 ? std::sqrt(difference) * scale : std::sqrt(difference) / std::sqrt(norm);
  return std::isfinite(error) && std::isfinite(largest) ? std::optional(error) : std::nullopt;
}

}  // namespace finet
