#include "imports.h"

#include <dlfcn.h>

namespace finet {

void* find_symbol(const char* library, const char* symbol) {
  // All symbols now: none may be looked up in the middle of a timed call.
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  void* found = handle == nullptr ? nullptr : dlsym(handle, symbol);
  if (found == nullptr) {
    const char* reason = dlerror();
    throw Problem("cannot load the runtime: " + first_line(reason == nullptr ? library : reason) +
                  "; the runner's folder is incomplete: build or push it again");
  }
  return found;
}

OpenSession import_runtime(const std::string& format) {
  if (format == "onnx") return import_onnxruntime();
  if (format == "pte") {
    return reinterpret_cast<OpenSession>(find_symbol("libfinet_executorch.so", "finet_open_executorch"));
  }
  throw Problem("the native runner has no runtime for '" + first_line(format) +
                "' files; measure executorch and onnxruntime with it");
}

}  // namespace finet
