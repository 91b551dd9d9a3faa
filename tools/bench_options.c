/* bench_options.c - what may be asked of shard-bench: option names as fio's where fio has them. */
#include "tools/args.h"
#include "tools/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOOL       "shard-bench"
#define RW_CHOICES "randread|read|randwrite|put|get|delete|flush|open|write|randrw"

#define WORKLOAD_CHOICES                                                                           \
  "load|clone-create|clone-open|limits|neighbour|map-open|verify|kv|ingest|analytics|lambda"

#define KIB UINT64_C(1024)
#define MIB (KIB << 10)
#define GIB (KIB << 20)
#define TIB (KIB << 30)

const char *bench_workload_name(int workload) {
  static char word[32];
  return args_choice(WORKLOAD_CHOICES, workload, word, sizeof(word));
}

const char *bench_rw_name(int rw) {
  static const char *const names[] = {"randread", "read", "randwrite", "put",    "get",    "delete",
                                      "flush",    "open", "write",     "randrw", "special"};
  return names[rw];
}
const char *bench_load_name(const struct bench_options *o) {
  return o->workload == WORK_LOAD ? bench_rw_name(o->rw) : bench_workload_name(o->workload);
}
bool bench_is_read(int rw) { return rw == RW_RANDREAD || rw == RW_READ || rw == RW_GET; }
bool bench_is_write(int rw) { return rw == RW_RANDWRITE || rw == RW_PUT || rw == RW_WRITE; }
bool bench_is_sequential(int rw) { return rw == RW_READ || rw == RW_WRITE || rw == RW_PUT; }

uint64_t bench_request_bytes(const struct bench_options *o) {
  if (o->rw == RW_DELETE || o->rw == RW_FLUSH || o->rw == RW_OPEN) return 0;
  if (o->workload == WORK_KV) return o->blob_bytes;
  if (o->workload == WORK_LAMBDA) return BOOT_RUN_BYTES;
  if (o->engine == ENGINE_VOLUME || o->engine == ENGINE_VHOST) return o->block_bytes;
  return bench_is_write(o->rw) || o->rw == RW_GET ? o->blob_bytes : o->block_bytes;
}

bool bench_is_hollow(const struct bench_options *o) {
  return o->prealloc == PREALLOC_UNWRITTEN || o->device == DEVICE_NULL || o->reserve;
}

static void help(const struct arg *table) {
  puts("shard-bench --store=WHERE [options]: what a Shardring store does in a second.\n"
       "shard-bench FILE [options]: the runs that a job file lists, with these options added.\n"
       "shard-bench report RESULT...: results as a page with plots.\n"
       "shard-bench tune --store=DIR: measures a device, and writes settings for the store.\n"
       "shard-bench compare A B: two results, and whether they differ by more than chance.\n"
       "\n"
       "Fills the store with blobs if they are not there yet, runs one kind of request on it, and\n"
       "prints a table or JSON in fio's shape. WHERE is a directory, devices, or mem:.\n"
       "Blobs that a run writes carry contents that --verify can check in any later run with\n"
       "the same --seed. --engine=volume does the like with volumes (virtual disks).\n");
  args_help(table);
  puts("\nExit status: 0 all went well, 1 something failed, 2 the command line is wrong,\n"
       "130 and 143 ended by SIGINT and SIGTERM.\n"
       "\nThe software's own cost, against a bare io_uring loop on the same file:\n"
       "  shard-bench --store=DIR --create --size=4g --shards=1 --cores=1 --prealloc=unwritten \\\n"
       "    --rw=randread --where=core --iodepth=128 --batch=32 --control");
}

static int refuse(const char *message) {
  fprintf(stderr, "%s: %s\n", TOOL, message);
  return -EINVAL;
}

static int refuse_size(const char *option, uint64_t value, const char *legal) {
  fprintf(stderr, "%s: --%s=%llu: not a legal value here; legal: %s\n", TOOL, option,
          (unsigned long long)value, legal);
  return -EINVAL;
}

/* mem: takes its size and shards in the name itself. */
static int complete_store(struct bench_options *o) {
  if (!o->store && o->device == DEVICE_MEM) o->store = "mem:";
  if (!o->store) return refuse("--store is missing; legal: a directory, devices, or mem:");
  bool memory = strncmp(o->store, "mem:", 4) == 0;
  if (o->device == DEVICE_MEM && !memory)
    return refuse("--device=mem keeps nothing on disk: use it with --store=mem: (or none)");
  if (memory && o->device_given && o->device != DEVICE_MEM && o->device != DEVICE_NULL)
    return refuse("--store=mem: works with --device=mem or null only");
  if (memory && o->device != DEVICE_NULL) o->device = DEVICE_MEM;
  if (!memory || o->store[4]) {
    if (snprintf(o->where_text, sizeof(o->where_text), "%s", o->store) >=
        (int)sizeof(o->where_text))
      return refuse("--store is too long; legal: up to 4095 characters");
    return 0;
  }
  if (!o->size_given) o->size_bytes = 256 * MIB;
  snprintf(o->where_text, sizeof(o->where_text), "mem:%llu", (unsigned long long)o->size_bytes);
  size_t n = strlen(o->where_text);
  if (o->shards) snprintf(o->where_text + n, sizeof(o->where_text) - n, ":%u", (unsigned)o->shards);
  return 0;
}

/* "2": so many; "0-3,8" or "5,": these. */
static int check_cores(struct bench_options *o) {
  if (!o->cores || o->fio.cpus_allowed) return 0;
  size_t n = strlen(o->cores);
  if (strspn(o->cores, "0123456789") == n) {
    o->core_count = n < 4 ? (uint32_t)atoi(o->cores) : 0;
    if (o->core_count >= 1 && o->core_count <= SR_CORES_MAX) return 0;
  } else if (strspn(o->cores, "0123456789,-") == n && n < sizeof(o->core_list)) {
    memcpy(o->core_list, o->cores, n + 1);
    if (n > 0 && o->core_list[n - 1] == ',') o->core_list[n - 1] = 0;
    if (o->core_list[0]) return 0;
  }
  fprintf(stderr,
          "%s: --cores=%s: not a legal value; legal: 1 to %u, or a list of CPUs as 0-3,8 or 5,\n",
          TOOL, o->cores, SR_CORES_MAX);
  return -EINVAL;
}

static int check_sizes(struct bench_options *o) {
  if (!o->blob_size_given) o->blob_bytes = o->block_bytes;
  if (!o->batch_given && o->batch > o->iodepth) o->batch = o->iodepth;
  if (o->batch > o->iodepth) return refuse_size("batch", o->batch, "1 up to --iodepth");
  if (o->block_bytes > o->blob_bytes && !o->sizes.kind &&
      (o->rw == RW_RANDREAD || o->rw == RW_READ))
    return refuse_size("bs", o->block_bytes, "at most --blob-size");
  if (bench_request_bytes(o) * o->iodepth * o->numjobs > 8 * GIB)
    return refuse("--iodepth requests of that size need more than 8 GiB of buffers; use fewer or "
                  "smaller ones");
  if (o->create && !o->size_given && !o->store) return refuse("--create needs --size");
  return 0;
}

static int check_distribution(struct bench_options *o) {
  if (!o->distribution_text) return 0;
  if (distribution_parse(o->distribution_text, &o->distribution) < 0) {
    fprintf(stderr,
            "%s: --random_distribution=%s: not a legal value; legal: random, zipf:S (S up to 100), "
            "pareto:H (H up to 0.5), normal:PERCENT\n",
            TOOL, o->distribution_text);
    return -EINVAL;
  }
  bool random = o->rw == RW_RANDREAD || o->rw == RW_RANDWRITE || o->rw == RW_RANDRW ||
                (o->rw == RW_SPECIAL && o->engine == ENGINE_STORE);
  if (!random || o->engine == ENGINE_RAW || o->engine == ENGINE_VHOST || o->first_writes ||
      bench_has_own_figures(o->workload))
    return refuse("--random_distribution is for random reads and writes of blobs and volumes");
  if (o->control && o->distribution.kind != DISTRIBUTION_RANDOM)
    return refuse("the raw loop asks for all blocks alike: no --control with a distribution");
  return 0;
}

/* "50:99:99.9" */
static int check_percentiles(struct bench_options *o) {
  static const double usual[] = {1,  5,  10, 20, 30,   40,   50,    60,   70,
                                 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99};
  const char *at = o->percentile_text;
  if (!at) {
    memcpy(o->percents, usual, sizeof(usual));
    o->percent_count = sizeof(usual) / sizeof(usual[0]);
    return 0;
  }
  for (char *end = NULL; o->percent_count < BENCH_PERCENTS_MAX; at = end + 1) {
    double v = strtod(at, &end);
    if (end == at || !(v > 0 && v <= 100) || (*end && *end != ':')) break;
    o->percents[o->percent_count++] = v;
    if (!*end) return 0;
  }
  fprintf(
      stderr,
      "%s: --percentile_list=%s: not a legal value; legal: up to %d numbers above 0, up to 100, "
      "with colons between them\n",
      TOOL, o->percentile_text, BENCH_PERCENTS_MAX);
  return -EINVAL;
}

static int check_versus(const struct bench_options *o) {
  if (!o->versus) return o->rounds_given ? refuse("--rounds goes with --versus") : 0;
  if (o->control || o->control_file || o->workload != WORK_LOAD)
    return refuse("--versus compares the rates of loads: it goes without --control, "
                  "--control-file and --workload");
  return 0;
}

static int check_rate(struct bench_options *o) {
  bool loads =
      o->engine == ENGINE_STORE || (o->engine == ENGINE_VOLUME && o->workload != WORK_LAMBDA);
  if (o->ramp_s > 0 &&
      (!loads || o->control || o->rw == RW_OPEN || bench_has_own_figures(o->workload)))
    return refuse("--ramp_time is for loads on blobs and volumes without --control");
  if (!o->rate) return o->rate_process ? refuse("--rate_process goes with --rate_iops") : 0;
  if (!loads || o->rw == RW_FLUSH || o->rw == RW_OPEN || o->rw == RW_DELETE || o->first_writes)
    return refuse("--rate_iops is for reads and writes of blobs and volumes");
  if (bench_has_own_figures(o->workload) || o->control)
    return refuse("--rate_iops does not go with --workload and --control");
  if (o->where_given && o->where == WHERE_CORE)
    return refuse("--rate_iops needs a clock of its own: --where=client");
  if (o->verify && o->rw == RW_PUT)
    return refuse("--verify of puts goes on until each blob is there, whatever --rate_iops says");
  if (o->gtod_reduce) return refuse("--rate_iops is about latency: leave --gtod_reduce away");
  o->where = WHERE_CLIENT;
  o->sample = 1;
  return 0;
}

static int check_combinations(struct bench_options *o) {
  bool threads_only = o->rw == RW_FLUSH || o->rw == RW_OPEN;
  if (threads_only && o->where_given && o->where == WHERE_CORE)
    return refuse("--where=core is not for --rw=flush and --rw=open: they block; use "
                  "--where=client");
  if (threads_only) o->where = WHERE_CLIENT;
  if (o->where == WHERE_CORE && o->numjobs != 1)
    return refuse("--numjobs is for --where=client; --where=core runs one load on each core");
  bool raw_like = o->control || o->engine == ENGINE_RAW;
  if (raw_like && !bench_is_read(o->rw) && !bench_is_write(o->rw))
    return refuse("the raw loop reads or writes: --control and --engine=raw go with "
                  "--rw=randread, read, get, randwrite or put");
  if (raw_like && o->device == DEVICE_MEM)
    return refuse("a store in memory has no file for the raw loop (--control, --engine=raw)");
  if (raw_like && bench_request_bytes(o) % 512 != 0)
    return refuse_size("blob-size", o->blob_bytes, "a multiple of 512 for the raw loop");
  if (o->control && o->engine == ENGINE_RAW)
    return refuse("--control compares the store with the raw loop: leave --engine=raw away");
  if (o->verify && bench_is_hollow(o))
    return refuse("--verify needs data: it does not go with --prealloc=unwritten or "
                  "--device=null");
  if (o->verify && !bench_is_read(o->rw) && !bench_is_write(o->rw) && o->rw != RW_RANDRW &&
      o->rw != RW_SPECIAL)
    return refuse("--verify goes with --rw=randread, read, get, randwrite, put, write or randrw");
  if (o->prealloc == PREALLOC_UNWRITTEN && bench_is_write(o->rw))
    return refuse("--prealloc=unwritten is for reads: writing ends it");
  return 0;
}

static int refuse_rw(const struct bench_options *o, const char *legal) {
  fprintf(stderr, "%s: --rw=%s: not a legal value here; legal: %s\n", TOOL, bench_rw_name(o->rw),
          legal);
  return -EINVAL;
}

static int check_workload(struct bench_options *o) {
  bool on_disk = o->workload == WORK_CLONE_OPEN || o->workload == WORK_MAP_OPEN;
  if (on_disk || o->workload == WORK_CLONE_CREATE) o->reserve = true; /* nothing is ever written */
  if (o->reserve) o->integrity = 1;
  if (o->control || o->first_writes || o->rw_given)
    return refuse("--workload brings its own load: leave --rw, --control and --first-writes away");
  if (on_disk && (o->device == DEVICE_MEM || (o->store && strncmp(o->store, "mem:", 4) == 0)))
    return refuse("a store in memory cannot be opened again (--workload=clone-open, map-open)");
  if (o->workload == WORK_VERIFY && bench_is_hollow(o))
    return refuse("--verify needs data: it does not go with --reserve, --prealloc=unwritten or "
                  "--device=null");
  if (o->workload == WORK_NEIGHBOUR && o->where_given && o->where == WHERE_CLIENT)
    return refuse("--workload=neighbour runs on the core (--where=core): threads of its own would "
                  "measure the system's scheduler");
  if (o->workload == WORK_VERIFY && !o->numjobs_given) o->numjobs = 2;
  o->where = o->workload == WORK_NEIGHBOUR ? WHERE_CORE : WHERE_CLIENT;
  o->verify = false;
  return 0;
}

static int check_volumes(struct bench_options *o) {
  bool other = o->rw == RW_PUT || o->rw == RW_GET || o->rw == RW_DELETE || o->rw == RW_FLUSH ||
               o->rw == RW_OPEN;
  if (o->engine != ENGINE_VOLUME) {
    if (o->rw == RW_WRITE || o->rw == RW_RANDRW)
      return refuse_rw(o, "randread, read, randwrite, put, get, delete, flush, open; with "
                          "--engine=volume also write and randrw");
    if (bench_has_own_figures(o->workload)) return refuse("this --workload is for --engine=volume");
    if (o->clones || o->chain || o->volumes || o->volume_size_given || o->stripe_bytes ||
        o->reserve || o->first_writes)
      return refuse("--volume-size, --volumes, --clones, --chain, --stripe, --reserve and "
                    "--first-writes are for --engine=volume");
    return 0;
  }
  if (o->workload == WORK_LAMBDA) return 0; /* looked at already */
  if (other) return refuse_rw(o, "with --engine=volume randread, read, randwrite, write, randrw");
  bool loads = o->rw_given || o->first_writes;
  if (o->verify && !loads && o->workload == WORK_LOAD) o->workload = WORK_VERIFY;
  if (o->workload != WORK_LOAD) return check_workload(o);
  if (o->prealloc == PREALLOC_UNWRITTEN || o->device == DEVICE_NULL) o->reserve = true;
  if (o->reserve) o->integrity = 1; /* there is nothing that could be summed up */
  if (o->reserve && !bench_is_read(o->rw) && !o->first_writes)
    return refuse("--reserve is for reads and --first-writes: writing ends it");
  if (o->first_writes && !o->rw_given) o->rw = RW_RANDWRITE;
  if (o->first_writes && o->rw != RW_RANDWRITE)
    return refuse("--first-writes goes with --rw=randwrite");
  if (o->first_writes && !o->clones) o->clones = 1;
  if (o->clones && !o->chain) o->chain = 1;
  if (o->chain && !o->clones) o->clones = 1;
  if (o->block_bytes > MIB * 16) return refuse_size("bs", o->block_bytes, "up to 16M for volumes");
  if (o->stripe_bytes & (o->stripe_bytes - 1))
    return refuse_size("stripe", o->stripe_bytes, "a power of two, 64k to 1G");
  return 0;
}

/* The words that are no options, at most one; or -EINVAL after a message. */
static int take_options(struct bench_options *o, const char *tool, int argc, char **argv,
                        const char **word) {
  *o = (struct bench_options){
      .block_bytes = 4096,
      .iodepth = 128,
      .batch = 32,
      .numjobs = 1,
      .seed = 1,
      .sample = 64,
      .runtime_s = 5,
      .mix_read = 50,
      .boot_writes = 64,
      .rounds = 10,
  };
  o->fio.group_reporting = true;
  struct fio_options *f = &o->fio;
  const struct arg table[] = {
      {"store", ARG_TEXT, &o->store, .help = "where the store lies: a directory, devices, mem:"},
      {"create", ARG_FLAG, &o->create, .help = "format it first (with --size and --shards)"},
      {"force", ARG_FLAG, &o->force, .help = "with --create: overwrite an older store"},
      {"size", ARG_SIZE, &o->size_bytes, 16 * MIB, 1024 * TIB, 4096,
       .help = "of the store, with --create", .given = &o->size_given},
      {"shards", ARG_NUMBER, &o->shards, 1, SR_SHARDS_MAX,
       .help = "with --create; default: one per physical core"},
      {"cores", ARG_TEXT, &o->cores, .help = "how many (2), or which CPUs (0-3,8 or 5,)"},
      {"settings", ARG_TEXT, &o->settings,
       .help = "a file that shard-bench tune has written, or none; default: the store's own"},
      {"cpus_allowed", ARG_TEXT, &f->cpus_allowed,
       .help = "which CPUs (0-3,8 or 5): of the store's cores, or of this process"},
      {"rw", ARG_CHOICE, &o->rw, .choices = RW_CHOICES,
       .help = "read, get: in order / whole blobs; put: whole new blobs; randwrite: whole blobs "
               "again; of volumes: randread, read, randwrite, write, randrw",
       .given = &o->rw_given},
      {"bs", ARG_SIZE, &o->block_bytes, 512, 64 * MIB, 512, .help = "bytes of a read; default 4k",
       .given = &o->bs_given},
      {"bssplit", ARG_TEXT, &f->split_text,
       .help = "requests of several sizes, as 4k/60:64k/40, instead of --bs"},
      {"blob-size", ARG_SIZE, &o->blob_bytes, 1, GIB, 1, .help = "bytes of a blob; default --bs",
       .given = &o->blob_size_given},
      {"blob-size-dist", ARG_TEXT, &o->sizes_text,
       .help = "instead: fixed:SIZE, uniform:MIN-MAX, lognormal:MEDIAN:SIGMA, 4k/60:64k/40, or a "
               "file of sizes"},
      {"blobs", ARG_NUMBER, &o->blobs, 1, UINT32_MAX, 1,
       .help = "how many; default: what fills half of the store", .given = &o->blobs_given},
      {"iodepth", ARG_NUMBER, &o->iodepth, 1, RAW_LOOP_DEPTH_MAX, 1,
       .help = "requests in flight for each core or job; default 128", .given = &o->iodepth_given},
      {"batch", ARG_NUMBER, &o->batch, 1, RAW_LOOP_DEPTH_MAX, 1,
       .help = "submitted together; default 32", .given = &o->batch_given},
      {"iodepth_batch", ARG_NUMBER, &o->batch, 1, RAW_LOOP_DEPTH_MAX, 1,
       .help = "the same as --batch", .given = &o->batch_given},
      {"iodepth_batch_submit", ARG_NUMBER, &o->batch, 1, RAW_LOOP_DEPTH_MAX, 1,
       .help = "the same as --batch", .given = &o->batch_given},
      {"iodepth_batch_complete", ARG_NUMBER, &f->complete, 1, RAW_LOOP_DEPTH_MAX, 1,
       .help = "wait until so many have finished, then send others; default: as --batch",
       .given = &f->complete_given},
      {"latency_target", ARG_TEXT, &f->target_text,
       .help =
           "look for the greatest depth up to --iodepth at which latencies stay below, as 500us"},
      {"latency_window", ARG_TEXT, &f->window_text,
       .help = "of --latency_target: each depth is tried so long; default 1s"},
      {"latency_percentile", ARG_TEXT, &f->share_text,
       .help =
           "of --latency_target: so many percent of the requests have to be as fast; default 100"},
      {"steadystate", ARG_TEXT, &f->steady_text,
       .help = "end when the rate is steady, as iops_slope:0.3%, iops:5%, bw_slope or bw"},
      {"steadystate_duration", ARG_SECONDS, &f->steady.duration_s, 0, 86400, 1,
       .help = "over a window of so long; default 10 s"},
      {"steadystate_ramp_time", ARG_SECONDS, &f->steady.ramp_s, 0, 86400, 1,
       .help = "which begins so long after the start at the earliest"},
      {"fixedbufs", ARG_FLAG, &f->fixed_buffers,
       .help = "fail unless the kernel has our buffers registered",
       .given = &f->fixed_buffers_given},
      {"registerfiles", ARG_FLAG, &f->register_files,
       .help = "fail unless the kernel has our files registered",
       .given = &f->register_files_given},
      {"hipri", ARG_FLAG, &f->hipri,
       .help = "of --engine=raw: poll the device for completions; it needs poll queues"},
      {"group_reporting", ARG_FLAG, &f->group_reporting,
       .help = "all jobs as one (default); 0: a report of each core, job or queue",
       .given = &f->group_given},
      {"numjobs", ARG_NUMBER, &o->numjobs, 1, 60, 1, .help = "threads, with --where=client",
       .given = &o->numjobs_given},
      {"rate_iops", ARG_NUMBER, &o->rate, 1, 100000000, 1,
       .help = "requests a second of each job, sent when they are due: response times count from "
               "then"},
      {"rate_process", ARG_CHOICE, &o->rate_process, .choices = "linear|poisson",
       .help = "of --rate_iops: evenly spaced (default), or as if from many independent users"},
      {"random_distribution", ARG_TEXT, &o->distribution_text,
       .help = "zipf:S, pareto:H, normal:PERCENT, or random: which ones random requests go to"},
      {"remote", ARG_NUMBER, &o->remote, 0, 100, 1,
       .help = "percent of requests to blobs of other cores' shards, with --where=core",
       .given = &o->remote_given},
      {"flush-every", ARG_TEXT, &o->flush_text,
       .help = "of puts: flush after so many (100), so many bytes (64M), or so long (2s)"},
      {"runtime", ARG_SECONDS, &o->runtime_s, 0, 86400 * 7, 1, .help = "default 5 s"},
      {"ramp_time", ARG_SECONDS, &o->ramp_s, 0, 86400, 1,
       .help = "run so long before anything is measured"},
      {"where", ARG_CHOICE, &o->where, .choices = "core|client",
       .help = "the load runs on the owning cores (default), or in threads with ports",
       .given = &o->where_given},
      {"device", ARG_CHOICE, &o->device, .choices = "uring|pool|mem|null",
       .help = "engine of the store; default uring", .given = &o->device_given},
      {"engine", ARG_CHOICE, &o->engine, .choices = "store|raw|volume|vhost",
       .help = "raw: a bare io_uring loop on the same file instead of the store; volume: the "
               "load goes to volumes instead of blobs; vhost: to a vhost-user-blk server"},
      {"socket", ARG_TEXT, &o->socket, .help = "of --engine=vhost: where the server listens"},
      {"queues", ARG_NUMBER, &o->numjobs, 1, 60, 1, .help = "of --engine=vhost: one thread each"},
      {"queue-size", ARG_NUMBER, &o->queue_size, 2, 1024, 1,
       .help = "of --engine=vhost; default: what --iodepth needs"},
      {"pieces", ARG_NUMBER, &o->pieces, 1, 14, 1,
       .help = "of --engine=vhost: descriptors for the data of a request"},
      {"regions", ARG_NUMBER, &o->regions, 1, 8, 1,
       .help = "of --engine=vhost: mappings that the memory is shared in"},
      {"ring", ARG_CHOICE, &o->ring, .choices = "split|packed",
       .help = "of --engine=vhost: which kind of virtqueue; default split"},
      {"without", ARG_TEXT, &o->without,
       .help = "of --engine=vhost: what is not to be negotiated, as flush,indirect,event-idx"},
      {"reconnect", ARG_SECONDS, &o->reconnect_s, 0, 3600, 1,
       .help = "of --engine=vhost: when the server goes, wait so long for the next one"},
      {"control-file", ARG_TEXT, &o->control_file,
       .help = "of --engine=vhost: alternate with the raw loop on this file"},
      {"workload", ARG_CHOICE, &o->workload, .choices = WORKLOAD_CHOICES,
       .help = "instead of --rw; kv: YCSB on small blobs; ingest: puts with periodic flushes; "
               "analytics: scans of column chunks; lambda: machines that boot from clones; the "
               "others are of volumes, verify: mixed "
               "requests, snapshots and clones, all data checked"},
      {"footer-size", ARG_SIZE, &o->footer_bytes, 1, 16 * MIB, 1,
       .help = "of --workload=analytics: bytes of a file's footer; default 32k"},
      {"chunk-size", ARG_TEXT, &o->chunk_text,
       .help = "of --workload=analytics: bytes of a column chunk, as MIN-MAX; default 1M-16M"},
      {"chunks", ARG_NUMBER, &o->chunks, 1, SCAN_CHUNKS_MAX, 1,
       .help = "of --workload=analytics: how many a scan reads; default 4"},
      {"ycsb", ARG_CHOICE, &o->ycsb, .choices = YCSB_CHOICES,
       .help = "of --workload=kv: half reads (default), 95 % reads, reads alone, half "
               "read-modify-writes",
       .given = &o->ycsb_given},
      {"boot-writes", ARG_NUMBER, &o->boot_writes, 0, 1000000, 1,
       .help = "of --workload=lambda: writes of 4 KiB of each machine; default 64",
       .given = &o->boot_writes_given},
      {"volume-size", ARG_SIZE, &o->volume_bytes, 4096, SR_VOLUME_BYTES_MAX, 4096,
       .help = "of each; default: half of the store for all", .given = &o->volume_size_given},
      {"volumes", ARG_NUMBER, &o->volumes, 1, 4096, 1,
       .help = "default: one for each core, with --where=client one"},
      {"clones", ARG_NUMBER, &o->clones, 1, 1000000, 1,
       .help = "of each volume; the load goes to them", .given = &o->clones_given},
      {"chain", ARG_NUMBER, &o->chain, 1, 65535, 1,
       .help = "the data lies so many snapshots below the clones; default 1"},
      {"stripe", ARG_SIZE, &o->stripe_bytes, 64 * KIB, GIB, 64 * KIB,
       .help = "stripe the volumes over all shards, in pieces of so many bytes"},
      {"reserve", ARG_FLAG, &o->reserve,
       .help = "map the volumes without writing them, for reads that do no device I/O"},
      {"integrity", ARG_CHOICE, &o->integrity, .choices = "sealed|off",
       .help = "checksums of what is sealed by snapshots; off for reserved volumes"},
      {"first-writes", ARG_FLAG, &o->first_writes,
       .help = "each write is the first of its block in a clone; clones are renewed as needed"},
      {"rwmixread", ARG_NUMBER, &o->mix_read, 0, 100, 1, .help = "percent, of randrw; default 50"},
      {"prealloc", ARG_CHOICE, &o->prealloc, .choices = "default|full|sparse|unwritten",
       .help = "unwritten: blobs are reserved, not written; reads do no device I/O"},
      {"control", ARG_FLAG, &o->control,
       .help = "alternate with the raw loop on the same CPU and print the ratio"},
      {"versus", ARG_TEXT, &o->versus,
       .help = "alternate with this shell command, which prints JSON as fio or shard-bench do, or "
               "one number, and print the ratio of the rates"},
      {"rounds", ARG_NUMBER, &o->rounds, 2, 1000, 1, .help = "of --versus; default 10",
       .given = &o->rounds_given},
      {"verify", ARG_FLAG, &o->verify, .choices = "crc32c",
       .help = "compare what is read with what was written; puts go on until each blob is there; "
               "with --engine=volume and no --rw: --workload=verify"},
      {"ops", ARG_NUMBER, &o->ops, 1, UINT64_MAX, 1,
       .help = "so many requests of each core or job, of --workload=verify in all, instead of "
               "--runtime"},
      {"lat-sample", ARG_NUMBER, &o->sample, 1, 1000000, 1,
       .help = "time one request in N; default 64", .given = &o->sample_given},
      {"percentile_list", ARG_TEXT, &o->percentile_text, .help = "as 50:99:99.9"},
      {"write_lat_log", ARG_TEXT, &o->latency_log,
       .help = "mean latencies over time into TEXT_lat.1.log, as fio with log_avg_msec"},
      {"write_hist_log", ARG_TEXT, &o->histogram_log,
       .help = "all latencies into TEXT.hgrm, as HdrHistogram's tools read it"},
      {"gtod_reduce", ARG_FLAG, &o->gtod_reduce, .help = "time no request at all"},
      {"seed", ARG_NUMBER, &o->seed, 0, UINT64_MAX, 1, .help = "of ids, contents, offsets"},
      {"name", ARG_TEXT, &o->name, .help = "of the run, in reports; default: --rw"},
      {"output-format", ARG_CHOICE, &o->format, .choices = "normal|json", .help = ""},
      {"eta", ARG_CHOICE, &o->eta, .choices = "auto|always|never",
       .help = "the live line on stderr: on a terminal only (default), also elsewhere, not at all"},
      {"output", ARG_TEXT, &o->output, .help = "write the report to this file"},
      {"version", ARG_FLAG, &o->version, .help = ""},
      {"help", ARG_FLAG, &o->help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  int words = args_parse(tool, table, argc, argv, word, 1);
  if (words >= 0 && o->help) help(table);
  return words;
}

int bench_option_check(const char *tool, char *option) {
  struct bench_options o;
  char *argv[] = {NULL, option};
  const char *word;
  return take_options(&o, tool, 2, argv, &word) < 0 ? -EINVAL : 0;
}

static int vhost_options(struct bench_options *o) {
  int r = check_cores(o);
  if (r == 0) r = bench_check_vhost(o);
  return r < 0 ? r : bench_check_fio(o);
}

int bench_options_parse(struct bench_options *o, int argc, char **argv) {
  const char *word;
  int words = take_options(o, TOOL, argc, argv, &word);
  if (words < 0) return words;
  progress_mode = o->eta;
  if (o->help) return 1;
  if (o->version) return printf("%s %s\n", TOOL, sr_version()), 1;
  if (words > 0) {
    o->job_file = word;
    return 0;
  }
  if (o->gtod_reduce) o->sample = 0;
  if ((o->latency_log || o->histogram_log) &&
      (!o->sample || o->control || o->control_file || o->engine == ENGINE_RAW ||
       bench_has_own_figures(o->workload)))
    return refuse(
        "--write_lat_log and --write_hist_log need a load that is timed and has no control");
  if (check_percentiles(o) < 0 || check_versus(o) < 0) return -EINVAL;
  if (bench_take_fio(o) < 0) return -EINVAL;
  if (o->engine == ENGINE_VHOST) return vhost_options(o);
  if (o->socket || o->control_file || o->queue_size || o->ring || o->reconnect_s > 0)
    return refuse("--socket, --control-file, --queue-size, --ring and --reconnect are for "
                  "--engine=vhost");
  int r = bench_check_workload(o);
  if (r == 0) r = check_volumes(o);
  if (r == 0) r = complete_store(o);
  if (r == 0) r = check_cores(o);
  if (r == 0) r = bench_check_special(o);
  if (r == 0) r = check_sizes(o);
  if (r == 0) r = check_rate(o);
  if (r == 0) r = check_distribution(o);
  if (r == 0) r = bench_check_fio(o);
  return r < 0 ? r : check_combinations(o);
}
