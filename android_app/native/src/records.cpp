#include "records.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "files.h"

namespace finet {
namespace {

constexpr int kRecordVersion = 1;

struct CrashSignal {
  int number;
  const char* name;
  std::string line;  // whole and ready: a handler may not allocate
};

CrashSignal crash_signals[] = {{SIGSEGV, "SIGSEGV", {}},
                               {SIGABRT, "SIGABRT", {}},
                               {SIGBUS, "SIGBUS", {}},
                               {SIGILL, "SIGILL", {}},
                               {SIGFPE, "SIGFPE", {}}};
int crash_fd = -1;
std::string crash_unfinished, crash_path;
alignas(16) char crash_stack[64 << 10];  // a runtime may have used up its own

void on_crash(int number) {
  for (const auto& crash : crash_signals) {
    if (crash.number != number || crash.line.empty()) continue;
    const auto size = static_cast<ssize_t>(crash.line.size());
    const bool written = write(crash_fd, crash.line.data(), crash.line.size()) == size;
    if (written && rename(crash_unfinished.c_str(), crash_path.c_str()) == 0) _exit(1);
  }
  signal(number, SIG_DFL);  // no record can be left: the device tells by the signal
  raise(number);
}

std::string line(const Json& record) {
  return record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";  // what is not UTF-8 is replaced
}

}  // namespace

Records::Records(const std::string& path, std::int64_t visit)
    : path_(path), unfinished_(path + ".unfinished"), visit_(visit) {
  fd_ = open(unfinished_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) throw Problem("cannot write: " + system_error(unfinished_));
  crash_fd = fd_;
  crash_unfinished = unfinished_;
  crash_path = path_;
}

Json Records::record(const char* type, const Json& fields) const {
  Json whole = {{"type", type}, {"schema_version", kRecordVersion}, {"visit", visit_}};
  whole.update(fields);
  return whole;
}

void Records::write(const char* type, const Json& fields) {
  const std::string data = line(record(type, fields));
  for (std::size_t done = 0; done < data.size();) {
    const ssize_t put = ::write(fd_, data.data() + done, data.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw Problem("cannot write: " + system_error(unfinished_));
    done += static_cast<std::size_t>(put);
  }
}

void Records::finish() {
  if (close(fd_) != 0 || std::rename(unfinished_.c_str(), path_.c_str()) != 0) {
    throw Problem("cannot write: " + system_error(path_));
  }
}

void Records::enter(const char* phase) {
  phase_ = phase;
  for (auto& crash : crash_signals) {
    const std::string reason = std::string("the runtime crashed (") + crash.name +
                               "); the file may be damaged: export the bundle again";
    crash.line = line(record("invalid", invalid_fields(reason, phase, crash.name)));
  }
}

Json invalid_fields(const std::string& reason, const char* phase, const char* signal) {
  return {{"reason", reason},
          {"phase", phase},
          {"exit_status", nullptr},
          {"signal", signal == nullptr ? Json(nullptr) : Json(signal)},
          {"stderr_tail", ""}};
}

void install_crash_handlers() {
  stack_t stack{};
  stack.ss_sp = crash_stack;
  stack.ss_size = sizeof crash_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_handler = on_crash;
  action.sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER;
  for (const auto& crash : crash_signals) sigaction(crash.number, &action, nullptr);
}

}  // namespace finet
