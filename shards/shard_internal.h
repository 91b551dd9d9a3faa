/* shard_internal.h - what the files of the shard share: its state and the parts that move bytes.
 * Not for other modules. One owning thread, as shard.h says.
 *
 *   shard.c         open, close, dispatch, tick, statistics
 *   shard_work.c    works and pieces: transfers of many device I/Os with a bounded window
 *   shard_read.c    get, stat
 *   shard_write.c   put, delete; the order of writes to one id
 *   shard_part.c    parts of atomic batches
 *   shard_stream.c  streams
 *   shard_list.c    iteration by a 64-bit cursor
 *   shard_vacuum.c  relocation and punching
 *   shard_scrub.c   reads and verifies everything again
 *   zeroer.c        writes the region once, ahead of the allocator
 *
 * Resources are fixed at open: works, pieces (an io and a bounce buffer each) and details (room
 * for the longest lists of extents and checksums). An op that finds none waits in a FIFO. A
 * piece is held only while its I/O runs, so whoever waits for one gets it. */
#ifndef SHARDS_SHARD_INTERNAL_H
#define SHARDS_SHARD_INTERNAL_H

#include "shards/base/crc32c.h"
#include "shards/shard.h"
#include "shards/sums.h"
#include "shards/zeroer.h"

#define BLOB_BYTES_MAX   (UINT64_C(1) << 40)
#define BOUNCE_BYTES     (128u << 10)
#define WORK_WINDOW      8u /* device I/Os in flight for one work */
#define WORK_SUMS        256u
#define WORK_EXTENTS     16u
#define DETAILS_MAX      8u
#define STREAMS_MAX      64u
#define WRITE_BUCKETS    1024u
#define MOVES_MAX        4u
#define CANDIDATES_MAX   64u
#define WRITE_HASH(hash) ((uint32_t)(hash) & (WRITE_BUCKETS - 1))

/* A place in a list of extents. */
struct cursor {
  uint32_t extent;
  uint64_t used; /* blocks of that extent */
};

struct detail {
  struct detail *next;
  struct extent extents[BLOB_EXTENTS_MAX];
  uint32_t sums[BLOB_GRANULES_MAX];
};

struct work;
struct piece {
  struct io io;
  struct work *work;
  struct piece *next;
  void *bounce;
  uint64_t pos; /* byte of the blob */
  bool done, bounced;
  struct io to; /* a move: where the piece will be written */
};

/* One transfer of the blob bytes [pos, end), whole blocks. plan() chooses buffer and size of
 * the next piece; piece_done() sees each I/O's end; finish() runs when none is in flight and
 * nothing is left to issue, or an error has stopped the work. */
struct work {
  struct shard *shard;
  struct shard_op *op; /* NULL: a move */
  struct work *next;   /* free list, or works that wait for pieces */
  struct work *hungry_next;
  uint32_t (*plan)(struct work *w, struct piece *p, uint32_t bytes_max);
  void (*piece_done)(struct piece *p);
  void (*finish)(struct work *w);
  int32_t error;
  uint32_t in_flight;
  bool hungry;
  uint64_t pos, end;
  const struct extent *extents;
  uint32_t extent_count;
  struct cursor from;

  /* Reads and moves: pieces in order of pos, consumed in that order. */
  struct piece *first, **last;
  uint64_t blob_bytes;
  uint32_t generation;
  uint32_t first_granule;

  /* Writes: the data are tail[0..tail_bytes) and then src[0..src_bytes), from blob byte base. */
  const char *tail, *src;
  uint64_t tail_bytes, src_bytes, base;
  /* A put's checksums are computed while its data are on their way to the device. */
  bool sums_late;
  uint64_t summed_bytes; /* of src; less than all: in s->unsummed */
  struct work *unsummed_next, **unsummed_at;

  struct sums *feed;
  struct sums sums;
  struct detail *detail;
  struct stream *stream;
  /* Moves. */
  struct blob_id id;
  uint64_t hash, old_block;
  struct cursor to;
  uint32_t to_count;
  uint8_t blob_flags;
  struct extent to_extents[WORK_EXTENTS];

  struct extent inline_extents[WORK_EXTENTS];
  uint32_t inline_sums[WORK_SUMS];
};

struct op_list {
  struct shard_op *first, *last; /* by op->next */
};
static inline void op_list_push(struct op_list *l, struct shard_op *op) {
  op->next = NULL;
  if (l->first) {
    l->last->next = op;
  } else {
    l->first = op;
  }
  l->last = op;
}
static inline struct shard_op *op_list_pop(struct op_list *l) {
  struct shard_op *op = l->first;
  if (op) l->first = op->next;
  return op;
}
static inline void op_list_unpop(struct op_list *l, struct shard_op *op) {
  op->next = l->first;
  if (!l->first) l->last = op;
  l->first = op;
}

struct vacuum {
  struct op_list ops; /* the first one runs */
  bool active, swept;
  uint64_t below; /* blobs with blocks from here on move down */
  uint64_t cursor;
  uint64_t moved_bytes;
  int error;
  uint32_t moves, at, count;
  struct shard_entry candidates[CANDIDATES_MAX];
};

/* Why an op cannot start now; the FIFO in which it waits. */
enum start {
  STARTED = 0, /* or already completed */
  WAIT_WORK,   /* for a work */
  WAIT_DETAIL, /* for a work and a detail */
  WAIT_ROOM,   /* for room in the log, or for the zeroer to let go: retried by ticks */
  WAIT_KINDS,
};

struct shard {
  struct index *index;
  struct space *space;
  struct device *device;
  struct region *region;
  /* The segment that a get has found its blocks in: bytes [start, end) of the region lie so much
   * higher in its file. Segments only grow. */
  struct {
    uint64_t start, end, offset;
    uint32_t read; /* io.kind of a read there */
  } near;
  uint64_t ops; /* accepted, not completed */
  uint64_t puts, deletes, others, write_bytes, checksum_errors;

  struct manifest *manifest;
  struct shard_config config;
  bool read_only;
  bool pumping;
  struct op_list waiting[WAIT_KINDS];
  uint32_t holds; /* batches that wait for room in the log: no other change may start */
  struct work *works, *free_works;
  struct piece *pieces, *free_pieces;
  struct work *hungry, **hungry_last; /* works that wait for pieces, FIFO */
  struct detail *details, *free_details;
  struct work *unsummed, **unsummed_last; /* works with sums_late set, FIFO */
  char *bounces;
  size_t bounces_bytes;
  uint32_t work_count, piece_count;
  struct op_list checkpoints;
  struct {
    struct shard_op *first, *last; /* by op->io.next, in the order of submission */
  } writes[WRITE_BUCKETS];
  struct stream *streams[STREAMS_MAX];
  struct vacuum vacuum;
  struct zeroer zeroer;
  struct scrub *scrub; /* while a pass runs */
  struct shard_scrub_stats scrub_stats;
  struct extent scratch[BLOB_EXTENTS_MAX]; /* of one call */
  struct volumes *volumes;                 /* NULL: there was none yet */
};

static inline void op_complete(struct shard *s, struct shard_op *op, int64_t result) {
  op->result = result;
  s->ops--;
  op->done(op);
}

/* A change has to wait: behind those that wait for room already, or for a batch. */
static inline bool room_is_awaited(const struct shard *s) {
  return (s->waiting[WAIT_ROOM].first && !s->pumping) || s->holds;
}

/* What shard_run() has to do with the order of writes and of streams. */
static inline bool op_is_write(const struct shard_op *op) {
  return op->kind == OP_PUT || op->kind == OP_DELETE || op->kind == OP_STREAM_COMMIT;
}

/* shard.c: starts an op, or queues it where it must wait. retry: it waited before. */
void shard_run(struct shard *s, struct shard_op *op);
/* A work, a detail or room came free: starts who waits. */
void shard_pump(struct shard *s);
/* As space_alloc(), and counts for the zeroer: for attempts that something smaller follows. */
int shard_alloc_now(struct shard *s, uint64_t blocks, struct extent *extents, uint32_t max,
                    uint64_t below);
/* The last attempt. -EAGAIN: wait for room, which the zeroer or a flush will give back. */
int shard_alloc(struct shard *s, uint64_t blocks, struct extent *extents, uint32_t max,
                uint64_t below);
void shard_checksum_error(struct shard *s, struct blob_id id, uint64_t granule, uint64_t block,
                          const char *what);

/* shard_work.c */
int works_create(struct shard *s);
void works_destroy(struct shard *s);
/* A work with cleared fields, NULL if none is free; detail: with one. */
struct work *work_take(struct shard *s, bool detail);
/* A detail for a work that turned out to need it: false if none is free. */
bool work_take_detail(struct work *w);
void work_free(struct work *w);
/* Issues what fits; calls finish() when nothing is in flight any more and no more will be. */
void work_drive(struct work *w);
/* For piece_done(): gives the piece back, to be followed by work_drive(). */
void piece_free(struct piece *p);
/* How many blocks follow each other from a cursor on, and the first one. */
uint64_t cursor_run(const struct extent *extents, struct cursor *c, uint64_t *block);
/* Keeps pieces in order: adds at issue; pops the first if its I/O is done. */
void work_pieces_add(struct work *w, struct piece *p);
struct piece *work_pieces_pop(struct work *w);
/* Write data (see struct work): plan and the bytes of the whole transfer. */
uint32_t write_plan(struct work *w, struct piece *p, uint32_t bytes_max);
void write_piece_done(struct piece *p);

/* Puts whose I/O has been submitted: their checksums, some at a time. sums_late_tick() returns true
 * if there are more; sums_late_end() does the rest of one. */
void sums_late_add(struct work *w);
bool sums_late_tick(struct shard *s);
void sums_late_end(struct work *w);

/* shard_read.c */
enum start get_start(struct shard *s, struct shard_op *op);

/* shard_write.c */
void write_submit(struct shard *s, struct shard_op *op); /* put, delete */
enum start write_start(struct shard *s, struct shard_op *op);
/* op->state of the writes in s->writes. */
enum write_state {
  WRITE_BEHIND = 0, /* an older one of the same id has not started */
  WRITE_WAITING,    /* in a FIFO */
  WRITE_STARTED,
  WRITE_READY, /* its data are written: takes effect when it is the oldest of its id */
};
void writes_add(struct shard *s, struct shard_op *op);
/* Starts a write that writes_add() knows, or leaves it behind an older one that has not. */
void writes_run(struct shard *s, struct shard_op *op);
/* A write could not start: takes no effect. */
void write_fail(struct shard *s, struct shard_op *op, int result);
/* Starts and applies what may now go on for an id. */
void writes_advance(struct shard *s, uint64_t hash, struct blob_id id);
/* A write that started has its data on the device, or has failed (op->result). */
void write_ready(struct shard *s, struct shard_op *op, int result);
/* Completes a write that took effect; waits for a commit if durable. */
void write_complete(struct shard *s, struct shard_op *op, uint64_t sequence);
int put_refused(const struct shard_op *op);
/* A work with space for op's data: 0, or the FIFO, or a negative errno. */
int put_take(struct shard *s, const struct shard_op *op, struct work **work);
/* Sends the data out; finish() follows. */
void put_write(struct work *w, struct shard_op *op, void (*finish)(struct work *w));

/* shard_part.c */
void part_submit(struct shard *s, struct shard_op *op);
enum start part_start(struct shard *s, struct shard_op *op);

/* shard_stream.c */
/* Runs the next op of every stream that is idle and has ops queued. */
void streams_kick(struct shard *s);
void stream_submit(struct shard *s, struct shard_op *op);
enum start stream_start(struct shard *s, struct shard_op *op);
/* The commit's turn has come. */
void stream_apply(struct shard *s, struct shard_op *op);
void streams_destroy(struct shard *s);

/* shard_list.c: stores at most max entries from *cursor on, moves it; at most `partitions` are
 * looked at. filter may be NULL. -ENOBUFS: more entries than max share one hash. */
int list_next(struct shard *s, uint64_t *cursor, struct shard_entry *entries, uint64_t max,
              uint32_t partitions, bool (*filter)(struct shard *s, const struct blob *blob));
#define LIST_END (UINT64_C(1) << 63)

/* shard_scrub.c */
bool scrub_busy(const struct shard *s); /* reads are in flight */
void scrub_finish(struct shard *s);

/* shard_vacuum.c */
void vacuum_submit(struct shard *s, struct shard_op *op);
bool vacuum_tick(struct shard *s);

#endif
