/* bench_options_vhost.c - the fourth part of what may be asked of shard-bench: --engine=vhost. Main
 * thread. */
#include "tools/bench.h"
#include "api/vhost/front.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static int refuse(const char *message) {
  fprintf(stderr, "shard-bench: %s\n", message);
  return -EINVAL;
}

static int refuse_size(const char *option, uint64_t value, const char *legal) {
  fprintf(stderr, "shard-bench: --%s=%llu: not a legal value here; legal: %s\n", option,
          (unsigned long long)value, legal);
  return -EINVAL;
}

static int refuse_rw(const struct bench_options *o, const char *legal) {
  fprintf(stderr, "shard-bench: --rw=%s: not a legal value here; legal: %s\n", bench_rw_name(o->rw),
          legal);
  return -EINVAL;
}

/* "flush,mq": bits that the front-end does not acknowledge. */
static int check_without(struct bench_options *o) {
  static const struct {
    const char *name;
    int bit;
    bool protocol;
  } parts[] = {
      {"flush", BLK_F_FLUSH, false},
      {"indirect", VIRTIO_F_INDIRECT_DESC, false},
      {"event-idx", VIRTIO_F_EVENT_IDX, false},
      {"mq", VHOST_PF_MQ, true},
      {"reply-ack", VHOST_PF_REPLY_ACK, true},
      {"inflight", VHOST_PF_INFLIGHT_SHMFD, true},
      {"mem-slots", VHOST_PF_CONFIGURE_MEM_SLOTS, true},
      {"backend-req", VHOST_PF_BACKEND_REQ, true},
  };
  for (const char *at = o->without; at && *at;) {
    size_t n = strcspn(at, ","), i = 0, count = sizeof(parts) / sizeof(parts[0]);
    while (i < count && !(strlen(parts[i].name) == n && memcmp(parts[i].name, at, n) == 0)) i++;
    if (i == count)
      return refuse("--without: legal: a list of flush, indirect, event-idx, mq, reply-ack, "
                    "inflight, mem-slots, backend-req");
    *(parts[i].protocol ? &o->protocol_off : &o->features_off) |= UINT64_C(1) << parts[i].bit;
    at += n + (at[n] == ',');
  }
  return 0;
}

int bench_check_vhost(struct bench_options *o) {
  bool other = o->rw == RW_PUT || o->rw == RW_GET || o->rw == RW_DELETE || o->rw == RW_OPEN;
  if (o->core_count)
    return refuse("--engine=vhost: --cores says which CPUs this process runs on: a list");
  if (!o->socket) return refuse("--engine=vhost needs --socket");
  if (o->store) return refuse("--engine=vhost goes to whatever the server has: no --store");
  if (other)
    return refuse_rw(o, "with --engine=vhost randread, read, randwrite, write, randrw, flush");
  if (o->control)
    return refuse("--engine=vhost cannot know the server's file: --control-file instead");
  if (o->control_file && (o->rw == RW_RANDRW || o->rw == RW_FLUSH))
    return refuse_rw(o, "with --control-file randread, read, randwrite, write");
  if (o->verify && o->rw == RW_FLUSH) return refuse("--verify does not go with --rw=flush");
  if (o->create && (o->control_file || !o->verify))
    return refuse("--create fills the disk for --verify, and goes without --control-file");
  if (o->verify && o->control_file && !bench_is_read(o->rw))
    return refuse("the raw loop would overwrite what --verify has written");
  if (o->ramp_s > 0)
    return refuse("--ramp_time is for loads on blobs and volumes without --control");
  if (o->rate_process && !o->rate) return refuse("--rate_process goes with --rate_iops");
  if (o->rate && (o->control_file || o->rw == RW_FLUSH))
    return refuse("--rate_iops is for reads and writes, without --control-file");
  if (o->rate && o->gtod_reduce)
    return refuse("--rate_iops is about latency: leave --gtod_reduce away");
  if (o->distribution_text)
    return refuse("--random_distribution is for random reads and writes of blobs and volumes");
  if ((o->rw == RW_FLUSH && o->sample) || o->rate) o->sample = 1;
  if (o->iodepth > 1024) return refuse_size("iodepth", o->iodepth, "up to 1024 for vhost");
  if (o->queue_size & (o->queue_size - 1))
    return refuse_size("queue-size", o->queue_size, "a power of two up to 1024");
  if (!o->batch_given && o->batch > o->iodepth) o->batch = o->iodepth;
  if (o->batch > o->iodepth) return refuse_size("batch", o->batch, "1 up to --iodepth");
  if (o->block_bytes > 16 * MIB) return refuse_size("bs", o->block_bytes, "up to 16M for vhost");
  if (o->block_bytes * o->iodepth * o->numjobs > 8 * GIB)
    return refuse("requests of that size need more than 8 GiB of buffers");
  snprintf(o->where_text, sizeof(o->where_text), "%s", o->socket);
  return check_without(o);
}
