/* writer.h - a writer that lives until it is killed, and notes in a ledger what it asks for and
 * what it is promised. */
#ifndef TESTS_CRASH_WRITER_H
#define TESTS_CRASH_WRITER_H

#include "tests/crash/ledger.h"

struct writer_options {
  const char *where, *engine;
  uint32_t cores;
  uint64_t seed; /* of what is written; contents come from the ledger's own */
  /* Takes a put, a write to a volume, for durable before it is: a bug that must be found. */
  bool promise_early, promise_early_disks;
  uint32_t seconds; /* 0: for ever */
};

/* Opens the store and writes with LEDGER_THREADS threads. Returns when the time is over, without
 * closing the store, or when something failed that must not fail: then it has said so, and returns
 * false. */
bool writer_run(const struct writer_options *o, struct ledger *l);

#endif
