/* kv_shardring.c - Shardring behind the table of kv.h. One item: the blocking call; several: one
 * submit, and all are waited for. Values have their checksums, gets verify them. Each thread has a
 * port of its own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/shardring.h"
#include "bench/kv.h"

struct own {
  struct sr_store *store;
  struct sr_port *port;
  const struct kv_config *config;
  struct sr_request requests[KV_BATCH_MAX];
};

static void version(char *text, size_t bytes) {
  snprintf(text, bytes, "Shardring %s", sr_version());
}

static int open_store(const struct kv_config *config, void **store) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  uint64_t blob = (config->value_bytes + 4095) / 4096 * 4096;
  int r = 0;
  /* Room for all of it twice: a put writes to a new place, and the old one is free after a flush.
   */
  f.size_bytes = config->values * blob * 2 + (UINT64_C(256) << 20);
  f.prealloc = SR_PREALLOC_FULL;
  f.force = true;
  if (config->cores) f.shards = (uint32_t)config->cores;
  if (config->create) r = sr_format(config->directory, &f);
  o.core_count = (uint32_t)config->cores;
  o.poll_us = (uint32_t)config->poll_us;
  if (config->threads * config->batch * blob > (32u << 20))
    o.arena_bytes = config->threads * config->batch * blob;
  if (r == 0) r = sr_store_open(config->directory, &o, (struct sr_store **)store);
  return r ? kv_fail(config->directory, NULL, r) : 0;
}

static int close_store(void *store) {
  int r = sr_store_close(store);
  return r ? kv_fail("close", NULL, r) : 0;
}

static char *buffer(void *store, uint64_t bytes) { return sr_buffer_alloc(store, bytes, false); }

static int thread_open(void *store, const struct kv_config *config, void **result) {
  struct own *own = aligned_alloc(64, sizeof *own);
  if (!own) return -ENOMEM;
  memset(own, 0, sizeof *own);
  own->store = store;
  own->config = config;
  int r = sr_port_open(store, NULL, &own->port);
  if (r) {
    free(own);
    return kv_fail("port", NULL, r);
  }
  *result = own;
  return 0;
}

static void thread_close(void *arg) {
  struct own *own = arg;
  sr_port_close(own->port);
  free(own);
}

static struct sr_id id_of(uint64_t key) { return (struct sr_id){kv_key_high(key), key}; }

static int run_batch(struct own *own, struct kv_item *items, uint32_t count, uint32_t op,
                     uint32_t flags) {
  struct sr_request *list[KV_BATCH_MAX], *out[KV_BATCH_MAX];
  uint32_t sent = 0, back = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct sr_request *q = &own->requests[i];
    q->op = op, q->flags = flags, q->id = id_of(items[i].key), q->buf = items[i].buffer;
    q->offset = 0, q->bytes = own->config->value_bytes, q->done = NULL;
    list[i] = q;
  }
  while (back < count) {
    int n = sent < count ? sr_port_submit(own->port, list + sent, count - sent) : 0;
    if (n < 0 && n != -EAGAIN) return kv_fail("submit", NULL, n);
    if (n > 0) sent += (uint32_t)n;
    n = sr_port_reap(own->port, out, count);
    if (n < 0) return kv_fail("reap", NULL, n);
    back += (uint32_t)n;
    if (n == 0) sr_port_wait(own->port, -1);
  }
  for (uint32_t i = 0; i < count; i++)
    if (own->requests[i].result < 0) return kv_fail("request", NULL, (int)own->requests[i].result);
  return 0;
}

static int get(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  if (count == 1) {
    int64_t n =
        sr_get(own->port, id_of(items[0].key), items[0].buffer, 0, own->config->value_bytes);
    if (n < 0) return kv_fail("get", NULL, (int)n);
    kv_seen(&items[0], items[0].buffer, (uint64_t)n);
    return 0;
  }
  int r = run_batch(own, items, count, SR_OP_GET, 0);
  for (uint32_t i = 0; r == 0 && i < count; i++)
    kv_seen(&items[i], items[i].buffer, (uint64_t)own->requests[i].result);
  return r;
}

static int put(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  uint32_t flags = own->config->durable ? SR_DURABLE : 0;
  if (count > 1) return run_batch(own, items, count, SR_OP_PUT, flags);
  int r = sr_put(own->port, id_of(items[0].key), items[0].buffer, own->config->value_bytes, flags);
  return r ? kv_fail("put", NULL, r) : 0;
}

static int sync_store(void *arg) {
  struct own *own = arg;
  int r = sr_flush(own->port);
  return r ? kv_fail("flush", NULL, r) : 0;
}

static void describe(void *arg) {
  struct own *own = arg;
  struct sr_store_stats st;
  struct sr_core_stats core;
  if (sr_store_stats(own->port, &st)) return;
  fprintf(stderr, "flushes %llu (%llu shared), durable commits %llu\n",
          (unsigned long long)st.flushes, (unsigned long long)st.flushes_shared,
          (unsigned long long)st.durable_commits);
  for (uint32_t i = 0; i < st.cores; i++) {
    if (sr_core_stats(own->port, i, &core)) return;
    fprintf(stderr,
            "core %u: gets %llu, puts %llu; device I/Os %llu in %llu submits, of them flushes %llu,"
            " FUA %llu; slept %llu times, woke others %llu times; batches in %llu of %llu\n",
            i, (unsigned long long)core.gets, (unsigned long long)core.puts,
            (unsigned long long)core.device_ios, (unsigned long long)core.device_submits,
            (unsigned long long)core.device_flushes, (unsigned long long)core.device_fua_writes,
            (unsigned long long)core.sleeps, (unsigned long long)core.wakes_sent,
            (unsigned long long)core.batches_in, (unsigned long long)core.hops_in);
  }
}

const struct kv_peer kv_shardring = {.name = "shardring",
                                     .version = version,
                                     .open = open_store,
                                     .close = close_store,
                                     .thread_open = thread_open,
                                     .thread_close = thread_close,
                                     .get = get,
                                     .put = put,
                                     .sync = sync_store,
                                     .describe = describe,
                                     .buffer = buffer};
