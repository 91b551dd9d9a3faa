/* stream.c - streaming puts: a stream is a place in one shard, named by what begin returned. */
#include <errno.h>
#include <stdlib.h>

#include "api/internal.h"

struct sr_stream {
  void *work; /* the shard's */
  uint64_t hash;
};
void stream_fill_op(const struct sr_stream *stream, struct shard_op *op);

void stream_fill_op(const struct sr_stream *stream, struct shard_op *op) {
  op->work = stream->work;
  op->hash = stream->hash;
}

int sr_stream_begin(struct sr_port *p, struct sr_id id, uint64_t size_bytes, uint32_t flags,
                    struct sr_stream **out) {
  if (!p || !out || flags & ~(SR_DURABLE | SR_IF_ABSENT | SR_NO_CHECKSUM)) return -EINVAL;
  struct sr_stream *stream = malloc(sizeof *stream);
  if (!stream) return -ENOMEM;
  struct shard_op op = {.kind = OP_STREAM_BEGIN, .flags = (uint8_t)flags, .bytes = size_bytes};
  op.id = (struct blob_id){id.hi, id.lo};
  op.hash = stream->hash = hash_of(port_of(p)->store, id);
  int r = (int)run_op(p, &op);
  stream->work = op.work;
  if (r)
    free(stream);
  else
    *out = stream;
  return r;
}

static int run_stream(struct sr_port *p, struct sr_stream *stream, struct shard_op *op) {
  if (!p || !stream) return -EINVAL;
  stream_fill_op(stream, op);
  return (int)run_op(p, op);
}

int sr_stream_append(struct sr_port *p, struct sr_stream *stream, const void *buf, uint64_t bytes) {
  struct shard_op op = {.kind = OP_APPEND, .buf = (void *)(uintptr_t)buf, .bytes = bytes};
  if (!p || !stream || (!buf && bytes)) return -EINVAL;
  stream_fill_op(stream, &op);
  int64_t r = run_op(p, &op);
  return r < 0 ? (int)r : 0;
}

int sr_stream_commit(struct sr_port *p, struct sr_stream *stream) {
  struct shard_op op = {.kind = OP_STREAM_COMMIT};
  int r = run_stream(p, stream, &op);
  if (p && r != -EDEADLK) free(stream);
  return r;
}

int sr_stream_abort(struct sr_port *p, struct sr_stream *stream) {
  struct shard_op op = {.kind = OP_STREAM_ABORT};
  int r = run_stream(p, stream, &op);
  if (p && r != -EDEADLK) free(stream);
  return r;
}
