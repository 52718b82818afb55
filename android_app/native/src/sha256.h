#pragma once

#include <string>

namespace finet {

// Hex SHA-256 (FIPS 180-4) of a file; throws Problem when it cannot be read.
std::string sha256_file(const std::string& path);

}  // namespace finet
