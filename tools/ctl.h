/* ctl.h - shard-ctl's parts and what they share. One thread.
 *
 *   ctl_main.c    the command line
 *   ctl_store.c   format, info, stats, flush, vacuum, grow, leftovers
 *   ctl_blob.c    ls, put, get, rm, stat
 *   ctl_check.c   check; ctl_check_volumes.c: volumes
 *   ctl_damage.c  what the library says is damaged
 *   ctl_salvage.c salvage; ctl_salvage_volumes.c: volumes
 *   ctl_volume.c  volume ...: the options, and what looks at volumes
 *   ctl_volume_change.c  volume create to flatten
 *   ctl_volume_limit.c   volume limit
 *   ctl_volume_export.c, ctl_volume_import.c  with volume_copy.h and volume_stream.h
 *   ctl_host.c    host ...: asks a running shard-host
 */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

#include "api/shardring.h"
#include "api/control/json.h"

struct ctl_volume_options {
  bool size_given, striped, shard_given, raw, stream, onto, everything, unlimited, no_group;
  int block;     /* place in "512|4096" */
  int integrity; /* enum sr_integrity */
  uint64_t size_bytes, stripe_bytes, shard;
  uint64_t iops, iops_burst, bps, bps_burst, refill_ms; /* 0: not given */
  const char *since, *base, *group;
};

struct ctl_options {
  const char *store;    /* WHERE */
  const char *words[2]; /* what follows: the id, the file */
  int word_count;
  bool json, damaged, scrub, files, force, durable, if_absent, no_checksum, checksums, help,
      offset_given, bytes_given;
  int prealloc;
  uint64_t size_bytes, shards, log_bytes, offset, bytes, add_bytes;
  const char *add_device, *cores;
  struct ctl_volume_options volume;
};

/* Exit status of a command. */
enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

struct ctl_command {
  const char *name, *words, *help;
  int words_min, words_max; /* after WHERE */
  int (*run)(const struct ctl_options *o);
};

int ctl_format(const struct ctl_options *o);
int ctl_info(const struct ctl_options *o);
int ctl_stats(const struct ctl_options *o);
int ctl_flush(const struct ctl_options *o);
int ctl_vacuum(const struct ctl_options *o);
int ctl_leftovers(const struct ctl_options *o);
int ctl_grow(const struct ctl_options *o);
int ctl_ls(const struct ctl_options *o);
int ctl_put(const struct ctl_options *o);
int ctl_get(const struct ctl_options *o);
int ctl_rm(const struct ctl_options *o);
int ctl_stat(const struct ctl_options *o);
int ctl_check(const struct ctl_options *o);
int ctl_salvage(const struct ctl_options *o);

/* ---- Volumes ---- */

/* `volume COMMAND ...`: argv[0] is the word "volume". */
int ctl_volume_main(int argc, char **argv);
int ctl_volume_create(const struct ctl_options *o);
int ctl_volume_rm(const struct ctl_options *o);
int ctl_volume_rename(const struct ctl_options *o);
int ctl_volume_resize(const struct ctl_options *o);
int ctl_volume_snapshot(const struct ctl_options *o);
int ctl_volume_clone(const struct ctl_options *o);
int ctl_volume_rollback(const struct ctl_options *o);
int ctl_volume_flatten(const struct ctl_options *o);
int ctl_volume_limit(const struct ctl_options *o);
int ctl_volume_export(const struct ctl_options *o);
int ctl_volume_import(const struct ctl_options *o);

/* ---- A running shard-host ---- */

/* `host COMMAND ...`: argv[0] is the word "host". */
int ctl_host_main(int argc, char **argv);

struct sr_port;
/* "shard-ctl: name: error: remedy" in the words of volumes; CTL_FAILED. */
int ctl_volume_fail(const char *name, int64_t error);
/* A volume as JSON, with its limits. Returns 0 or an error. */
int ctl_volume_json(struct sr_port *port, const char *name, struct js **json);
/* Of --size, --block, --striped, --shard. */
void ctl_volume_spec(const struct ctl_options *o, struct sr_volume_options *spec);
/* Flushes; then, for --json, writes what the volume is now to stdout (name NULL: nothing). */
int ctl_volume_done(const struct ctl_options *o, struct sr_port *port, const char *name);

/* words[0..count): the command, WHERE unless --store has given it, the rest. Runs what it finds in
 * the table, which a NULL name ends. prefix: "" or "volume ". */
int ctl_dispatch(const char *prefix, const struct ctl_command *table, struct ctl_options *o,
                 const char **words, int count);
void ctl_help_commands(const char *prefix, const struct ctl_command *table);

struct ctl_session {
  struct sr_store *store;
  struct sr_port *port;
};
/* Opens the store and a port. CTL_OK, or CTL_FAILED after a message. */
int ctl_open(struct ctl_session *s, const struct ctl_options *o, bool read_only);
/* Closes (which flushes a writable store); the worse of status and its own. */
int ctl_close(struct ctl_session *s, int status);
/* "shard-ctl: what: error: remedy" on stderr; CTL_FAILED. */
int ctl_fail(const char *what, int64_t error);
/* The id in words[0]; CTL_USAGE after a message. */
int ctl_id(const struct ctl_options *o, struct sr_id *id);
/* Writes the tree to stdout and frees it. */
int ctl_print_json(struct js *root);
/* A line on stdout, or an entry of a JSON array. store: for what has no place of its own. */
void ctl_damage_print(const struct sr_damage *d, const char *store);
void ctl_damage_json(const struct sr_damage *d, const char *store, struct js *list);
const char *ctl_human_bytes(uint64_t bytes, char text[32]);

#endif
