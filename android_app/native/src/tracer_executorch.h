// ExecuTorch's own events (the hooks that ETDump hangs on, too), kept as spans.
#pragma once

#include <executorch/runtime/core/event_tracer.h>

#include <chrono>

#include "trace.h"

namespace finet {

class Tracer final : public executorch::runtime::EventTracer {
  using Entry = executorch::runtime::EventTracerEntry;
  using ChainID = executorch::runtime::ChainID;
  using Handle = executorch::runtime::DebugHandle;
  using DelegateId = executorch::runtime::DelegateDebugIntId;
  using Tensor = executorch::aten::Tensor;
  using EValue = executorch::runtime::EValue;
  template <class T>
  using Result = executorch::runtime::Result<T>;

 public:
  explicit Tracer(Trace& trace) : trace_(trace) {}

  Entry start_profiling(const char* name, ChainID, Handle) override {
    return begin(trace_.kind(name, false, instruction()));
  }
  void end_profiling(Entry entry) override { end(entry); }
  Entry start_profiling_delegate(const char* name, DelegateId) override {
    return begin(trace_.kind(name == nullptr ? "" : name, true, instruction()));
  }
  void end_profiling_delegate(Entry entry, const void*, std::size_t) override { end(entry); }
  // XNNPACK tells its operators after the last one has run.
  void log_profiling_delegate(const char* name, DelegateId, et_timestamp_t start, et_timestamp_t stop, const void*,
                              std::size_t) override {
    const auto kind = trace_.kind(name == nullptr ? "" : name, true, instruction());
    trace_.spans.push_back({kind, static_cast<std::int64_t>(start), static_cast<std::int64_t>(stop)});
  }

  void create_event_block(const char*) override {}
  void track_allocation(executorch::runtime::AllocatorID, std::size_t) override {}
  executorch::runtime::AllocatorID track_allocator(const char*) override { return 0; }
  Result<bool> log_evalue(const EValue&, executorch::runtime::LoggedEValueType) override { return false; }
  void set_delegation_intermediate_output_filter(executorch::runtime::EventTracerFilterBase*) override {}
  Result<bool> log_intermediate_output_delegate(const char*, DelegateId, const Tensor&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateId,
                                                const executorch::runtime::ArrayRef<Tensor>) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateId, const int&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateId, const bool&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateId, const double&) override { return false; }

 private:
  // The method says which instruction it is at before it runs it; -1 between two.
  std::int64_t instruction() {
    return current_chain_id() < 0 ? -1 : static_cast<std::int64_t>(current_debug_handle());
  }
  // Not ExecuTorch's ticks: their zero is its own. Those of XNNPACK's operators are such ticks; of them, only the
  // lengths count.
  static std::int64_t now_ns() {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  Entry begin(std::size_t kind) {
    Entry entry{};
    entry.event_id = static_cast<std::int64_t>(kind);
    entry.start_time = static_cast<et_timestamp_t>(now_ns());
    return entry;
  }
  void end(const Entry& entry) {
    const std::int64_t now = now_ns();
    trace_.spans.push_back(
        {static_cast<std::size_t>(entry.event_id), static_cast<std::int64_t>(entry.start_time), now});
  }

  Trace& trace_;
};

}  // namespace finet
