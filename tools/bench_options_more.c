/* bench_options_more.c - the second part of what may be asked of shard-bench: the
 * workloads of our users, sizes of blobs, requests for other cores, flushes. Main thread. */
#include "tools/args.h"
#include "tools/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(const char *message) {
  fprintf(stderr, "shard-bench: %s\n", message);
  return -EINVAL;
}

/* ---- Workloads ------------------------------------------------------------------------------- */

static void default_blob(struct bench_options *o, uint64_t bytes) {
  if (o->blob_size_given || o->sizes_text) return;
  o->blob_bytes = bytes;
  o->blob_size_given = true;
}

/* Large requests: each of them is timed, few are in flight. */
static void default_depth(struct bench_options *o, uint64_t depth, uint64_t batch) {
  if (!o->iodepth_given) o->iodepth = depth;
  if (!o->batch_given) o->batch = batch < o->iodepth ? batch : o->iodepth;
  if (!o->sample_given && !o->gtod_reduce) o->sample = 1;
  o->batch_given = true;
}

static int check_ingest(struct bench_options *o) {
  default_blob(o, 256 << 10);
  default_depth(o, 16, 4);
  if (!o->flush_text) o->flush_text = "1s";
  o->rw = RW_PUT;
  return 0;
}

/* "1M-16M" */
static int take_chunks(struct bench_options *o) {
  struct sizes s;
  char text[64] = "uniform:1M-16M", why[64];
  int n = o->chunk_text ? snprintf(text, sizeof(text), "uniform:%s", o->chunk_text) : 0;
  if (n >= (int)sizeof(text) || sizes_parse(text, &s, why, sizeof(why)) < 0) {
    fprintf(stderr, "shard-bench: --chunk-size=%s: not a legal value; legal: MIN-MAX, as 1M-16M\n",
            o->chunk_text);
    return -EINVAL;
  }
  o->scan = (struct scan_shape){.footer_bytes = o->footer_bytes ? o->footer_bytes : 32 << 10,
                                .chunk_min = s.min,
                                .chunk_max = s.max,
                                .chunks = o->chunks ? (uint32_t)o->chunks : 4};
  return 0;
}

static int check_analytics(struct bench_options *o) {
  default_blob(o, 64 << 20);
  default_depth(o, 8, 1);
  if (!o->bs_given) o->block_bytes = 512 << 10;
  o->rw = RW_SPECIAL;
  int r = take_chunks(o);
  if (r == 0 && o->scan.footer_bytes > o->block_bytes)
    return refuse("--footer-size: a footer is read at once: at most --bs (default 512k)");
  return r;
}

static int check_lambda(struct bench_options *o) {
  if (o->engine != ENGINE_STORE && o->engine != ENGINE_VOLUME)
    return refuse("--workload=lambda goes to volumes: --engine=volume");
  if (o->where_given && o->where == WHERE_CORE)
    return refuse("--workload=lambda runs in threads of its own: --where=client");
  if (o->chain || o->volumes || o->blobs_given || o->blob_size_given)
    return refuse(
        "--workload=lambda has one image, and no blobs: leave --chain, --volumes, --blobs "
        "and --blob-size away");
  o->engine = ENGINE_VOLUME;
  o->where = WHERE_CLIENT;
  o->rw = RW_SPECIAL;
  default_depth(o, 4, 1);
  if (!o->numjobs_given) o->numjobs = 4;
  if (o->prealloc == PREALLOC_UNWRITTEN || o->device == DEVICE_NULL) o->reserve = true;
  if (o->reserve) o->integrity = 1;
  if (o->stripe_bytes & (o->stripe_bytes - 1)) return refuse("--stripe: a power of two, 64k to 1G");
  return 0;
}

static int check_kv(struct bench_options *o) {
  if (o->prealloc == PREALLOC_UNWRITTEN && o->ycsb != YCSB_C)
    return refuse("--prealloc=unwritten is for reads: with --workload=kv for --ycsb=c");
  default_blob(o, 1000); /* as YCSB's: ten fields of a hundred bytes */
  o->rw = RW_SPECIAL;
  if (!o->distribution_text) o->distribution_text = "zipf:0.99";
  return 0;
}

int bench_check_workload(struct bench_options *o) {
  bool user = o->workload > WORK_VERIFY;
  if (o->ycsb_given && o->workload != WORK_KV) return refuse("--ycsb goes with --workload=kv");
  if ((o->footer_bytes || o->chunk_text || o->chunks) && o->workload != WORK_ANALYTICS)
    return refuse("--footer-size, --chunk-size and --chunks go with --workload=analytics");
  if (o->boot_writes_given && o->workload != WORK_LAMBDA)
    return refuse("--boot-writes goes with --workload=lambda");
  if (!user) return 0;
  if (o->control || o->first_writes || o->rw_given)
    return refuse("--workload brings its own load: leave --rw, --control and --first-writes away");
  if (o->workload == WORK_LAMBDA) return check_lambda(o);
  if (o->engine != ENGINE_STORE) return refuse("this --workload goes to blobs: --engine=store");
  return o->workload == WORK_KV       ? check_kv(o)
         : o->workload == WORK_INGEST ? check_ingest(o)
                                      : check_analytics(o);
}

/* ---- Sizes, flushes, cores ------------------------------------------------------------------- */

static int take_sizes(struct bench_options *o) {
  char why[256];
  if (!o->sizes_text) return 0;
  int r = sizes_parse(o->sizes_text, &o->sizes, why, sizeof(why));
  if (r < 0) {
    fprintf(stderr,
            "shard-bench: --blob-size-dist=%s: not a legal value%s%s; legal: fixed:SIZE, "
            "uniform:MIN-MAX, lognormal:MEDIAN:SIGMA (up to 4), a list as 4k/60:64k/40, or a file "
            "with lines of a size and how often it comes up\n",
            o->sizes_text, why[0] ? ": " : "", why);
    return -EINVAL;
  }
  if (o->blob_size_given) return refuse("--blob-size-dist takes the place of --blob-size");
  if (o->engine != ENGINE_STORE) return refuse("--blob-size-dist is about blobs: --engine=store");
  if (o->rw == RW_FLUSH || o->control)
    return refuse("--blob-size-dist does not go with --rw=flush and --control");
  o->blob_bytes = o->sizes.max;
  o->blob_size_given = true;
  return 0;
}

/* "100", "64M", "2s", "500ms" */
static int take_flush(struct bench_options *o) {
  struct flush_rule *f = &o->flush_every;
  const char *text = o->flush_text;
  char *end;
  if (!text) return 0;
  double v = strtod(text, &end);
  bool number = text[0] >= '0' && text[0] <= '9' && v > 0 && v <= 1e15;
  if (number && strcmp(end, "s") == 0 && v <= 86400)
    f->ns = (uint64_t)(v * 1e9);
  else if (number && strcmp(end, "ms") == 0 && v <= 86400e3)
    f->ns = (uint64_t)(v * 1e6);
  else if (number && *end == 0 && v == (double)(uint64_t)v)
    f->puts = (uint64_t)v;
  else if (!number || *end == 0 || args_size(text, &f->bytes) < 0)
    f->bytes = 0;
  if (!bench_flushes(o)) {
    fprintf(stderr,
            "shard-bench: --flush-every=%s: not a legal value; legal: a number of puts, a time as "
            "2s or 500ms, or bytes as 64k or 16M\n",
            text);
    return -EINVAL;
  }
  bool updates = o->workload == WORK_KV && o->ycsb != YCSB_C;
  if (o->engine != ENGINE_STORE || (o->rw != RW_PUT && o->rw != RW_RANDWRITE && !updates))
    return refuse("--flush-every goes with --rw=put and randwrite of blobs, and with updates of "
                  "--workload=kv");
  if (bench_is_hollow(o) || o->control)
    return refuse("--flush-every does not go with --device=null, --prealloc=unwritten and "
                  "--control");
  return 0;
}

static int check_remote(struct bench_options *o) {
  bool can = o->rw == RW_RANDREAD || o->rw == RW_GET || o->rw == RW_RANDWRITE || o->rw == RW_PUT ||
             o->rw == RW_SPECIAL;
  if (!o->remote_given) return 0;
  if (o->where != WHERE_CORE)
    return refuse("--remote is for loads that run on the cores: --where=core");
  if (o->engine != ENGINE_STORE || !can || o->control)
    return refuse("--remote goes with --rw=randread, get, randwrite and put of blobs, and without "
                  "--control");
  if (o->core_count == 1) return refuse("--remote needs at least two cores, --cores says one");
  return 0;
}

/* A file has room for a chunk. */
static int check_files(const struct bench_options *o) {
  uint64_t least = o->sizes.kind ? o->sizes.min : o->blob_bytes, need;
  if (o->workload != WORK_ANALYTICS || least >= (need = scan_file_bytes_min(&o->scan))) return 0;
  fprintf(stderr,
          "shard-bench: --workload=analytics: files (--blob-size) of %llu bytes have no room for a "
          "chunk and the "
          "footer; legal: at least %llu with this --chunk-size and --footer-size\n",
          (unsigned long long)least, (unsigned long long)need);
  return -EINVAL;
}

int bench_check_special(struct bench_options *o) {
  int r = take_sizes(o);
  if (r == 0) r = check_files(o);
  if (r == 0) r = take_flush(o);
  return r < 0 ? r : check_remote(o);
}
