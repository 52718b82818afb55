// The part of ONNX Runtime's C API that the runner calls. The wheel carries no header.
//
// `OrtApi` is a table of functions to which releases only append: "the ordering of these fields must not change
// after that version has shipped". So a slot's number is part of the ABI, and what is not called is a gap here.
// Names, order and types follow ONNX Runtime's documented C API (MIT licence), version 7 (release 1.7) of it.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtMemoryInfo;
struct OrtAllocator;

using OrtResult = OrtStatus*;  // null: success
using OrtUnused = void (*)();

enum : int {
  ORT_ELEMENT_FLOAT = 1,        // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
  ORT_LOG_ERRORS = 3,           // ORT_LOGGING_LEVEL_ERROR
  ORT_EXECUTE_SEQUENTIALLY = 0, // ORT_SEQUENTIAL
  ORT_ALL_OPTIMIZATIONS = 99,   // ORT_ENABLE_ALL
  ORT_ARENA = 1,                // OrtArenaAllocator
  ORT_MEMORY_DEFAULT = 0,       // OrtMemTypeDefault
};

constexpr std::uint32_t ORT_API_USED = 7;

struct OrtApi {
  OrtUnused gap0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);                                   // slot 2
  OrtResult (*CreateEnv)(int log_level, const char* id, OrtEnv**);                    // 3
  OrtUnused gap4[2];
  OrtResult (*DisableTelemetryEvents)(const OrtEnv*);                                 // 6
  OrtResult (*CreateSession)(const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**);  // 7
  OrtUnused gap8[1];
  OrtResult (*Run)(OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const*,
                   std::size_t, const char* const* output_names, std::size_t, OrtValue**);  // 9
  OrtResult (*CreateSessionOptions)(OrtSessionOptions**);                             // 10
  OrtUnused gap11[2];
  OrtResult (*SetSessionExecutionMode)(OrtSessionOptions*, int);                      // 13
  OrtResult (*EnableProfiling)(OrtSessionOptions*, const char* file_prefix);          // 14
  OrtUnused gap15[7];
  OrtResult (*SetSessionLogSeverityLevel)(OrtSessionOptions*, int);                   // 22
  OrtResult (*SetSessionGraphOptimizationLevel)(OrtSessionOptions*, int);             // 23
  OrtResult (*SetIntraOpNumThreads)(OrtSessionOptions*, int);                         // 24
  OrtResult (*SetInterOpNumThreads)(OrtSessionOptions*, int);                         // 25
  OrtUnused gap26[4];
  OrtResult (*SessionGetInputCount)(const OrtSession*, std::size_t*);                 // 30
  OrtResult (*SessionGetOutputCount)(const OrtSession*, std::size_t*);                // 31
  OrtUnused gap32[1];
  OrtResult (*SessionGetInputTypeInfo)(const OrtSession*, std::size_t, OrtTypeInfo**);  // 33
  OrtUnused gap34[2];
  OrtResult (*SessionGetInputName)(const OrtSession*, std::size_t, OrtAllocator*, char**);   // 36
  OrtResult (*SessionGetOutputName)(const OrtSession*, std::size_t, OrtAllocator*, char**);  // 37
  OrtUnused gap38[11];
  OrtResult (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void*, std::size_t bytes,
                                              const std::int64_t* shape, std::size_t, int type,
                                              OrtValue**);                            // 49
  OrtResult (*IsTensor)(const OrtValue*, int*);                                       // 50
  OrtResult (*GetTensorMutableData)(OrtValue*, void**);                               // 51
  OrtUnused gap52[3];
  OrtResult (*CastTypeInfoToTensorInfo)(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**);  // 55
  OrtUnused gap56[4];
  OrtResult (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo*, int*);          // 60
  OrtResult (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, std::size_t*);    // 61
  OrtResult (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, std::int64_t*, std::size_t);  // 62
  OrtUnused gap63[1];
  OrtResult (*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo*, std::size_t*);   // 64
  OrtResult (*GetTensorTypeAndShape)(const OrtValue*, OrtTensorTypeAndShapeInfo**);   // 65
  OrtUnused gap66[3];
  OrtResult (*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo**);       // 69
  OrtUnused gap70[8];
  OrtResult (*GetAllocatorWithDefaultOptions)(OrtAllocator**);                        // 78
  OrtUnused gap79[14];
  void (*ReleaseStatus)(OrtStatus*);                                                  // 93
  OrtUnused gap94[2];
  void (*ReleaseValue)(OrtValue*);                                                    // 96
  OrtUnused gap97[2];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);                  // 99
  OrtUnused gap100[10];
  OrtResult (*SessionEndProfiling)(OrtSession*, OrtAllocator*, char** file);          // 110
  OrtUnused gap111[19];
  OrtResult (*AddSessionConfigEntry)(OrtSessionOptions*, const char* key, const char* value);  // 130
  OrtUnused gap131[15];
  OrtResult (*SessionGetProfilingStartTimeNs)(const OrtSession*, std::uint64_t*);     // 146
};

#define ORT_SLOT(name, number) static_assert(offsetof(OrtApi, name) == (number) * sizeof(void*), #name)
ORT_SLOT(GetErrorMessage, 2);
ORT_SLOT(Run, 9);
ORT_SLOT(SetSessionLogSeverityLevel, 22);
ORT_SLOT(SessionGetInputTypeInfo, 33);
ORT_SLOT(CreateTensorWithDataAsOrtValue, 49);
ORT_SLOT(GetTensorTypeAndShape, 65);
ORT_SLOT(CreateCpuMemoryInfo, 69);
ORT_SLOT(GetAllocatorWithDefaultOptions, 78);
ORT_SLOT(ReleaseValue, 96);
ORT_SLOT(SessionEndProfiling, 110);
ORT_SLOT(AddSessionConfigEntry, 130);
ORT_SLOT(SessionGetProfilingStartTimeNs, 146);
#undef ORT_SLOT

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

}  // extern "C"
