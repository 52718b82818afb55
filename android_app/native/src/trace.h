// What a runtime tells about the inside of its calls: spans of time with the names of its operators.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace finet {

// An operator, or a part of the runtime, as the runtime names it.
struct SpanKind {
  std::string name;
  bool in_delegate;          // told by a delegate, not by the runtime itself
  std::int64_t instruction;  // of the program, -1 where there is none
  std::string details;       // JSON of the runtime's own (types, shapes), or empty
};

struct Span {
  std::size_t kind;  // index into `kinds`
  std::int64_t begin, end;
};

// Spans in the order in which they ended, of all calls of a session.
struct Trace {
  std::vector<SpanKind> kinds;
  std::vector<Span> spans;
  std::int64_t unit_ns = 1;    // of the spans' times
  std::int64_t origin_ns = 0;  // what their zero is on the clock of the runtime

  std::size_t kind(const std::string& name, bool in_delegate, std::int64_t instruction) {
    const auto key = std::make_tuple(name, in_delegate, instruction);
    const auto [place, is_new] = known_.emplace(key, kinds.size());
    if (is_new) kinds.push_back({name, in_delegate, instruction, {}});
    return place->second;
  }

 private:
  std::map<std::tuple<std::string, bool, std::int64_t>, std::size_t> known_;
};

}  // namespace finet
