/* shard_work.c - works and pieces: transfers of many device I/Os with a bounded window.
 * Owned by the shard's thread. Everything is allocated by works_create().
 *
 *   work_take -> work_drive: plan, submit ... -> piece_done -> work_drive ... -> finish
 *                    | no piece free: hungry FIFO                 (frees the work)
 *
 * A piece is held only while its I/O runs (or, in an ordered transfer, until the pieces before
 * it are done, which hold pieces themselves), so the hungry FIFO always drains. */
#include "shards/shard_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Checksums computed late ---------------------------------------------------------------
 *
 * The device starts on the data before their checksums are known: the two take about as long, and
 * so they overlap. The index needs the sums only when the data are down. */

#define LATE_BYTES (1u << 20) /* at a time, so that completions do not wait for long */

void sums_late_add(struct work *w) {
  struct shard *s = w->shard;
  w->sums_late = true;
  w->unsummed_next = NULL;
  w->unsummed_at = s->unsummed_last;
  *s->unsummed_last = w;
  s->unsummed_last = &w->unsummed_next;
}

static void late_remove(struct work *w) {
  struct shard *s = w->shard;
  *w->unsummed_at = w->unsummed_next;
  if (w->unsummed_next)
    w->unsummed_next->unsummed_at = w->unsummed_at;
  else
    s->unsummed_last = w->unsummed_at;
}

static uint64_t late_feed(struct work *w, uint64_t bytes) {
  uint64_t n = min_u64(bytes, w->src_bytes - w->summed_bytes);
  sums_feed(w->feed, w->src + w->summed_bytes, n);
  w->summed_bytes += n;
  if (w->summed_bytes == w->src_bytes) late_remove(w);
  return n;
}

void sums_late_end(struct work *w) {
  if (w->sums_late && w->summed_bytes < w->src_bytes) late_feed(w, UINT64_MAX);
}

bool sums_late_tick(struct shard *s) {
  for (uint64_t left = LATE_BYTES; s->unsummed && left > 0;) left -= late_feed(s->unsummed, left);
  return s->unsummed != NULL;
}

/* ---- Pools -------------------------------------------------------------------------------- */

int works_create(struct shard *s) {
  s->work_count = 2 * s->config.works_max;
  s->piece_count = 2 * s->config.works_max;
  s->bounces_bytes = (size_t)s->piece_count * BOUNCE_BYTES;
  s->works = calloc(s->work_count, sizeof *s->works);
  s->pieces = calloc(s->piece_count, sizeof *s->pieces);
  /* Mapped, not touched: what is never used costs no memory. */
  void *details = mmap(NULL, DETAILS_MAX * sizeof *s->details, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  s->details = details == MAP_FAILED ? NULL : details;
  void *bounces =
      mmap(NULL, s->bounces_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  s->bounces = bounces == MAP_FAILED ? NULL : bounces;
  s->hungry_last = &s->hungry;
  s->unsummed_last = &s->unsummed;
  if (!s->works || !s->pieces || !s->details || !s->bounces) return -ENOMEM;
  for (uint32_t i = s->work_count; i-- > 0;) {
    s->works[i].shard = s;
    s->works[i].next = s->free_works;
    s->free_works = &s->works[i];
  }
  for (uint32_t i = s->piece_count; i-- > 0;) {
    s->pieces[i].bounce = s->bounces + (size_t)i * BOUNCE_BYTES;
    s->pieces[i].next = s->free_pieces;
    s->free_pieces = &s->pieces[i];
  }
  for (uint32_t i = DETAILS_MAX; i-- > 0;) {
    s->details[i].next = s->free_details;
    s->free_details = &s->details[i];
  }
  return 0;
}

void works_destroy(struct shard *s) {
  if (s->bounces) munmap(s->bounces, s->bounces_bytes);
  if (s->details) munmap(s->details, DETAILS_MAX * sizeof *s->details);
  free(s->pieces);
  free(s->works);
}

/* The inline arrays, at the end, need no clearing. */
#define WORK_CLEARED offsetof(struct work, to_extents)

struct work *work_take(struct shard *s, bool detail) {
  struct work *w = s->free_works;
  if (!w || (detail && !s->free_details)) return NULL;
  s->free_works = w->next;
  memset(w, 0, WORK_CLEARED);
  w->shard = s;
  w->last = &w->first;
  w->feed = &w->sums;
  w->sums.at = w->inline_sums;
  w->extents = w->inline_extents;
  if (detail) check(work_take_detail(w));
  return w;
}

bool work_take_detail(struct work *w) {
  struct detail *d = w->shard->free_details;
  if (w->detail) return true;
  if (!d) return false;
  w->shard->free_details = d->next;
  w->detail = d;
  w->sums.at = d->sums;
  w->extents = d->extents;
  return true;
}

void work_free(struct work *w) {
  struct shard *s = w->shard;
  check(w->in_flight == 0 && !w->hungry);
  if (w->detail) {
    w->detail->next = s->free_details;
    s->free_details = w->detail;
  }
  w->next = s->free_works;
  s->free_works = w;
}

/* ---- Transfers ---------------------------------------------------------------------------- */

uint64_t cursor_run(const struct extent *extents, struct cursor *c, uint64_t *block) {
  if (c->used == extents[c->extent].blocks) {
    c->extent++;
    c->used = 0;
  }
  *block = extents[c->extent].block + c->used;
  return extents[c->extent].blocks - c->used;
}

static void hungry_add(struct work *w) {
  struct shard *s = w->shard;
  if (w->hungry) return;
  w->hungry = true;
  w->hungry_next = NULL;
  *s->hungry_last = w;
  s->hungry_last = &w->hungry_next;
}

void work_pieces_add(struct work *w, struct piece *p) {
  p->next = NULL;
  *w->last = p;
  w->last = &p->next;
}

struct piece *work_pieces_pop(struct work *w) {
  struct piece *p = w->first;
  if (!p || !p->done) return NULL;
  w->first = p->next;
  if (!w->first) w->last = &w->first;
  return p;
}

void piece_free(struct piece *p) {
  struct shard *s = p->work->shard;
  p->work->in_flight--;
  p->next = s->free_pieces;
  s->free_pieces = p;
}

static void piece_io_done(struct io *io) {
  struct piece *p = container_of(io, struct piece, io);
  p->work->piece_done(p);
}

static void issue(struct work *w, struct piece *p) {
  struct shard *s = w->shard;
  uint64_t block, run = cursor_run(w->extents, &w->from, &block);
  uint64_t bytes = min_u64(w->end - w->pos, IO_BYTES_MAX);
  run = region_map(s->region, block, run, &p->io);
  bytes = min_u64(bytes, run << BLOCK_SHIFT);
  p->work = w;
  p->pos = w->pos;
  p->done = false;
  p->bounced = false;
  p->io.done = piece_io_done;
  p->io.flags = 0;
  p->io.bytes = w->plan(w, p, (uint32_t)bytes);
  w->from.used += p->io.bytes >> BLOCK_SHIFT;
  w->pos += p->io.bytes;
  w->in_flight++;
  device_submit(s->device, &p->io);
}

static void fill_window(struct work *w) {
  struct shard *s = w->shard;
  while (w->pos < w->end && !w->error && w->in_flight < WORK_WINDOW) {
    struct piece *p = s->free_pieces;
    if (!p) {
      hungry_add(w);
      return;
    }
    s->free_pieces = p->next;
    issue(w, p);
  }
}

/* Pieces came free: first come, first served. A work that gets only some goes to the end. */
static void feed_hungry(struct shard *s) {
  while (s->hungry && s->free_pieces) {
    struct work *w = s->hungry;
    s->hungry = w->hungry_next;
    if (!s->hungry) s->hungry_last = &s->hungry;
    w->hungry = false;
    fill_window(w);
    if (w->in_flight == 0 && (w->error || w->pos == w->end)) w->finish(w);
  }
}

void work_drive(struct work *w) {
  struct shard *s = w->shard;
  /* Who waits for a piece goes before who has some. */
  if (s->hungry) {
    if (w->pos < w->end && !w->error) hungry_add(w);
  } else {
    fill_window(w);
  }
  if (w->in_flight == 0 && !w->hungry) w->finish(w);
  if (s->hungry) feed_hungry(s);
}

/* ---- Data to write ------------------------------------------------------------------------ */

/* Copies [at, at + bytes) of the data to write, zeros behind its end; returns how many of the
 * bytes are data. */
static uint64_t gather(const struct work *w, uint64_t at, char *to, uint64_t bytes) {
  uint64_t total = w->tail_bytes + w->src_bytes, n = min_u64(bytes, total - at), done = 0;
  if (at < w->tail_bytes) {
    done = min_u64(n, w->tail_bytes - at);
    memcpy(to, w->tail + at, done);
  }
  if (done < n) memcpy(to + done, w->src + (at + done - w->tail_bytes), n - done);
  memset(to + n, 0, bytes - n);
  return n;
}

uint32_t write_plan(struct work *w, struct piece *p, uint32_t bytes_max) {
  uint64_t at = w->pos - w->base, total = w->tail_bytes + w->src_bytes;
  uint64_t whole = round_down(total, BLOCK_BYTES), bytes = bytes_max, data;
  uintptr_t src = (uintptr_t)w->src + at - w->tail_bytes;
  p->io.op = IO_WRITE;
  if (at >= w->tail_bytes && is_aligned(src, BLOCK_BYTES) && at < whole) {
    bytes = data = min_u64(bytes, whole - at);
    p->io.buf = (void *)src;
  } else {
    bytes = min_u64(bytes, BOUNCE_BYTES);
    /* When only the first block needs a copy, the rest goes straight. */
    if (at < w->tail_bytes &&
        is_aligned((uintptr_t)w->src + BLOCK_BYTES - w->tail_bytes, BLOCK_BYTES))
      bytes = BLOCK_BYTES;
    data = gather(w, at, p->bounce, bytes);
    p->io.buf = p->bounce;
  }
  if (!w->sums_late) sums_feed(w->feed, p->io.buf, data);
  w->shard->write_bytes += data;
  return (uint32_t)bytes;
}

void write_piece_done(struct piece *p) {
  struct work *w = p->work;
  if (p->io.result && !w->error) w->error = p->io.result;
  piece_free(p);
  work_drive(w);
}
