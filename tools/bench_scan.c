/* bench_scan.c - --workload=analytics: scans of files of column chunks (bench_models.h). On the
 * load's own thread.
 *
 *   the last 8 bytes -> the footer -> each chunk that the query needs, in ranged reads of --bs
 *
 * A scan has one request in flight, as what it reads first tells it what to read next; --iodepth
 * scans go on at once. */
#include "tools/bench_load.h"

enum { SCAN, FOOTER, CHUNK, READ };

struct scan {
  uint64_t file_bytes, chunk_ns; /* when its first read was sent; 0: it is not timed */
  struct scan_range chunks[SCAN_CHUNKS_MAX];
  uint32_t count, at;
  uint64_t done; /* bytes of the chunk that it is at */
  uint64_t all;  /* bytes of the scan */
};

static void aim(struct load *l, struct load_work *w, uint64_t offset, uint64_t bytes) {
  w->request.offset = offset;
  w->request.bytes = bytes;
  w->want = (int64_t)bytes;
  (void)l;
}

static void begin(struct load *l, struct load_work *w) {
  struct scan *s = load_state(l, w);
  struct sr_request *r = &w->request;
  uint64_t block;
  w->number = load_choose(l, w, &block);
  s->file_bytes = load_blob_bytes(l, w->number);
  s->at = s->count = 0;
  s->done = s->all = 0;
  r->op = SR_OP_GET;
  r->flags = l->read_flags;
  r->id = bench_id(w->number, l->seed);
  r->buf = load_buffer(l, w, 0);
  aim(l, w, s->file_bytes - SCAN_TAIL_BYTES, SCAN_TAIL_BYTES);
}

static void aim_chunk(struct load *l, struct load_work *w, struct scan *s) {
  const struct scan_range *c = &s->chunks[s->at];
  uint64_t left = c->bytes - s->done;
  aim(l, w, c->offset + s->done, left < l->request_bytes ? left : l->request_bytes);
}

/* The footer has been read: now it is known where the chunks are. */
static void end_footer(struct load *l, struct load_work *w, struct scan *s, uint64_t now) {
  const struct bench_options *o = &l->bench->o;
  load_class_add(l, FOOTER, SCAN_TAIL_BYTES + o->scan.footer_bytes, now, w->op_ns, w->sent_ns);
  s->count = scan_choose(&o->scan, s->file_bytes, w->number, l->seed, &l->random, s->chunks);
  s->chunk_ns = now;
}

static bool end_read(struct load *l, struct load_work *w, struct scan *s, uint64_t now) {
  s->done += w->request.bytes;
  if (s->done < s->chunks[s->at].bytes) return true;
  load_class_add(l, CHUNK, s->done, now, s->chunk_ns, s->chunk_ns);
  s->done = 0;
  s->chunk_ns = now;
  if (++s->at < s->count) return true;
  load_class_add(l, SCAN, s->all, now, w->op_ns, w->sent_ns);
  return false;
}

static bool step(struct load *l, struct load_work *w, uint64_t now) {
  struct scan *s = load_state(l, w);
  load_compare(l, w, w->request.bytes);
  s->all += w->request.bytes;
  uint64_t due = w->step == 0 ? w->op_ns : w->start_ns;
  load_class_add(l, READ, w->request.bytes, now, due, w->start_ns);
  if (w->step == 0) {
    struct scan_range footer = scan_footer(&l->bench->o.scan, s->file_bytes);
    aim(l, w, footer.offset, footer.bytes);
    return true;
  }
  if (w->step == 1)
    end_footer(l, w, s, now);
  else if (!end_read(l, w, s, now))
    return false;
  aim_chunk(l, w, s);
  return true;
}

const struct load_script bench_scan_script = {
    .classes = {[SCAN] = {"scan", SIDE_NONE},
                [FOOTER] = {"footer", SIDE_NONE},
                [CHUNK] = {"chunk", SIDE_NONE},
                [READ] = {"read", SIDE_READ}},
    .buffers = 1,
    .state_bytes = sizeof(struct scan),
    .begin = begin,
    .step = step,
};
