/* disk_writer.h - the part of the writer that writes volumes: one thread, one port. */
#ifndef TESTS_CRASH_DISK_WRITER_H
#define TESTS_CRASH_DISK_WRITER_H

#include "tests/crash/writer.h"

/* Everything that had completed, in all threads, before a flush was submitted. */
struct writer_done {
  uint32_t units[LEDGER_UNITS];
  struct disks_done disks;
};
void writer_note_done(const struct ledger *l, struct writer_done *done);
void writer_promise_all(struct ledger *l, const struct writer_done *done);

struct disk_thread;
/* NULL: something failed, and it has said what. It stays until the process ends. */
struct disk_thread *disk_thread_create(const struct writer_options *o, struct ledger *l,
                                       struct sr_store *store, _Atomic bool *stop);
/* Until *stop; sets it when something fails. arg: the thread. */
void *disk_thread_run(void *arg);
bool disk_thread_failed(const struct disk_thread *t);

#endif
