#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace finet {
namespace {

constexpr std::size_t kPiece = 1 << 16;

}  // namespace

std::string system_error(const std::string& path) { return std::string(std::strerror(errno)) + ": " + path; }

File::File(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) throw Problem("cannot read: " + system_error(path_));
}

File::~File() { close(fd_); }

std::uint64_t File::size() const {
  struct stat found {};
  if (fstat(fd_, &found) != 0) throw Problem("cannot read: " + system_error(path_));
  if (!S_ISREG(found.st_mode)) throw Problem("not a file: " + path_);
  return static_cast<std::uint64_t>(found.st_size);
}

std::size_t File::read(void* to, std::size_t count) {
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got = ::read(fd_, static_cast<char*>(to) + done, count - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Problem("cannot read: " + system_error(path_));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void File::read_at(std::uint64_t offset, void* to, std::size_t count) {
  if (lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) throw Problem("cannot read: " + system_error(path_));
  if (read(to, count) != count) throw Problem("the file ends too early: " + path_);
}

std::string read_bounded(const std::string& path, std::size_t max_bytes) {
  File file(path);
  // Piece by piece: a limit is no size, and memory that is only touched counts as used.
  std::string data;
  for (std::size_t count = kPiece; count == kPiece;) {
    const std::size_t before = data.size();
    data.resize(before + kPiece);
    count = file.read(data.data() + before, kPiece);
    data.resize(before + count);
    if (data.size() > max_bytes) {
      throw Problem("file is larger than " + std::to_string(max_bytes) + " bytes: " + path);
    }
  }
  return data;
}

void write_whole(const std::string& path, const std::string& data) {
  const std::string part = path + ".part";
  FILE* file = std::fopen(part.c_str(), "wb");
  if (file == nullptr) throw Problem("cannot write: " + system_error(part));
  const bool written = std::fwrite(data.data(), 1, data.size(), file) == data.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed || std::rename(part.c_str(), path.c_str()) != 0) {
    const std::string reason = system_error(path);
    std::remove(part.c_str());
    throw Problem("cannot write: " + reason);
  }
}

}  // namespace finet
