// The records of one visit: lines under a temporary name, renamed when the last one is written; and a last line
// for the case that the runtime ends the process.
#pragma once

#include <string>

#include "probes.h"

namespace finet {

class Records {
 public:
  // Opens `path` + ".unfinished"; throws Problem.
  Records(const std::string& path, std::int64_t visit);

  // A record of this visit, on the disk when this returns. `fields` come after type, schema_version and visit.
  void write(const char* type, const Json& fields);
  // The last record was written: the file gets its name.
  void finish();

  // Names the phase that an `invalid` record tells; from here on, also that of a crash (SIGSEGV, SIGABRT, ...).
  void enter(const char* phase);
  const char* phase() const { return phase_; }

 private:
  Json record(const char* type, const Json& fields) const;

  std::string path_, unfinished_;
  std::int64_t visit_;
  int fd_;
  const char* phase_ = "start";
};

// The fields of an `invalid` record.
Json invalid_fields(const std::string& reason, const char* phase, const char* signal = nullptr);

// Some damaged files make a runtime crash: the handlers write the line that `enter` prepared, give the records
// their name and exit with status 1.
void install_crash_handlers();

}  // namespace finet
