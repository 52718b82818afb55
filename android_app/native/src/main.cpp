// finet-runner REQUEST.json RECORDS.jsonl [--mark] [--outputs FILE] [--profile FILE [--virtual-clock]]: one visit of a
// benchmark in one process.
// Exit status 0: the records end with `end`; 1: with `invalid`; 2: no request; 3: records cannot be written.

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "roofline.h"
#include "session.h"
#include "visit.h"

namespace {

constexpr char kUsage[] =
    "usage: finet-runner REQUEST.json RECORDS.jsonl [--mark] [--outputs FILE] [--profile FILE [--virtual-clock]]\n"
    "       finet-runner --roofline FILE THREADS\n"
    "       finet-runner --version\n";

enum Status : int { kEnd = 0, kInvalid = 1, kNoRequest = 2, kNoRecords = 3 };

// Written by hand: the process ends by _exit, without the clean-up of a runtime that could still crash.
int say(const std::string& text, Status status) {
  std::fprintf(stderr, "finet-runner: %s\n", text.c_str());
  return status;
}

int visit(const std::string& request_path, const std::string& records_path, const finet::Options& options) {
  finet::Request request;
  try {
    request = finet::read_request(request_path);
  } catch (const std::exception& error) {
    return say(error.what(), kNoRequest);
  }
  try {
    finet::Records records(records_path, request.visit);
    int status = kEnd;
    try {
      finet::run_visit(request, options, records);
    } catch (const std::bad_alloc&) {
      records.write("invalid", finet::invalid_fields("out of memory", records.phase()));
      status = kInvalid;
    } catch (const std::exception& error) {
      records.write("invalid", finet::invalid_fields(std::string(error.what()).substr(0, 2000), records.phase()));
      status = kInvalid;
    }
    records.finish();
    return status;
  } catch (const std::exception& error) {
    return say(error.what(), kNoRecords);
  }
}

int roofline(const std::string& path, const std::string& threads) {
  try {
    finet::write_roofline(path, std::atoi(threads.c_str()));
    return kEnd;
  } catch (const std::exception& error) {
    return say(error.what(), kNoRecords);
  }
}

int run(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--roofline") == 0) return roofline(argv[2], argv[3]);
  std::string paths[2];
  int given = 0;
  finet::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--version") {
      std::printf("%s\n", FINET_RUNNER);
      return kEnd;
    }
    if (argument == "--mark") {
      options.mark = true;
    } else if (argument == "--outputs" && i + 1 < argc) {
      options.outputs_path = argv[++i];
    } else if (argument == "--profile" && i + 1 < argc) {
      options.profile_path = argv[++i];
    } else if (argument == "--virtual-clock") {
      options.virtual_clock = true;
    } else if (given < 2 && !argument.empty() && argument.rfind("--", 0) != 0) {
      paths[given++] = argument;
    } else {
      given = 3;
      break;
    }
  }
  if (given != 2 || (options.virtual_clock && options.profile_path.empty())) {
    std::fputs(kUsage, stderr);
    return kNoRequest;
  }
  // A visit whose bench was killed must not go on and disturb the next one.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  finet::install_crash_handlers();
  return visit(paths[0], paths[1], options);
}

}  // namespace

int main(int argc, char** argv) {
  const int status = run(argc, argv);
  std::fflush(stdout);
  std::fflush(stderr);
  _exit(status);
}
