/* make_text.c - corpus of the targets that read text, of options and requests. */
#include <stdio.h>

#include "api/shardring.h"
#include "tests/fuzz/make_corpus.h"

static void add_all(const char *target, const char *const texts[], size_t count) {
  for (size_t i = 0; i < count; i++) {
    char name[16];
    snprintf(name, sizeof name, "%02zu", i);
    corpus_add_text(target, name, texts[i]);
  }
}

static void add_ids(void) {
  static const char *const texts[] = {"0",   "0123456789abcdefFEDCBA9876543210", "0x7f", "0X", "g",
                                      "0x0", "123456789012345678901234567890123"};
  add_all("id", texts, array_size(texts));
}

static void add_names(void) {
  static const char *const texts[] = {
      "mem:64M",   "mem:256M:4", "mem:1G:1", "mem:16777216",  "mem:",        "mem:-1",
      "mem:16M:0", "mem:32M: 2", "fd:3",     "fd:2147483647", "fd:-1",       "fd: 9",
      "fd:+9",     "/a",         "/a,/b,/c", "/a,,/b",        "/dev/a,fd:4", ","};
  add_all("names", texts, array_size(texts));
}

/* Words are parted by "|" here. */
static void add_args(void) {
  static const char *const lines[] = {
      "--flag|--text=a|--number=7|--size=64k|--seconds=1.5s|--choice=two|word",
      "--number|12|--|--flag|x|y",
      "--size=1TiB|--seconds=250ms|--seconds=2m|--flag=0",
      "--store=mem:|--create|--size=64M|--shards=2|--rw=randread|--bs=4k|--iodepth=8|--batch=4",
      "--store=/x|--rw=put|--blob-size=1MiB|--blobs=100|--where=client|--numjobs=4|--runtime=10ms",
      "--store=/x|--control|--verify|--seed=18446744073709551615|--cores=0-3,8|--device=pool",
      "--engine=raw|--prealloc=unwritten|--lat-sample=1|--gtod_reduce|--output-format=json",
      "--help",
      "--version",
      "1|2|3|1k|18446744073709551615|99999999999999999999|16EiB|7tb|--output=y",
      "--store=mem:|--workload=kv|--ycsb=f|--blob-size-dist=4k/60:64k/"
      "40|--remote=50|--flush-every=1M",
      "--store=mem:|--rw=put|--blob-size-dist=lognormal:16k:1.5|--flush-every=500ms|--cores=2",
      "--store=mem:|--workload=analytics|--blob-size-dist=uniform:4M-8M|--chunk-size=1M-2M|--"
      "chunks=3",
      "--store=mem:|--workload=lambda|--clones=7|--boot-writes=0|--volume-size=16M|--stripe=1M",
      "--store=/x|--workload=ingest|--flush-every=100|--blob-size-dist=1k:2k/50:3k/|--where=client",
      "--store=mem:|--bssplit=4k/60:64k/40|--iodepth_batch_complete=9|--ops=7|--cpus_allowed=0-1,3",
      "--store=mem:|--latency_target=1.5ms|--latency_window=10ms|--latency_percentile=99.9|--eta="
      "never",
      "--store=/"
      "x|--steadystate=iops_slope:0.3%|--steadystate_duration=2|--fixedbufs|--verify=crc32c",
      "--engine=vhost|--socket=/s|--rw=randrw|--rate_iops=5|--group_reporting=0|--cores=2,",
  };
  static struct draft d;
  for (size_t i = 0; i < array_size(lines); i++) {
    char name[16];
    d.count = 0;
    draft_bytes(&d, lines[i], strlen(lines[i]));
    for (size_t k = 0; k < d.count; k++)
      if (d.bytes[k] == '|') d.bytes[k] = 0;
    snprintf(name, sizeof name, "%02zu", i);
    corpus_add("args", name, d.bytes, d.count);
  }
}

static void add_host_commands(void) {
  static const char *const lines[] = {
      "{\"id\":1,\"do\":\"ping\"}",
      "{\"id\":\"a\",\"do\":\"attach\",\"volume\":\"x\",\"name\":\"vm1\",\"queues\":4,\"mode\":"
      "432}",
      "{\"do\":\"attach\",\"file\":\"disk.raw\",\"socket\":\"s\",\"cache\":\"ephemeral\",\"read_"
      "only\":true}",
      "{\"do\":\"attach\",\"volume\":\"x\",\"listen\":\"fd\",\"serial\":\"s\",\"queue_size\":128}",
      "{\"do\":\"detach\",\"name\":\"vm1\",\"force\":true,\"remove\":true,\"durable\":true}",
      "{\"do\":\"clone\",\"snapshot\":\"g\",\"volume\":\"c\",\"attach\":false,\"size_bytes\":4096}",
      "{\"do\":\"create\",\"volume\":\"v\",\"size_bytes\":1048576,\"striped\":true,\"group_id\":7}",
      "{\"do\":\"limit\",\"volume\":\"v\",\"group\":\"g\",\"ops\":{\"size\":10,\"refill_ms\":100}}",
      "{\"do\":\"limit\",\"all\":true,\"unlimited\":true,\"bytes\":{\"size\":1,\"one_time_burst\":"
      "2}}",
      "{\"do\":\"list\",\"after\":\"\",\"max\":10}",
      "{\"do\":\"resize\",\"volume\":\"#17\",\"size_bytes\":512}",
      "{\"do\":\"snapshot\",\"volume\":\"v\",\"snapshot\":\"s\"}",
      "{\"do\":\"stat\",\"name\":\"\\u00e9\\\"\\\\\"}",
      "{\"do\":\"drain\",\"on\":false}",
      "{\"do\":\"upgrade\",\"id\":-1}",
      "{\"do\":\"ping\",\"do\":\"ping\"}",
      "[[[[[]]]]]",
      "{\"do\":\"attach\",\"volume\":\"../x\",\"socket\":\"../x\"}",
      "{\"do\":\"ranges\",\"volume\":\"v\",\"offset\":4096,\"bytes\":1048576,\"max\":2}",
      "{\"do\":\"attach\",\"volume\":\"#1\",\"name\":\"#1.nbd\",\"share\":true,\"read_only\":"
      "false}",
  };
  add_all("host_command", lines, array_size(lines));
}

static void add_cpus(void) {
  static const struct {
    uint8_t machine;
    uint16_t cores, shards;
    const char *list, *allowed;
  } asks[] = {
      {0, 0, 8, "", ""},    {0, 4, 10, "", "0-3,8-15"}, {0, 0, 3, "0-3,8,15", ""},
      {0, 0, 3, "1,1", ""}, {1, 0, 1024, "0", "0"},     {2, 3, 2, "", "0-2"},
      {0, 16, 0, "", ""},   {0, 0, 5, "0-3,", ""},      {0, 0, 5, "8191-8192", "0-8191"},
  };
  static struct draft d;
  for (size_t i = 0; i < array_size(asks); i++) {
    char name[16];
    d.count = 0;
    draft_number(&d, asks[i].machine, 1);
    draft_number(&d, asks[i].cores, 2);
    draft_number(&d, asks[i].shards, 2);
    draft_number(&d, UINT64_C(0xff01000100010001), 8);
    draft_bytes(&d, asks[i].list, strlen(asks[i].list) + 1);
    draft_bytes(&d, asks[i].allowed, strlen(asks[i].allowed) + 1);
    snprintf(name, sizeof name, "%02zu", i);
    corpus_add("cpus", name, d.bytes, d.count);
  }
}

static void add_options(const char *name, uint8_t which, size_t says, const void *from,
                        size_t bytes) {
  static struct draft d;
  d.count = 0;
  draft_number(&d, which, 1);
  draft_number(&d, says, 2);
  draft_bytes(&d, (const char *)from + sizeof(size_t), bytes - sizeof(size_t));
  corpus_add("options", name, d.bytes, d.count);
}

static void add_all_options(void) {
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  struct sr_port_options port = SR_PORT_OPTIONS_INIT;
  format.size_bytes = 1 << 30;
  format.shards = 4;
  open.queue_depth = 64;
  port.depth = 128;
  add_options("format", 0, sizeof format, &format, sizeof format);
  add_options("open", 1, sizeof open, &open, sizeof open);
  add_options("port", 2, sizeof port, &port, sizeof port);
  add_options("older", 0, sizeof(size_t), &format, sizeof format);
  add_options("newer", 2, sizeof port + 32, &port, sizeof port);
  add_options("newer_and_used", 2, sizeof open, &open, sizeof open);
  add_options("too_large", 1, 5000, &open, sizeof open);
}

static void begin_requests(struct draft *d, uint8_t flags, const char *engine) {
  d->count = 0;
  draft_number(d, flags, 1);
  static const uint8_t defaults[37];
  draft_bytes(d, defaults, sizeof defaults);
  draft_bytes(d, engine, strlen(engine) + 1);
  draft_bytes(d, "", 1);
}

static void add_request(struct draft *d, uint8_t op, uint32_t flags, uint8_t id, uint64_t offset,
                        uint64_t bytes, uint8_t parts) {
  draft_number(d, op, 1);
  draft_number(d, flags, 4);
  draft_number(d, id, 1);
  draft_number(d, offset, 8);
  draft_number(d, bytes, 8);
  draft_number(d, parts, 1);
}

static void add_requests(void) {
  static struct draft d;
  begin_requests(&d, 0, "");
  add_request(&d, SR_OP_PUT, 0, 1, 0, 5000, 0);
  add_request(&d, SR_OP_PUT, SR_DURABLE, 2, 0, 20000, 0);
  add_request(&d, SR_OP_GET, 0, 1, 4090, 100, 0);
  add_request(&d, SR_OP_GET, SR_NO_CHECKSUM, 2, UINT64_MAX, 100, 0);
  add_request(&d, SR_OP_PUT, SR_IF_ABSENT, 1, 0, 1, 0);
  add_request(&d, SR_OP_DELETE, 0, 2, 0, 0, 0);
  add_request(&d, SR_OP_STAT, 0, 2, 0, 0, 0);
  add_request(&d, SR_OP_FLUSH, 0, 0, 0, 0, 0);
  corpus_add("requests", "all", d.bytes, d.count);
  begin_requests(&d, 4, "mem");
  add_request(&d, SR_OP_PUT, SR_RESERVE, 3, 0, 1 << 20, 0);
  add_request(&d, SR_OP_PUT, SR_RESERVE, 4, 0, UINT64_MAX, 0);
  add_request(&d, SR_OP_GET, 0, 3, 1 << 19, 4096, 0);
  add_request(&d, SR_OP_NOP, 0, 3, 0, 0, 0);
  corpus_add("requests", "reserve", d.bytes, d.count);
  begin_requests(&d, 0, "");
  add_request(&d, SR_OP_BATCH, SR_DURABLE, 0, 0, 0, 3);
  add_request(&d, SR_OP_PUT, 0, 1, 0, 5000, 0);
  add_request(&d, SR_OP_PUT, SR_NO_CHECKSUM, 2, 0, 100, 0);
  add_request(&d, SR_OP_DELETE, 0, 1, 0, 0, 0);
  add_request(&d, SR_OP_GET, 0, 2, 0, 100, 0);
  corpus_add("requests", "batch", d.bytes, d.count);
  begin_requests(&d, 1, "null");
  corpus_add("requests", "read_only", d.bytes, d.count);
}

static void add_settings(void) {
  static const char *const texts[] = {
      "# measured\npoll_us = 120\nqueue_depth = 64\nflush = write+flush\n",
      "flush=fua\r\n\tpoll_us=1000000\n\nqueue_depth=4096",
      "poll_us = 0\n",
      "queue_depth = 4097\n",
      "poll_us = 5\npoll_us = 5\n",
      "flush = never\n",
      "= 5\n#\n",
      "words\n",
      "\x01\x1b[31m = 99999999999\n",
  };
  add_all("settings", texts, array_size(texts));
}

void corpus_text(void) {
  add_settings();
  add_requests();
  add_ids();
  add_names();
  add_args();
  add_host_commands();
  add_cpus();
  add_all_options();
}
