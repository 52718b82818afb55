// What a runtime is to a visit: open a file, bind an input, call, read the output.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "trace.h"

namespace finet {

using Shape = std::vector<std::int64_t>;

// What a person can act on. It becomes the reason of an `invalid` record.
struct Problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Output {
  Shape shape;
  std::vector<float> values;
};

// One file, open in its runtime. The process ends without destroying it: there is nothing to save, and a
// runtime's own clean-up must not be able to spoil a visit that is complete.
class Session {
 public:
  virtual ~Session() = default;
  // `data` must stay where it is until the next bind().
  virtual void bind(float* data, const Shape& shape) = 0;
  // The bare call of the runtime on the bound input: this is what is timed. Throws Problem.
  virtual void call() = 0;
  // A copy of what the last call() returned. Throws Problem for anything but fp32.
  virtual Output output() = 0;
  // Profiling is over: the trace that the session was opened with is complete. Throws Problem.
  virtual void finish_trace() {}

  std::string runtime, version;
  int threads = 0;    // effective, read back from the runtime
  Shape input_shape;  // empty when the file does not tell
};

// Opens the file at `path` with `threads` threads; throws Problem. With a trace (not null) the runtime profiles its
// calls into it; `scratch` is then a path prefix for files of the runtime's own.
using OpenSession = Session* (*)(const char* path, int threads, Trace* trace, const char* scratch);

// Loads the library of a format's runtime ("pte", "onnx"). Throws Problem when it is absent or incomplete.
OpenSession import_runtime(const std::string& format);

inline std::string to_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

// A runtime's message: its first line, 200 bytes at most.
inline std::string first_line(std::string text) {
  text.resize(std::min(text.find('\n'), std::min<std::size_t>(text.size(), 200)));
  return text;
}

}  // namespace finet
