/* bench.h - shard-bench's parts and what they share.
 *
 *   bench_main.c     the command line, and the order of things
 *   bench_options.c  what may be asked for; with bench_options_more.c
 *                    bench_options_more.c, bench_options_fio.c, bench_options_vhost.c: more
 *   bench_jobs.c     the runs of a job file
 *   bench_store.c    makes, opens and fills the store
 *   bench_load.c     the load itself: on the owning cores, or in client threads
 *   bench_flush.c    when a load flushes
 *   bench_special.c  what few loads have: blobs of many sizes, requests for other cores
 *   bench_script.c   operations of several kinds or requests: of the workloads of our users,
 *   bench_kv.c       --workload=kv
 *   bench_scan.c     --workload=analytics
 *   bench_ingest.c   --workload=ingest
 *   bench_lambda.c   --workload=lambda
 *   bench_models.c   what those ask for
 *   bench_distribution.c  what random requests go to
 *   bench_sizes.c    how large blobs are
 *   bench_series.c   the run over time
 *   bench_arrivals.c  when requests are due, with --rate_iops
 *   bench_live.c     what it does at this moment
 *   bench_stop.c     the first SIGINT or SIGTERM
 *   bench_run.c      runs loads; bench_control.c alternates them with the raw loop
 *   bench_volume.c   --engine=volume: makes, fills, clones and opens the volumes of a load
 *   bench_verify.c   --workload=verify; with bench_verify_io.c
 *   bench_manage.c   --workload=clone-create, clone-open, map-open
 *   bench_shares.c   --workload=limits, neighbour
 *   bench_vhost.c    --engine=vhost; with bench_vhost_job.c
 *   bench_figures.c  the report of a workload
 *   bench_env.c      what machine, device and engine it was
 *   bench_logs.c     files besides the report
 *   bench_report.c   the table and the JSON; with bench_report_more.c
 *   bench_versus.c   alternates runs with those of another program (--versus); with
 *                    bench_versus_peer.c, which runs programs and reads what they print
 *   bench_tune.h     shard-bench tune
 *   report.h         shard-bench report, which reads them
 */
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include "api/shardring.h"
#include "tools/bench_arrivals.h"
#include "tools/bench_distribution.h"
#include "tools/bench_fio.h"
#include "tools/bench_live.h"
#include "tools/bench_models.h"
#include "tools/bench_series.h"
#include "tools/bench_sizes.h"
#include "tools/bench_stop.h"
#include "tools/latency.h"
#include "tools/ratio.h"
#include "tools/raw_loop.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>

enum bench_rw {
  RW_RANDREAD,
  RW_READ,
  RW_RANDWRITE,
  RW_PUT,
  RW_GET,
  RW_DELETE,
  RW_FLUSH,
  RW_OPEN,
  RW_WRITE, /* of volumes alone, as the next */
  RW_RANDRW,
  RW_SPECIAL, /* of a workload, or see struct load */
};
enum bench_where { WHERE_CORE, WHERE_CLIENT };
enum bench_device { DEVICE_URING, DEVICE_POOL, DEVICE_MEM, DEVICE_NULL };
enum bench_engine { ENGINE_STORE, ENGINE_RAW, ENGINE_VOLUME, ENGINE_VHOST };
enum bench_work {
  WORK_LOAD,
  WORK_CLONE_CREATE,
  WORK_CLONE_OPEN,
  WORK_LIMITS,
  WORK_NEIGHBOUR,
  WORK_MAP_OPEN,
  WORK_VERIFY,
  /* Of our users: loads that are run and reported like others. */
  WORK_KV,
  WORK_INGEST,
  WORK_ANALYTICS,
  WORK_LAMBDA, /* of volumes */
};
static inline bool bench_has_own_figures(int workload) {
  return workload != WORK_LOAD && workload <= WORK_VERIFY;
}
enum bench_prealloc { PREALLOC_DEFAULT, PREALLOC_FULL, PREALLOC_SPARSE, PREALLOC_UNWRITTEN };

#define BENCH_PERCENTS_MAX 20 /* as fio */

/* --flush-every: after so many puts, or bytes, or so long; all 0: never. */
struct flush_rule {
  uint64_t puts, bytes, ns;
};

struct bench_options {
  const char *store, *cores, *output, *name;
  const char *latency_log, *histogram_log; /* prefixes of names of files */
  const char *percentile_text;
  double percents[BENCH_PERCENTS_MAX]; /* of latencies in reports */
  uint32_t percent_count;
  const char *job_file; /* not NULL: nothing else was checked */
  int rw, where, device, engine, prealloc, format, eta;
  bool create, force, control, verify, gtod_reduce, help, version;
  bool size_given, blob_size_given, blobs_given, batch_given, where_given, device_given;
  uint64_t size_bytes, shards, block_bytes, blob_bytes, blobs, iodepth, batch, numjobs, seed;
  uint64_t sample;          /* one request in so many is timed; 0: none */
  double runtime_s, ramp_s; /* ramp_s: load before that, not measured */
  uint64_t rate;    /* requests a second for each core or job; 0: as fast as they are answered */
  int rate_process; /* 1: Poisson */
  const char *distribution_text;
  struct distribution_spec distribution; /* of random reads and writes */
  const char *sizes_text, *flush_text;
  struct sizes sizes; /* of blobs; kind SIZES_NONE: all of blob_bytes */
  struct flush_rule flush_every;
  uint64_t remote; /* percent */
  bool remote_given, iodepth_given, bs_given, sample_given;
  struct scan_shape scan; /* of --workload=analytics */
  const char *chunk_text;
  uint64_t footer_bytes, chunks;
  uint64_t boot_writes; /* of --workload=lambda; so many machines: clones */
  bool boot_writes_given;
  int ycsb; /* enum ycsb */
  bool ycsb_given;
  /* --engine=volume */
  int workload;  /* enum bench_work */
  int integrity; /* 0: as the store does it; 1: no checksums of sealed data */
  bool first_writes, reserve, rw_given, clones_given, volume_size_given, numjobs_given;
  uint64_t volume_bytes, volumes, clones, chain, stripe_bytes, mix_read, ops;
  /* --engine=vhost; numjobs: its queues */
  const char *socket, *control_file;
  const char *without;
  int ring; /* 1: packed */
  uint64_t queue_size, pieces, regions, features_off, protocol_off;
  double reconnect_s;
  char where_text[4096]; /* the store, completed; the socket */
  char core_list[256];   /* --cores, when it is a list */
  uint32_t core_count;   /* ... or a number; 0: neither */
  const char *versus;    /* a shell command to alternate with */
  uint64_t rounds;       /* of that */
  const char *settings;  /* a file of settings, or "none" */
  bool rounds_given;
  struct fio_options fio;
};

/* Parses and checks. 0; 1: there is nothing to do (--help); -EINVAL after a message. */
int bench_options_parse(struct bench_options *o, int argc, char **argv);
/* "--name=value": is it one, and its value legal? -EINVAL after a message that begins with `tool`.
 */
int bench_option_check(const char *tool, char *option);
const char *bench_rw_name(int rw);
const char *bench_workload_name(int workload);
/* The workload, or else --rw. */
const char *bench_load_name(const struct bench_options *o);
bool bench_is_read(int rw);
bool bench_is_write(int rw);
/* The raw loop does the like: one block after the other. */
bool bench_is_sequential(int rw);
/* Bytes that one request moves. */
uint64_t bench_request_bytes(const struct bench_options *o);
/* Of a blob. */
static inline uint64_t bench_blob_bytes(const struct bench_options *o, uint64_t number) {
  return o->sizes.kind ? sizes_of(&o->sizes, number, o->seed) : o->blob_bytes;
}
/* Do many of them need to be flushed? */
static inline bool bench_flushes(const struct bench_options *o) {
  return o->flush_every.puts || o->flush_every.bytes || o->flush_every.ns;
}
/* Those of bench_options_more.c; the former comes first, as it says what the load is. 0, or -EINVAL
 * after a message. */
int bench_check_workload(struct bench_options *o);
int bench_check_special(struct bench_options *o);
int bench_check_vhost(struct bench_options *o);
/* Blobs hold no data of ours: nothing can be verified, checksums are off. */
bool bench_is_hollow(const struct bench_options *o);

/* The runs that a file lists, one after the other, each in a process of its own; argv without the
 * file's name is added to each. Exit status. */
int bench_run_jobs(const struct bench_options *o, int argc, char **argv);

/* Rounds of this command line's run and of o->versus in turn (bench_versus.c). The store is there,
 * and not open. Exit status. */
int bench_versus(const struct bench_options *o, int argc, char **argv);

/* ---- The store (bench_store.c) ---------------------------------------------------------- */

struct bench_volumes;
struct bench {
  struct bench_options o;
  struct sr_store *store;
  struct sr_port *port; /* of the main thread */
  uint32_t cores, shards;
  uint32_t core_shard[SR_CORES_MAX]; /* a shard of each core, SR_SHARDS_MAX if it has none */
  uint64_t populated;                /* blobs written by this run */
  double populate_s;
  struct sr_store_stats at_open;
  struct bench_volumes *volumes; /* --engine=volume, once they are open */
  const char *interrupted;       /* the signal's name, if it has cut the run short; else NULL */
};

int bench_create(const struct bench_options *o);
int bench_open(struct bench *b);
int bench_populate(struct bench *b);
int bench_close(struct bench *b);
/* "what: error", and a remedy where there is one; returns the error. */
int bench_fail(const char *what, int error);
uint64_t bench_now_ns(void);

/* ---- Blobs: their names and contents are functions of a number ---------------------------- */

struct sr_id bench_id(uint64_t number, uint64_t seed);
/* The bytes of blob `number` at [offset, offset + bytes). Fill: all of them. Stamp: only what
 * differs from blob to blob, into a buffer that was filled for the same offset before. */
void bench_fill(void *buf, uint64_t number, uint64_t seed, uint64_t offset, uint64_t bytes);
void bench_stamp(void *buf, uint64_t number, uint64_t seed, uint64_t offset, uint64_t bytes);
bool bench_matches(const void *buf, uint64_t number, uint64_t seed, uint64_t offset,
                   uint64_t bytes);

/* ---- Volumes (bench_volume.c) ----------------------------------------------------------- */

/* What a load on volumes aims at. */
struct bench_target {
  struct sr_block *block;
  uint64_t number; /* that its contents are a function of: clones have their base's */
  uint32_t shard;
};
struct bench_volumes {
  struct bench_target *targets; /* sorted by core */
  uint32_t count;
  uint64_t bytes; /* of each */
};
/* Makes the volumes if they are not there from a run before, and opens those that the load goes
 * to. In b->volumes, which bench_volumes_close() frees. */
int bench_volumes_open(struct bench *b);
void bench_volumes_close(struct bench *b);
/* Other, new clones under the same targets: of --first-writes. */
int bench_volumes_renew(struct bench *b);

uint32_t bench_integrity(const struct bench_options *o); /* enum sr_integrity */
int bench_volume_fill(struct bench *b, struct sr_block *block, uint64_t number, bool reserve);

/* ---- The load (bench_load.c) ---------------------------------------------------------------- */

struct load;
struct load_work {
  struct sr_request request;
  struct load *load;
  uint64_t number, start_ns;
  uint64_t due_ns; /* of an open load */
  bool remote;     /* for another core's shard */
  /* Of a script. */
  uint32_t kind, step;
  uint64_t op_ns, sent_ns; /* the operation: due, or sent; sent; 0: it is not timed */
  int64_t want;            /* result of the request */
};

/* What a workload does is of a few classes: kinds of operations, and kinds of their requests. */
#define BENCH_CLASSES_MAX 8
enum bench_side { SIDE_NONE, SIDE_READ, SIDE_WRITE }; /* of fio's report: requests */
struct bench_class {
  uint64_t ops, bytes;
  struct latency latency, service; /* see struct load */
};
/* A load whose operations are several requests, or of several kinds; see bench_script.c. */
struct load_script {
  struct {
    const char *name;
    enum bench_side side;
  } classes[BENCH_CLASSES_MAX]; /* up to one without a name */
  uint32_t buffers;             /* of each request; the last one is filled for puts */
  size_t state_bytes;           /* for each request: load_state() */
  /* Aims the first request of an operation. */
  void (*begin)(struct load *l, struct load_work *w);
  /* A request has come back with the result that was wanted; accounts for it. True: w is aimed at
   * the next one of this operation. */
  bool (*step)(struct load *l, struct load_work *w, uint64_t now_ns);
};

/* A load belongs to the thread that runs it, a core's or a client's; the main thread reads
 * it when it has finished. */
struct load {
  struct bench *bench;
  struct sr_port *port;
  sem_t *finished; /* posted once for each run */
  int rw, aim;     /* aim: rw, or RW_SPECIAL: as bench_special.c does it */
  uint32_t depth, batch;
  uint32_t complete; /* so many have to be finished before they are sent again */
  bool unusual;      /* an open load, or one that has `complete` above `batch` */
  uint64_t request_bytes, blob_bytes, blob_blocks, block_bytes, seed;
  bool verify;

  struct load_work *works;
  char *memory;
  struct sr_request **pending; /* [depth] the first `prepared` of them are filled in */
  uint32_t pending_count, prepared, in_flight;
  /* [depth] From its start: refused for want of space until the next flush; from its end: held
   * back, as one is due and the one before is still in flight. */
  struct sr_request **full;
  uint32_t full_count, held_count;
  struct load_work flush;
  atomic_bool stopping; /* set by the main thread, too: no more requests */
  bool flushing, flush_for_room, done, on_core;
  uint64_t puts_since_flush, puts_before_flush; /* the latter: of the one that is in flight */

  const uint32_t *numbers; /* of this load's blobs; NULL: first, first + 1, ... */
  uint64_t first, count;
  const struct bench_target *targets; /* of volumes; numbers are then their blocks, in a row */
  uint32_t target_count, mix_read;
  bool once;                        /* each block once, in a random order */
  uint32_t once_bits;               /* so many cover `count` */
  struct distribution distribution; /* n 0: each alike, by pick() */
  uint64_t write_ops;               /* of a mixed load: of ops */
  uint64_t random, cursor, left;    /* left: requests until the end, UINT64_MAX: by time */
  uint64_t sample, sample_left;

  uint64_t duration_ns, start_ns, deadline_ns;
  uint64_t ops, bytes, elapsed_ns, flushes, errors;
  int first_error;
  bool mismatch;
  struct latency latency, write_latency; /* the latter: of a mixed load */
  struct series series;                  /* kept where there is one slice */
  struct live *live;                     /* NULL: nobody looks */
  void (*unwatched_done)(struct sr_request *request);

  /* With --rate_iops, in a client's thread. Then the latencies are response times, from when a
   * request was due; and this one counts from when it was sent. */
  uint64_t rate; /* 0: a closed load */
  struct arrivals arrivals;
  struct latency service, write_service;
  uint64_t unsent; /* were due before the end, but no request was free for them */

  /* What few loads have. */
  struct flush_rule flush_every, unflushed; /* unflushed.ns: since when */
  struct latency flush_latency;             /* of --flush-every */

  const struct sizes *sizes; /* NULL: all of blob_bytes */
  /* Blobs of other cores: all[] but for [first, first + count). */
  const uint32_t *all;
  uint64_t all_first, others_count, others_cursor, remote_percent, remote_ops;
  struct distribution others;
  uint64_t cursor_bytes; /* of RW_READ: in the blob that cursor is at */

  const struct load_script *script; /* NULL: rw says it all */
  struct bench_class *classes;
  char *state;
  uint64_t stride; /* of buffers */
  uint32_t read_flags, write_flags;

  const struct split *split; /* NULL: all requests have request_bytes, else that is the largest */
  const struct bench_target *split_targets; /* then `targets` is NULL */
  uint64_t write_bytes;                     /* of bytes */
};

struct load_config {
  int rw;
  uint32_t depth, batch;
  uint32_t complete;         /* 0: as batch */
  const struct split *split; /* NULL: of one size */
  uint64_t request_bytes;    /* of reads; a put moves the whole blob */
  const uint32_t *numbers;
  uint64_t first, count;
  uint64_t left;                      /* 0: by time */
  uint64_t rate;                      /* requests a second; 0: a closed load */
  const struct bench_target *targets; /* of volumes */
  uint32_t target_count;
  const struct distribution_spec *distribution; /* NULL: each alike */
  bool reserve, once;
  const struct load_script *script; /* NULL: rw says it all */
  const struct sizes *sizes;        /* NULL: all of --blob-size */
  struct flush_rule flush_every;
  const uint32_t *all;           /* with remote_percent: numbers of all cores' blobs, */
  uint64_t all_first, all_count; /* of which this load's begin at all_first */
  uint64_t remote_percent;
  uint64_t sample, seed;
  sem_t *finished;
};
int load_init(struct load *l, struct bench *b, const struct load_config *config);
void load_finish(struct load *l);
/* All of its blocks are to be written again: of one that writes each once. */
void load_renew(struct load *l);
/* From its next start on it keeps these. */
void load_watch(struct load *l, struct live *live);
/* While it runs, any thread: as if its time were up. Once it has started: a start takes it back. */
void load_stop(struct load *l);
/* Starts the load on a core; load->finished is posted when nothing is in flight any more. */
int load_start_on_core(struct load *l, uint32_t shard, uint64_t duration_ns);
/* Runs it on the calling thread, through the port. step (may be NULL) is called now and then. */
void load_run_here(struct load *l, struct sr_port *port, uint64_t duration_ns,
                   void (*step)(void *arg, const struct load *l), void *arg);

/* ---- Runs (bench_run.c) -----------------------------------------------------------------------
 */

#define BENCH_PAIRS_MAX RATIO_MAX

struct bench_vhost_figures {
  uint64_t kicks, calls, sleeps, reconnects;
  uint64_t others, checked; /* zeroes, discards and flushes; requests whose data was compared */
  uint64_t features, protocol, disk_bytes;
  uint32_t queue_size;
};

/* Named values, in the order of the report. */
#define BENCH_FIGURES_MAX 128
struct bench_figure {
  char name[64], note[96];
  const char *unit; /* "": a number of things */
  double value;
};
struct bench_figures {
  uint32_t count;
  struct bench_figure figures[BENCH_FIGURES_MAX];
};

/* Of the whole process, while the load ran. */
struct bench_usage {
  uint64_t user_ns, system_ns, switches, major_faults, minor_faults;
};
/* Once with begin true, then with false: adds what came between. */
void bench_usage_add(struct bench_usage *u, bool begin);

struct bench_result {
  const char *direction; /* "read", "write", "trim" or "sync" */
  uint64_t ops, bytes, errors, flushes, elapsed_ns;
  uint64_t remote_ops;        /* of ops */
  uint64_t write_bytes;       /* of bytes: of a mixed load of several sizes */
  uint32_t latency_depth;     /* of --latency_target */
  struct steady *steady;      /* of --steadystate */
  struct bench_result *parts; /* --group_reporting=0: [part_count] of each core or job */
  uint32_t part_count;
  double iops, bytes_per_s;
  uint64_t cpu_ns_cores, cpu_ns_process;
  struct bench_usage usage;
  uint64_t device_ios, write_ops, renewals; /* of volumes; flushes are not among the I/Os */
  int error;                                /* of the first request that failed */
  bool mismatch;
  struct latency latency, write_latency, service, write_service; /* see struct load */
  struct latency flush_latency;
  const struct load_script *script; /* NULL: there are no classes */
  struct bench_class *classes;
  struct bench_figures figures; /* of a workload: besides all that */
  struct series series;         /* empty with a control, or if nothing is timed */
  uint64_t unsent;
  struct bench_vhost_figures vhost; /* cpu_ns_cores is then the server's */

  uint32_t pairs;
  double ratio[BENCH_PAIRS_MAX], raw_iops[BENCH_PAIRS_MAX], own_iops[BENCH_PAIRS_MAX];
  double cpu_ratio[BENCH_PAIRS_MAX]; /* CPU time of a raw request by that of one of the cores' */
  char raw_flags[128], raw_note[256];
};
/* Frees what it has. */
void bench_result_finish(struct bench_result *result);
int bench_run_store(struct bench *b, struct bench_result *result);
int bench_run_raw(struct bench *b, struct bench_result *result);
int bench_run_open(struct bench *b, struct bench_result *result);
int bench_run_vhost(struct bench *b, struct bench_result *result);

/* ---- Files for the raw loop (bench_files.c) -----------------------------------------------------
 */

struct bench_files {
  char *paths[RAW_LOOP_FILES_MAX];
  uint32_t count;
  int scratch_fd; /* -1: the store's own files */
  uint64_t skip_bytes, span_bytes;
};
/* For reads the store's own files (for a directory the packed files), for writes a scratch file
 * beside them. b->store may be NULL. 0, or an error after a message. */
int bench_files_find(struct bench_files *f, struct bench *b);
void bench_files_free(struct bench_files *f);

/* ---- Environment and reports ----------------------------------------------------------------- */

struct bench_environment {
  char kernel[128], cpu_model[128], device[64], scheduler[32], write_cache[32], fua[8];
  char engine[16], why_engine[128], ring_flags[96], file_system[32];
  uint32_t cpus;
  bool buffers_registered, files_registered, fallback;
  uint64_t io_workers, device_submits, device_ios;
};
void bench_environment_fill(struct bench_environment *e, struct bench *b);

struct js;
/* Values by pairs into JSON: median, extremes, and the interval of confidence; that as a line. */
void bench_add_ratio(struct js *to, const char *key, const double *values, uint32_t count);
void bench_print_confidence(FILE *out, const struct ratio *ratio);
/* What has been counted by class begins anew: after a ramp. */
void load_forget_classes(struct load *l);
/* Adds what a load of a script did. -ENOMEM. */
int bench_classes_merge(struct bench_result *r, const struct load *l);
/* When all are added: the latencies of reads and writes as other loads have them. */
void bench_classes_end(struct bench_result *r);
extern const struct load_script bench_kv_script, bench_scan_script, bench_lambda_script;
/* Of the workload that was asked for; NULL: it has none. */
const struct load_script *bench_script_of(const struct bench_options *o);
int bench_run_ingest(struct bench *b, struct bench_result *result);
/* The latter after the former, which makes the image if it is not there. */
int bench_prepare_lambda(struct bench *b);
int bench_run_lambda(struct bench *b, struct bench_result *result);

int bench_report(const struct bench *b, const struct bench_result *result,
                 const struct bench_environment *e);

/* Files that were asked for. */
int bench_write_logs(const struct bench *b, const struct bench_result *result);

/* ---- Workloads of volumes: figures of their own -------------------------------------------- */

/* note: NULL or a word on it. */
void bench_figure(struct bench_figures *f, const char *name, double value, const char *unit,
                  const char *note);
int bench_report_figures(const struct bench *b, const struct bench_figures *f, int error,
                         const struct bench_environment *e);

/* With the store open, but for the last two, which open it themselves. 0, or an error after a
 * message. */
int bench_work_verify(struct bench *b, struct bench_figures *figures);
int bench_work_limits(struct bench *b, struct bench_figures *figures);
int bench_work_neighbour(struct bench *b, struct bench_figures *figures);
int bench_work_clone_create(struct bench *b, struct bench_figures *figures);
int bench_work_clone_open(struct bench *b, struct bench_figures *figures);
int bench_work_map_open(struct bench *b, struct bench_figures *figures);

#endif
