// Runtimes are libraries that are opened when a visit needs them.
#pragma once

#include "session.h"

namespace finet {

// Opens `library` from the runner's own folder and finds `symbol` in it; throws Problem with the loader's words.
void* find_symbol(const char* library, const char* symbol);

OpenSession import_onnxruntime();

}  // namespace finet
