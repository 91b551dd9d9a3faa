/* manifest_log.c - buffers become frames on disk; commits and seals. Owned by the shard's thread;
 * the rules are in manifest_internal.h.
 *
 * A barrier:
 *   manifest_commit(), manifest_seal() -> start: closes the open buffer
 *   STEP_FRAMES        all closed buffers are written (seal: the directory too)
 *   STEP_FLUSH         one flush of each file of the region
 *   STEP_COMMIT_FRAME  commit only, and only if there are frames to cover that recovery could not
 *                      verify: the frame that makes them count, FUA
 *   finish             waiters, or seal->done
 * After a commit without such a frame, and if nobody has more to write, one is written all the
 * same, for which nobody waits: the witness by which damage of what was durable is told from a torn
 * tail. Each I/O's end calls barrier_advance(). A failed write or flush is never tried again: the
 * manifest stops writing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"
#include "shards/manifest_internal.h"

static void barrier_start(struct manifest *m);

void manifest_fail(struct manifest *m, int error, const char *what) {
  if (!m->stopped)
    log_line(&m->config.logger, 0,
             "shard %u: %s failed: %s: writing stops until the store is reopened", m->config.shard,
             what, strerror(-error));
  m->stopped = true;
  if (m->config.survivor) __atomic_store_n(&m->config.survivor->failed, 1, __ATOMIC_SEQ_CST);
  if (!m->barrier_result) m->barrier_result = error;
}

uint64_t manifest_log_free_blocks(const struct manifest *m) {
  uint64_t used = m->position - m->durable_head, log = m->config.region->log_blocks;
  return used < log ? log - used : 0;
}

uint64_t manifest_log_staged_blocks(const struct manifest *m) {
  uint64_t staged = m->open_buffer ? frame_blocks(m->open_buffer->payload_bytes) : 0;
  for (const struct log_buffer *b = m->closed; b; b = b->next)
    staged += frame_blocks(b->payload_bytes);
  return staged;
}

/* ---- Buffers ----------------------------------------------------------------------------- */

static void close_buffer(struct manifest *m) {
  struct log_buffer *b = m->open_buffer;
  if (!b) return;
  check(b->entry_count > 0);
  b->next = NULL;
  *m->closed_last = b;
  m->closed_last = &b->next;
  m->open_buffer = NULL;
}

static void open_buffer(struct manifest *m) {
  struct log_buffer *b = m->free_buffers;
  check(b != NULL); /* reservations */
  m->free_buffers = b->next;
  m->free_count--;
  b->payload_bytes = b->entry_count = 0;
  b->data_bytes = 0;
  b->sequence = m->sequence;
  if (b->survivor) survivor_begin(b->survivor, b->sequence);
  m->open_buffer = b;
}

/* Closing early gives up the rest of the buffer: only if no reservation counts on it. */
static bool may_close_early(const struct manifest *m) {
  return m->free_count >= 2 * m->large_reserved &&
         m->small_reserved <= (uint64_t)SMALL_ROOM * (m->free_count - 2 * m->large_reserved);
}

void *manifest_log_place(struct manifest *m, uint32_t bytes_max) {
  struct log_buffer *b = m->open_buffer;
  if (b && FRAME_HEADER_BYTES + b->payload_bytes + bytes_max > FRAME_BYTES_MAX) close_buffer(m);
  if (!m->open_buffer) open_buffer(m);
  return m->open_buffer->bytes + FRAME_HEADER_BYTES + m->open_buffer->payload_bytes;
}

static void add_data(struct log_buffer *b, uint64_t bytes) {
  bool never = bytes == UNVERIFIABLE || b->data_bytes == UNVERIFIABLE;
  b->data_bytes = never ? UNVERIFIABLE : b->data_bytes + bytes;
}

/* Of a batch that does not fit one frame none may count without the others. */
static void note_group(struct manifest *m, struct log_buffer *b) {
  if (!m->group_buffer) m->group_buffer = b;
  if (m->group_buffer == b || PLANTED(split_a_batch)) return;
  add_data(m->group_buffer, UNVERIFIABLE);
  add_data(b, UNVERIFIABLE);
}

void manifest_log_batched(struct manifest *m) {
  if (m->open_buffer) add_data(m->open_buffer, UNVERIFIABLE);
  for (struct log_buffer *b = m->closed; b; b = b->next) add_data(b, UNVERIFIABLE);
}

void manifest_log_added(struct manifest *m, uint32_t bytes, uint64_t data_bytes) {
  struct log_buffer *b = m->open_buffer;
  b->payload_bytes += bytes;
  b->entry_count++;
  add_data(b, data_bytes);
  if (m->in_group) note_group(m, b);
  check(FRAME_HEADER_BYTES + b->payload_bytes <= FRAME_BYTES_MAX);
  if (b->survivor) survivor_fill(b->survivor, b->payload_bytes, b->entry_count);
  if (m->recovering) return;
  bool at_once = data_bytes >= FRAME_AT_ONCE_BYTES && b->data_bytes != UNVERIFIABLE && !m->in_group;
  if ((at_once || b->payload_bytes >= manifest_frame_target(m)) && may_close_early(m))
    close_buffer(m);
}

/* ---- Frames ------------------------------------------------------------------------------ */

/* What survived goes on where the process before stopped, in its name: frames in ours say that a
 * root of ours is durable. */
static struct frame next_frame(const struct manifest *m, uint64_t sequence) {
  return (struct frame){.store = m->store_key,
                        .shard = m->config.shard,
                        .incarnation =
                            m->config.incarnation - (m->unsettled && !PLANTED(own_name_too_soon)),
                        .epoch = m->epoch,
                        .position = m->position,
                        .sequence = sequence,
                        .durable = m->flushed_position,
                        .chain = m->chain};
}

/* Gives the frame its place and starts its write. */
static void write_frame(struct manifest *m, struct frame *f, char *bytes, struct io *io,
                        void (*done)(struct io *), uint8_t flags) {
  uint64_t log = m->config.region->log_blocks, blocks = frame_blocks(f->payload_bytes);
  check(log_place(f->position, log) + blocks <= log);
  check(f->position + blocks - m->durable_head <= log);
  frame_encode(f, bytes);
  *io = (struct io){.done = done,
                    .buf = bytes,
                    .bytes = (uint32_t)(blocks << BLOCK_SHIFT),
                    .op = IO_WRITE,
                    .flags = flags};
  check(region_map(m->config.region, log_place(f->position, log), blocks, io) == blocks);
  m->position = log_next(f->position, blocks, f->flags, log);
  m->chain = f->checksum;
  m->told_position = f->flags & FRAME_COMMIT ? m->position : f->durable;
  m->frames++;
  m->writes_in_flight++;
  device_submit(m->config.device, io);
}

/* Buffers become free in the order of their frames, and not before a skip between them is written:
 * at any moment the frames on disk, one after the other, and the buffers that are not free have all
 * changes. */
static void release_written(struct manifest *m) {
  while (m->writing_buffers && m->writing_buffers->written && !m->frame_io.op) {
    struct log_buffer *b = m->writing_buffers;
    m->writing_buffers = b->next;
    if (!m->writing_buffers) m->writing_last = &m->writing_buffers;
    if (b->survivor && !m->stopped) survivor_empty(b->survivor);
    b->next = m->free_buffers;
    m->free_buffers = b;
    m->free_count++;
  }
}

/* A frame without entries is written. */
static void empty_written(struct io *io) {
  struct manifest *m = container_of(io, struct manifest, frame_io);
  m->writes_in_flight--;
  if (io->result) manifest_fail(m, io->result, "a write to the log");
  io->op = 0; /* free again */
  release_written(m);
  manifest_log_pump(m);
  barrier_advance(m);
}

/* True: the next frame of so many blocks fits before the ring's end. Else a skip is written
 * first (false: its buffer is in use). */
static bool make_place(struct manifest *m, uint64_t blocks, uint64_t sequence) {
  uint64_t log = m->config.region->log_blocks;
  if (log_place(m->position, log) + blocks <= log) return true;
  if (m->frame_io.op) return false;
  struct frame f = next_frame(m, sequence);
  f.flags = FRAME_SKIP;
  write_frame(m, &f, m->frame_bytes, &m->frame_io, empty_written, 0);
  return true;
}

static void buffer_written(struct io *io) {
  struct log_buffer *b = container_of(io, struct log_buffer, io);
  struct manifest *m = b->manifest;
  m->writes_in_flight--;
  if (io->result && !PLANTED(ignore_failed_log_write))
    manifest_fail(m, io->result, "a write to the log");
  b->written = true;
  if (b->survivor && PLANTED(release_out_of_order)) survivor_empty(b->survivor);
  release_written(m);
  manifest_log_pump(m);
  barrier_advance(m);
}

/* Whether recovery will take the frame if it finds nothing but it and the data that it names: what
 * comes before must be like that too, and all of it must be read in a moment. */
static bool is_verifiable(const struct manifest *m, const struct log_buffer *b) {
  return b->data_bytes != UNVERIFIABLE && m->plain_position <= m->flushed_position &&
         m->named_bytes - m->flushed_bytes + b->data_bytes <= VERIFY_BYTES_MAX;
}

static void write_buffer(struct manifest *m, struct log_buffer *b) {
  struct frame f = next_frame(m, b->sequence);
  bool verifiable = is_verifiable(m, b);
  f.flags = verifiable ? FRAME_VERIFIABLE : 0;
  f.payload_bytes = b->payload_bytes;
  f.entry_count = b->entry_count;
  b->written = false;
  b->next = NULL;
  *m->writing_last = b;
  m->writing_last = &b->next;
  if (b->survivor && PLANTED(forget_while_writing)) survivor_empty(b->survivor);
  write_frame(m, &f, b->bytes, &b->io, buffer_written, 0);
  if (verifiable)
    m->named_bytes += b->data_bytes;
  else
    m->plain_position = m->position;
}

/* Starts the writes of closed buffers. During a barrier only those that it waits for. */
static void write_closed(struct manifest *m) {
  while (m->closed && !m->stopped) {
    struct log_buffer *b = m->closed;
    if (m->barrier && (m->step != STEP_FRAMES || b->sequence >= m->barrier_sequence)) return;
    if (!make_place(m, frame_blocks(b->payload_bytes), b->sequence)) return;
    m->closed = b->next;
    if (!m->closed) m->closed_last = &m->closed;
    write_buffer(m, b);
  }
}

bool manifest_log_pump(struct manifest *m) {
  if (m->config.read_only) return false;
  if (!m->barrier && (m->waiters || m->seal_waiting)) barrier_start(m);
  write_closed(m);
  return false;
}

/* ---- Barriers ---------------------------------------------------------------------------- */

static bool seal_has_work(const struct manifest *m) {
  return m->sequence > m->root.sequence || manifest_log_end(m) != m->root.log_tail ||
         m->directory_stale || m->notes > m->flushed_notes;
}

static void finish_seal(struct manifest *m) {
  struct manifest_seal *seal = m->seal;
  seal->result = m->barrier_result ? -EIO : 0; /* the log has told why */
  seal->batched = manifest_batched(m);
  seal->root = seal->result ? m->root : m->next_root;
  m->seal = NULL;
  seal->done(seal);
}

/* Completes the waiters for what lies before a sequence; when writing has stopped, all. */
static void serve_waiters(struct manifest *m, uint64_t before) {
  struct manifest_waiter *served = NULL, **last = &served, **at = &m->waiters;
  while (*at) { /* those behind it wait for the next time */
    struct manifest_waiter *w = *at;
    if (w->sequence < before || m->stopped) {
      *at = w->next;
      w->next = NULL;
      *last = w;
      last = &w->next;
    } else {
      at = &w->next;
    }
  }
  m->waiters_last = at;
  while (served) {
    struct manifest_waiter *w = served;
    served = w->next;
    m->commit_waiters++;
    w->done(w, w->sequence < m->covered ? 0 : -EIO);
  }
}

static void note_covered(struct manifest *m, uint64_t sequence, uint64_t notes) {
  m->covered = max_u64(m->covered, sequence + notes);
  m->committed = max_u64(m->committed, sequence);
  m->flushed_notes = max_u64(m->flushed_notes, notes);
}

/* All frames before the position, which name so many bytes, count for ever. */
static void note_flushed(struct manifest *m, uint64_t position, uint64_t bytes) {
  m->flushed_position = max_u64(m->flushed_position, position);
  m->flushed_bytes = max_u64(m->flushed_bytes, bytes);
}

/* A frame of one block that always fits. */
static void write_commit_frame(struct manifest *m, uint64_t sequence, uint8_t flags) {
  check(make_place(m, 1, sequence));
  struct frame f = next_frame(m, sequence);
  f.flags = FRAME_COMMIT;
  f.durable = f.position;
  write_frame(m, &f, m->frame_bytes, &m->frame_io, empty_written, flags);
}

static void write_witness(struct manifest *m) {
  bool more = m->waiters || m->seal_waiting || m->closed || m->frame_io.op;
  if (m->told_position >= m->flushed_position || more || m->stopped) return;
  m->flushed_chain = m->chain;
  write_commit_frame(m, m->open_buffer ? m->open_buffer->sequence : m->sequence, 0);
  m->witness_position = m->position;
}

static void finish_commit(struct manifest *m) {
  if (!m->barrier_result) {
    note_covered(m, m->barrier_sequence, m->barrier_notes);
    note_flushed(m, m->position, m->named_bytes);
    m->commits++;
  }
  serve_waiters(m, m->barrier_sequence + m->barrier_notes);
  write_witness(m);
}

static void finish_barrier(struct manifest *m) {
  enum barrier kind = m->barrier;
  m->barrier = BARRIER_NONE;
  if (kind == BARRIER_SEAL)
    finish_seal(m);
  else
    finish_commit(m);
  manifest_log_pump(m);
}

static void file_flushed(struct io *io) {
  struct manifest *m = io->buf;
  m->flushes_in_flight--;
  const struct region *r = m->config.region;
  for (uint32_t i = 0; io->result && i < r->segment_count; i++)
    if (r->segments[i].file == io->file) backing_flush_failed(r->segments[i].backing);
  if (io->result || (region_flush_failed(r) && !PLANTED(trust_a_later_flush)))
    manifest_fail(m, io->result ? io->result : -EIO, "a flush");
  barrier_advance(m);
}

static void flush_files(struct manifest *m) {
  const struct region *r = m->config.region;
  m->flushes_in_flight = 1; /* none may finish before all are counted */
  for (uint32_t i = 0; i < r->segment_count; i++) {
    bool seen = false;
    for (uint32_t k = 0; k < i; k++) seen |= r->segments[k].file == r->segments[i].file;
    if (seen) continue;
    m->flush_ios[i] =
        (struct io){.done = file_flushed, .op = IO_FLUSH, .file = r->segments[i].file, .buf = m};
    m->flushes_in_flight++;
    device_submit(m->config.device, &m->flush_ios[i]);
  }
  m->flushes_in_flight--;
}

static bool needs_commit_frame(const struct manifest *m) {
  return m->barrier == BARRIER_COMMIT && m->committed < m->barrier_sequence &&
         m->plain_position > m->flushed_position && !PLANTED(trust_what_is_plain);
}

static bool frames_written(const struct manifest *m) {
  if (PLANTED(root_before_log) && m->barrier == BARRIER_SEAL)
    return !m->closed || m->closed->sequence >= m->barrier_sequence;
  return m->writes_in_flight == 0 && !m->directory_writing &&
         (!m->closed || m->closed->sequence >= m->barrier_sequence);
}

/* What a root must say if it were written now. */
static void note_root(struct manifest *m) {
  uint64_t end = manifest_log_end(m);
  m->next_root.log_tail = end;
  m->next_root.sequence = m->barrier_sequence;
  m->next_root.chain = end < m->position ? m->flushed_chain : m->chain;
  m->next_root.zeroed_blocks = m->zeroed_blocks;
  m->next_root.blobs = index_count(m->index);
  m->seal->flushed = end == m->flushed_position && m->next_root.dir_block == m->root.dir_block &&
                     m->barrier_notes == m->flushed_notes;
  m->seal->verifiable = m->plain_position <= m->flushed_position;
  m->seal->directory = m->directory_moved;
  m->sealed_bytes = m->named_bytes;
}

void barrier_advance(struct manifest *m) {
  if (!m->barrier) return;
  if (m->stopped) { /* nothing more is started; what runs is waited for */
    if (m->writes_in_flight == 0 && m->flushes_in_flight == 0 && !m->directory_writing) {
      if (!m->barrier_result) m->barrier_result = -EIO;
      finish_barrier(m);
    }
    return;
  }
  if (m->step == STEP_FRAMES) {
    if (!frames_written(m)) return;
    if (m->barrier == BARRIER_SEAL) note_root(m);
    if (m->barrier == BARRIER_SEAL && (m->seal->flushed || !m->seal->flush_files)) {
      finish_barrier(m);
      return;
    }
    m->step = STEP_FLUSH;
    if (!PLANTED(commit_without_flush)) {
      flush_files(m);
      return;
    }
  }
  if (m->flushes_in_flight || m->writes_in_flight) return;
  if (m->step == STEP_FLUSH && needs_commit_frame(m)) {
    m->step = STEP_COMMIT_FRAME;
    write_commit_frame(m, m->barrier_sequence, PLANTED(commit_without_fua) ? 0 : IO_FUA);
  } else {
    finish_barrier(m);
  }
}

static void start_seal(struct manifest *m) {
  m->seal_waiting = false;
  m->barrier = BARRIER_SEAL;
  m->next_root = m->root;
  checkpoint_write_directory(m, &m->next_root);
  space_seal(m->space);
  m->sealed = true;
  m->sealed_sequence = m->barrier_sequence;
  m->sealed_notes = m->barrier_notes;
  m->seal->dirty = true;
}

static void barrier_start(struct manifest *m) {
  if (!m->seal_waiting && !m->stopped && manifest_batched(m) && !PLANTED(commit_covers_batches)) {
    if (!m->sealed) m->flush_asked = true; /* a root does what a commit must not */
    return;
  }
  /* Else later: an end of a write, or the use of a reservation, makes room. */
  if (m->open_buffer && !may_close_early(m) && !m->stopped) return;
  m->step = STEP_FRAMES;
  m->barrier_result = m->stopped ? -EIO : 0;
  m->barrier_sequence = m->sequence;
  m->barrier_notes = m->notes;
  close_buffer(m);
  if (m->seal_waiting)
    start_seal(m);
  else
    m->barrier = BARRIER_COMMIT;
  write_closed(m);
  barrier_advance(m);
}

void manifest_commit(struct manifest *m, struct manifest_waiter *w) {
  if (PLANTED(ack_before_commit)) {
    w->done(w, 0);
    return;
  }
  if (w->sequence < m->covered || m->stopped || m->config.read_only) {
    w->done(w, w->sequence < m->covered ? 0 : -EIO);
    return;
  }
  w->next = NULL;
  *m->waiters_last = w;
  m->waiters_last = &w->next;
  /* Started by the next tick: those who come in one turn of the core share it. */
}

void manifest_seal(struct manifest *m, struct manifest_seal *seal) {
  check(!m->seal && !m->sealed);
  m->flush_asked = false;
  seal->root = m->root;
  seal->result = m->stopped ? -EIO : 0;
  seal->dirty = seal->flushed = seal->verifiable = seal->directory = false;
  seal->batched = manifest_batched(m);
  if (m->stopped) m->batch_sequence = 0; /* said once */
  if (m->stopped || m->config.read_only || (!seal_has_work(m) && !m->barrier)) {
    seal->done(seal);
    return;
  }
  m->seal = seal;
  m->seal_waiting = true;
  manifest_log_pump(m);
}

void manifest_root_durable(struct manifest *m, uint64_t epoch, int result) {
  if (!result) m->epoch = max_u64(m->epoch, epoch);
  if (!m->sealed) return;
  m->sealed = false;
  if (result) {
    /* This flush has failed all that have a part in a batch of its epoch, too. */
    if (m->batch_sequence <= m->sealed_sequence) m->batch_sequence = 0;
    space_unseal(m->space);
    manifest_fail(m, result, "a store-wide flush");
    return;
  }
  m->unsettled = false;
  m->root = m->next_root;
  note_flushed(m, m->root.log_tail, m->sealed_bytes);
  m->told_position = max_u64(m->told_position, m->root.log_tail); /* it says so itself */
  m->durable_head = m->root.log_head;
  m->log_short = false;
  note_covered(m, m->sealed_sequence, m->sealed_notes);
  space_durable(m->space);
  checkpoint_root_durable(m);
  if (m->barrier != BARRIER_COMMIT) serve_waiters(m, m->covered);
}

void manifest_seal_survives(struct manifest *m) {
  if (!m->sealed) return;
  note_covered(m, m->sealed_sequence, m->sealed_notes);
  note_flushed(m, m->next_root.log_tail, m->sealed_bytes);
  if (m->barrier != BARRIER_COMMIT) serve_waiters(m, m->covered);
}

void manifest_root_skipped(struct manifest *m) {
  if (!m->sealed) return;
  m->sealed = false;
  space_unseal(m->space);
}

/* ---- Life -------------------------------------------------------------------------------- */

int manifest_log_create(struct manifest *m) {
  m->closed_last = &m->closed;
  m->writing_last = &m->writing_buffers;
  m->waiters_last = &m->waiters;
  if (m->config.read_only) return 0;
  m->frame_bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  if (!m->frame_bytes) return -ENOMEM;
  for (uint32_t i = 0; i < LOG_BUFFERS; i++) {
    struct log_buffer *b = &m->buffers[i];
    b->manifest = m;
    struct survivor *s = m->config.survivor;
    if (s) b->survivor = &s->buffers[i];
    b->bytes = s ? s->bytes[i] : aligned_alloc(BLOCK_BYTES, FRAME_BYTES_MAX);
    if (!b->bytes) return -ENOMEM;
    b->next = m->free_buffers;
    m->free_buffers = b;
    m->free_count++;
  }
  return 0;
}

void manifest_log_destroy(struct manifest *m) {
  for (uint32_t i = 0; i < LOG_BUFFERS && !m->config.survivor; i++) free(m->buffers[i].bytes);
  free(m->frame_bytes);
}
