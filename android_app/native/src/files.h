// Files, read with distrust: bounded, errors in words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "session.h"

namespace finet {

// A file open for reading; every error is a Problem that names it.
class File {
 public:
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::uint64_t size() const;
  // Up to `count` bytes from the current place; less only at the end.
  std::size_t read(void* to, std::size_t count);
  // Exactly `count` bytes from `offset`.
  void read_at(std::uint64_t offset, void* to, std::size_t count);

 private:
  std::string path_;
  int fd_;
};

// All of a file that must not be larger than `max_bytes`.
std::string read_bounded(const std::string& path, std::size_t max_bytes);

// `data` under a temporary name, then renamed.
void write_whole(const std::string& path, const std::string& data);

// The system's words for the last error, with the file.
std::string system_error(const std::string& path);

}  // namespace finet
