// ONNX Runtime on its CPU provider. Its library is opened at run time: the symbol `OrtGetApiBase` has another
// version in every release, so a linked runner would refuse all but one of them.

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "files.h"
#include "imports.h"
#include "ort_api.h"
#include "records.h"

namespace finet {
namespace {

constexpr std::size_t kMaxProfile = 256u << 20;

const OrtApiBase* base = nullptr;
const OrtApi* api = nullptr;

void check(OrtResult status, const char* what) {
  if (status == nullptr) return;
  const std::string message = first_line(api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  throw Problem(std::string("onnxruntime cannot ") + what + " this file: " + message +
                "; it is damaged, or made for another version: export the bundle again");
}

// Threads of this process as the kernel counts them; 0 where it does not say.
int process_threads() {
  DIR* folder = opendir("/proc/self/task");
  if (folder == nullptr) return 0;
  int count = 0;
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

class OnnxruntimeSession final : public Session {
 public:
  OnnxruntimeSession(const char* path, int wanted_threads, Trace* trace, const char* scratch) : trace_(trace) {
    runtime = "onnxruntime";
    version = base->GetVersionString();
    OrtEnv* environment = nullptr;
    check(api->CreateEnv(ORT_LOG_ERRORS, "finet", &environment), "start for");
    check(api->DisableTelemetryEvents(environment), "start for");
    OrtSessionOptions* options = make_options(wanted_threads);
    if (trace != nullptr) check(api->EnableProfiling(options, scratch), "profile");
    const int before = process_threads();
    check(api->CreateSession(environment, path, options, &session_), "load");
    const int after = process_threads();
    // The caller's thread works too. What the process really started counts, not what was asked for.
    threads = before > 0 && after > 0 ? 1 + after - before : wanted_threads;
    read_signature();
    if (trace != nullptr) {
      std::uint64_t origin = 0;
      check(api->SessionGetProfilingStartTimeNs(session_, &origin), "profile");
      trace->origin_ns = static_cast<std::int64_t>(origin);
      trace->unit_ns = 1000;
    }
    check(api->CreateCpuMemoryInfo(ORT_ARENA, ORT_MEMORY_DEFAULT, &memory_), "run");
  }

  void bind(float* data, const Shape& shape) override {
    std::size_t bytes = sizeof(float);
    for (const auto size : shape) bytes *= static_cast<std::size_t>(size);
    if (input_ != nullptr) api->ReleaseValue(input_);
    input_ = nullptr;
    check(api->CreateTensorWithDataAsOrtValue(memory_, data, bytes, shape.data(), shape.size(),
                                              ORT_ELEMENT_FLOAT, &input_),
          "run");
  }

  void call() override {
    if (output_ != nullptr) api->ReleaseValue(output_);  // else the runtime would write into the old one
    output_ = nullptr;
    check(api->Run(session_, nullptr, &input_name_, &input_, 1, &output_name_, 1, &output_), "run");
  }

  Output output() override {
    int is_tensor = 0;
    if (output_ != nullptr) check(api->IsTensor(output_, &is_tensor), "run");
    if (!is_tensor) throw Problem("its graph does not give one tensor");
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api->GetTensorTypeAndShape(output_, &info), "run");
    const Output found = read_output(info);
    api->ReleaseTensorTypeAndShapeInfo(info);
    return found;
  }

  // The runtime writes its events into a file of its own: read, and removed.
  void finish_trace() override {
    OrtAllocator* allocator = nullptr;
    char* file = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "profile");
    check(api->SessionEndProfiling(session_, allocator, &file), "profile");
    const std::string text = read_bounded(file, kMaxProfile);
    std::remove(file);
    const Json events = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!events.is_array()) throw Problem("onnxruntime's profile is cut off: make room for temporary files");
    for (const Json& event : events) add_event(event);
  }

 private:
  // Nodes, and the whole run that they are in.
  void add_event(const Json& event) {
    const std::string category = event.value("cat", ""), name = event.value("name", "");
    if (category != "Node" && name != "model_run") return;
    const std::size_t kind = trace_->kind(name, false, -1);
    if (trace_->kinds[kind].details.empty()) trace_->kinds[kind].details = event.value("args", Json::object()).dump();
    const std::int64_t begin = event.at("ts").get<std::int64_t>();
    trace_->spans.push_back({kind, begin, begin + event.at("dur").get<std::int64_t>()});
  }

  static OrtSessionOptions* make_options(int threads) {
    OrtSessionOptions* options = nullptr;
    check(api->CreateSessionOptions(&options), "start for");
    check(api->SetIntraOpNumThreads(options, threads), "start for");
    check(api->SetInterOpNumThreads(options, 1), "start for");
    check(api->SetSessionExecutionMode(options, ORT_EXECUTE_SEQUENTIALLY), "start for");
    check(api->SetSessionGraphOptimizationLevel(options, ORT_ALL_OPTIMIZATIONS), "start for");
    check(api->SetSessionLogSeverityLevel(options, ORT_LOG_ERRORS), "start for");
    // Spinning threads would take the cores from whatever runs beside them.
    check(api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), "start for");
    return options;
  }

  void read_signature() {
    std::size_t inputs = 0, outputs = 0;
    check(api->SessionGetInputCount(session_, &inputs), "load");
    check(api->SessionGetOutputCount(session_, &outputs), "load");
    int type = 0;
    if (inputs == 1 && outputs == 1) {
      OrtTypeInfo* info = nullptr;
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;
      check(api->SessionGetInputTypeInfo(session_, 0, &info), "load");
      check(api->CastTypeInfoToTensorInfo(info, &tensor), "load");
      if (tensor != nullptr) {
        check(api->GetTensorElementType(tensor, &type), "load");
        input_shape = shape_of(tensor);
      }
    }
    if (type != ORT_ELEMENT_FLOAT) {
      throw Problem("its graph does not take one fp32 tensor and give one tensor; export the bundle again");
    }
    if (std::any_of(input_shape.begin(), input_shape.end(), [](auto size) { return size < 1; })) {
      input_shape.clear();  // symbolic sizes
    }
    OrtAllocator* allocator = nullptr;
    char *input = nullptr, *output = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "load");
    check(api->SessionGetInputName(session_, 0, allocator, &input), "load");
    check(api->SessionGetOutputName(session_, 0, allocator, &output), "load");
    input_name_ = input;
    output_name_ = output;
  }

  static Shape shape_of(const OrtTensorTypeAndShapeInfo* info) {
    std::size_t rank = 0;
    check(api->GetDimensionsCount(info, &rank), "run");
    Shape shape(rank);
    check(api->GetDimensions(info, shape.data(), rank), "run");
    return shape;
  }

  Output read_output(const OrtTensorTypeAndShapeInfo* info) {
    int type = 0;
    std::size_t count = 0;
    void* data = nullptr;
    check(api->GetTensorElementType(info, &type), "run");
    if (type != ORT_ELEMENT_FLOAT) throw Problem("its output is not fp32");
    check(api->GetTensorShapeElementCount(info, &count), "run");
    check(api->GetTensorMutableData(output_, &data), "run");
    const float* values = static_cast<const float*>(data);
    return {shape_of(info), std::vector<float>(values, values + count)};
  }

  Trace* trace_;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtValue *input_ = nullptr, *output_ = nullptr;
  const char *input_name_ = nullptr, *output_name_ = nullptr;
};

Session* open_session(const char* path, int threads, Trace* trace, const char* scratch) {
  return new OnnxruntimeSession(path, threads, trace, scratch);
}

}  // namespace

OpenSession import_onnxruntime() {
  // From 1.29 on it sends telemetry, writes a device id and a database below the home folder, starts a thread.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void* symbol = find_symbol("libonnxruntime.so.1", "OrtGetApiBase");
  base = reinterpret_cast<const OrtApiBase* (*)()>(symbol)();
  api = base == nullptr ? nullptr : base->GetApi(ORT_API_USED);
  if (api == nullptr) throw Problem("libonnxruntime.so.1 does not offer the C API; build the runner again");
  return open_session;
}

}  // namespace finet
