/* look.h - opens a store after a crash and holds all of it against a ledger. */
#ifndef TESTS_CRASH_LOOK_H
#define TESTS_CRASH_LOOK_H

#include "tests/crash/ledger.h"

struct found {
  uint32_t units[LEDGER_UNITS]; /* which version */
  struct found_disk disks[DISKS];
};

struct look {
  const char *engine;
  uint32_t cores;
  bool read_only;
  bool scrub; /* every byte that counts is read and verified, too */
  bool quiet; /* findings are expected: do not print them */
  /* After a power cut. Sectors of a block that is overwritten in place may be of several versions;
   * what had been asked for by then only a later record knows (NULL: the ledger itself). */
  bool torn_sectors;
  const struct disks *later;
  /* Results. */
  uint64_t findings, blobs, bytes, disks;
  uint64_t torn;       /* blocks with sectors of several versions */
  uint64_t unpromised; /* units found at a version that nobody had promised: the crash was close */
  uint64_t lost; /* units that an unpromised version is missing of: it had something to lose */
};

/* Opens the store, lists it, reads every blob and every volume; each unit must be at one version
 * that the ledger allows, nothing else may be there. Prints every finding to stderr, and counts it.
 * Changes the ledger only by ledger_accept(), which notes in it what was found. Returns 0, or the
 * error of an open that failed (a finding, too). */
int look_at_store(const char *where, struct ledger *l, struct look *look, struct found *found);

/* The same with a store that is open already; closes it. look's engine, cores and read_only do not
 * matter. */
int look_at_open_store(struct sr_store *store, struct ledger *l, struct look *look,
                       struct found *found);
/* For an open that is made elsewhere: takes errors of the log for findings. arg: struct look. */
void look_on_log(void *arg, enum sr_log_level level, const char *line);
void look_on_open_error(struct look *look, int error);

/* From now on *found is what the next look starts from. */
void ledger_accept(struct ledger *l, const struct found *found);

/* Of the look itself. */
void look_find(struct look *look, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* All volumes: states and contents. */
void look_at_disks(struct look *look, const struct ledger *l, struct sr_port *port,
                   struct found_disk found[DISKS]);

#endif
