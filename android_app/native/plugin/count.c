// A plugin for qemu-aarch64: counts the guest's instructions by class between pairs of marks.
//
// A mark is the word 0xd50326bf, `hint #0x35`, which no core reacts to; the runner executes it around each timed
// inference when it was given --mark. Argument: out=FILE, which gets `{"sections": [{"fma": N, ...}, ...]}`. A tick is
// `hint #0x36`, which a clock of the runner's executes at each reading; with ticks=1, `"ticks"` has what was counted
// until each of them, one list of the classes' counts for each.
// Counters are not atomic: the guest must have one thread at work.
//
// No package has QEMU's plugin header: what is used of its API (version 1, QEMU 4.2 to 8.2) is declared here.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classify.h"

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;

enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0, QEMU_PLUGIN_CB_NO_REGS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t added);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

enum { MARK = (int)0xd50326bf, TICK = (int)0xd50326df, MAX_MARKS = 4096, MAX_TICKS = 1 << 16 };

static uint64_t counters[CLASS_COUNT];
static uint64_t snapshots[MAX_MARKS][CLASS_COUNT];
static unsigned marks;
static uint64_t (*ticks)[CLASS_COUNT];
static unsigned tick_count;
static const char *out_path;

static void on_mark(unsigned vcpu, void *data) {
  (void)vcpu, (void)data;
  if (marks < MAX_MARKS) memcpy(snapshots[marks], counters, sizeof counters);
  ++marks;
}

static void on_tick(unsigned vcpu, void *data) {
  (void)vcpu, (void)data;
  if (tick_count < MAX_TICKS) memcpy(ticks[tick_count], counters, sizeof counters);
  ++tick_count;
}

// A block adds what is in it when it is entered.
static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  uint64_t found[CLASS_COUNT] = {0};
  const size_t count = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
    ++found[classify(word)];
    if ((int)word == MARK) qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
    if (ticks != NULL && (int)word == TICK) {
      qemu_plugin_register_vcpu_insn_exec_cb(insn, on_tick, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
  }
  for (int c = 0; c < CLASS_COUNT; ++c) {
    if (found[c]) qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counters[c], found[c]);
  }
}

static void on_exit_(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  FILE *out = fopen(out_path, "w");
  if (out == NULL) return;  // the caller finds no file
  fprintf(out, "{\"marks\": %u, \"sections\": [", marks);
  const unsigned kept = marks < MAX_MARKS ? marks : MAX_MARKS;
  for (unsigned m = 0; m + 1 < kept; m += 2) {
    for (int c = 0; c < CLASS_COUNT; ++c) {
      fprintf(out, "%s\"%s\": %" PRIu64, c ? ", " : m ? ", {" : "{", class_names[c],
              snapshots[m + 1][c] - snapshots[m][c]);
    }
    fputs("}", out);
  }
  fputs("]", out);
  if (ticks != NULL) {
    fprintf(out, ", \"tick_count\": %u, \"ticks\": [", tick_count);
    const unsigned taken = tick_count < MAX_TICKS ? tick_count : MAX_TICKS;
    for (unsigned t = 0; t < taken; ++t) {
      for (int c = 0; c < CLASS_COUNT; ++c) {
        fprintf(out, "%s%" PRIu64, c ? ", " : t ? "], [" : "[", ticks[t][c]);
      }
    }
    fputs(taken ? "]]" : "]", out);
  }
  fputs("}\n", out);
  fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "out=", 4) == 0) out_path = strdup(argv[i] + 4);
    if (strcmp(argv[i], "ticks=1") == 0) ticks = calloc(MAX_TICKS, sizeof *ticks);
  }
  if (out_path == NULL) {
    fputs("count: give out=FILE\n", stderr);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
  return 0;
}
