// The golden inputs and outputs of a bundle (safetensors), and the certificate's measure of an output.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "files.h"

namespace finet {

// An fp32 input, aligned to a cache line: kernels may be faster, and counts steadier, on one than between two.
struct Input {
  Shape shape;
  std::unique_ptr<float, decltype(&std::free)> data{nullptr, &std::free};
};

struct Reference {
  Shape shape;
  std::vector<double> values;
};

class GoldenFile {
 public:
  // Throws Problem for a file that is not safetensors.
  explicit GoldenFile(const std::string& path);
  // Throw Problem when there is no such tensor, or it has another type.
  Input input(const std::string& name);
  Reference output(const std::string& name);
  // Names of all inputs, sorted.
  std::vector<std::string> inputs() const;

 private:
  struct Entry {
    std::string dtype;
    Shape shape;
    std::uint64_t offset, bytes;
  };
  Entry entry(const std::string& key) const;

  std::string path_;
  File file_;
  nlohmann::json header_;
  std::uint64_t data_start_ = 0, data_bytes_ = 0;
};

// `||a - b|| / ||b||` in double, as finet_deploy.verify.compare has it: both divided by their largest magnitude
// first; `||a - b||` where b is all zeros. Nothing where they cannot be compared: another shape, empty, NaN.
std::optional<double> relative_error(const Output& found, const Reference& expected);

}  // namespace finet
