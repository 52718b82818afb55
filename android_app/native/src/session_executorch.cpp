// ExecuTorch with XNNPACK. Built as a library of its own, opened only when a visit needs it: an ONNX Runtime
// visit holds nothing of ExecuTorch, and an absent library is a message instead of a process that cannot start.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr_maker.h>
#include <executorch/runtime/platform/runtime.h>

#include <memory>

#include "session.h"
#include "tracer_executorch.h"

// libexecutorch_threadpool.so exports these; the wheel has no header for them.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace finet {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Program;

const std::string kForward = "forward";

[[noreturn]] void refuse(const char* what, Error error) {
  throw Problem(std::string("executorch cannot ") + what + " this file: " +
                executorch::runtime::to_string(error) + " (error " +
                std::to_string(static_cast<int>(error)) +
                "); it is damaged, or made for another version: export the bundle again");
}

// XNNPACK takes the pool when it compiles a delegate: the count must be right before the file is loaded.
int set_threads(int wanted) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) {
    throw Problem(
        "executorch has no thread pool: it could not read /proc/cpuinfo or "
        "/sys/devices/system/cpu/{possible,present}; make them readable");
  }
  if (pool->get_thread_count() != static_cast<std::size_t>(wanted)) {
    pool->_unsafe_reset_threadpool(static_cast<std::uint32_t>(wanted));
  }
  return static_cast<int>(pool->get_thread_count());
}

class ExecutorchSession final : public Session {
 public:
  ExecutorchSession(const char* path, int wanted_threads, Trace* trace)
      : module_(path, Module::LoadMode::MmapUseMlockIgnoreErrors,
                trace == nullptr ? nullptr : std::make_unique<Tracer>(*trace)) {
    runtime = "executorch";
    version = FINET_EXECUTORCH_VERSION;
    threads = set_threads(wanted_threads);
    // Verified as far as the format allows; XNNPACK's payload is not.
    const Error loaded = module_.load(Program::Verification::InternalConsistency);
    if (loaded != Error::Ok) refuse("load", loaded);
    read_signature();
    const Error ready = module_.load_method(kForward);
    if (ready != Error::Ok) refuse("load", ready);
  }

  void bind(float* data, const Shape& shape) override {
    input_ = executorch::extension::from_blob(
        data, std::vector<executorch::aten::SizesType>(shape.begin(), shape.end()), ScalarType::Float);
    arguments_ = {EValue(*input_)};
  }

  void call() override {
    auto result = module_.execute(kForward, arguments_);
    if (!result.ok()) refuse("run", result.error());
    outputs_ = std::move(*result);
  }

  Output output() override {
    if (outputs_.size() != 1 || !outputs_[0].isTensor()) throw Problem("its program does not give one tensor");
    const auto& tensor = outputs_[0].toTensor();
    if (tensor.scalar_type() != ScalarType::Float) throw Problem("its output is not fp32");
    const float* data = tensor.const_data_ptr<float>();
    return {Shape(tensor.sizes().begin(), tensor.sizes().end()),
            std::vector<float>(data, data + tensor.numel())};
  }

 private:
  void read_signature() {
    const auto meta = module_.method_meta(kForward);
    if (!meta.ok()) refuse("load", meta.error());
    if (meta->num_inputs() == 1 && meta->num_outputs() == 1) {
      const auto input = meta->input_tensor_meta(0);
      if (input.ok() && input->scalar_type() == ScalarType::Float) {
        input_shape.assign(input->sizes().begin(), input->sizes().end());
        return;
      }
    }
    throw Problem("its program does not take one fp32 tensor and give one tensor; export the bundle again");
  }

  Module module_;
  TensorPtr input_;
  std::vector<EValue> arguments_, outputs_;
};

}  // namespace
}  // namespace finet

extern "C" __attribute__((visibility("default"))) finet::Session* finet_open_executorch(
    const char* path, int threads, finet::Trace* trace, const char*) {
  executorch::runtime::runtime_init();
  return new finet::ExecutorchSession(path, threads, trace);
}
