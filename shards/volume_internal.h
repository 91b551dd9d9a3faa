/* volume_internal.h - what the files of volumes share. Not for other modules. One owning thread.
 *
 *   volume.c         open, close, dispatch, freezing, layers, statistics
 *   volume_read.c    reads
 *   volume_write.c   writes, write-zeroes, discards, promotes: which clusters change, and when
 *   volume_pieces.c  transfers of many device I/Os
 *   volume_lower.c   what lies below the top layer: views, and how they learn a leaf
 *   volume_verify.c  checksums of what is read
 *   volume_job.c     drop and merge of layers, records
 *   volume_sum.c     checksums of what has none yet
 *   volume_live.c    checksums of layers that are written to
 *   volume_direct.c  what other threads are told of where blocks lie
 *
 * The way of an op: shard_submit -> volume_submit (checks) -> held while frozen -> the gate
 * (limits, fairness) -> volume_start. A write that overlaps another one waits in volume->blocked.
 * From then on it is "locked" until it completes. Short path: one device I/O in the op itself. Else
 * a transfer (struct vio) takes it chunk by chunk, of one leaf at most:
 *
 *   reads   pieces of what lies in a row; zeros and what is not there need none
 *   writes  prepare: room in the log, the leaf pinned, clusters allocated
 *           pieces:  data goes out; parts of blocks are read, changed and written
 *           apply:   the map says so, and the log
 *
 * An op waits in one list at a time, by op->next. Locked writes are linked through op->size, which
 * no result uses. */
#ifndef SHARDS_VOLUME_INTERNAL_H
#define SHARDS_VOLUME_INTERNAL_H

#include "shards/direct.h"
#include "shards/gate.h"
#include "shards/shard_internal.h"
#include "shards/volume.h"

#define VOLUME_BUCKETS 512u /* of writes in flight */
#define VIOS_MAX       128u
#define PIECES_MAX     256u
#define PIECE_BYTES    (64u << 10) /* of bounce memory */
#define VECTOR_MAX     64u         /* rows of the caller's memory in one device I/O */
#define BOUNCES_MAX    32u
#define FETCHES_MAX    8u
#define VIO_WINDOW     16u /* pieces in flight for one transfer */

/* What lies below some top layers: shared by all volumes whose parent it is. */
struct lower {
  struct lower *next;
  struct layer_below from;
  struct view *view;
  uint32_t refs;
  uint32_t version; /* counts OP_VIEWS_DROP: an answer to an older question is thrown away */
  bool sums;        /* the view has some */
  bool unsummed;    /* the view has blocks without */
};

/* A leaf on its way into a view. */
struct fetch {
  struct shard_op op; /* OP_RESOLVE, to other shards */
  struct resolve_request request;
  struct shard *shard;
  struct lower *lower; /* NULL: free. Its volumes are in use, so it stays */
  uint64_t leaf;
  uint32_t version;
  struct op_list waiting;
};

struct volume {
  struct shard *shard;
  struct volume *next, **at; /* the shard's open ones */
  struct layer *top;         /* NULL: raw */
  struct lower *lower;       /* NULL: nothing lies below */
  uint64_t size_bytes;
  uint64_t sequence;                    /* OP_SYNC: changes up to here are to be durable */
  uint32_t hurries[GATE_HURRY_ALL + 1]; /* OP_HURRY that have begun, by kind */
  uint32_t block_mask;
  uint16_t file;
  bool read_only;
  bool live;          /* integrity=on: what is written to the top layer gets checksums */
  bool summed;        /* the top layer may have some: live, or sealed */
  bool failed;        /* raw: a flush failed; nothing counts as durable until it is reopened */
  uint32_t in_flight; /* started, of all kinds */
  uint32_t frozen;
  struct op_list held;        /* while frozen */
  struct op_list freezers;    /* OP_FREEZE that wait for in_flight == 0 */
  struct op_list blocked;     /* overlap a write in flight, or one before them here */
  struct shard_op *wide;      /* writes in flight of more than one cluster */
  struct gate_queue queue;    /* of the gate */
  struct limit *limit;        /* as given; the gate knows of those that limit anything */
  struct direct *direct;      /* NULL: nobody reads it past the shard */
  struct volume *next_direct; /* of those with one */
  struct volume_stats stats;
};

enum place_kind { PLACE_DATA, PLACE_ZERO, PLACE_MISSING, PLACE_FILE };
struct place {
  uint32_t block;
  uint16_t shard;
  uint8_t kind;
  bool own; /* the top layer's: it may be overwritten */
};

struct vpiece {
  struct io io;
  struct vio *vio;
  struct vpiece *next;
  struct iovec *rows; /* [VECTOR_MAX] its own, for io.buf */
  char *bounce;       /* NULL: straight from or to the caller's memory */
  uint64_t at;        /* the op's bytes [at, at + bytes) of the volume are what this is for */
  uint32_t bytes;     /* 0: of a promote, all that is copied */
  bool copy;          /* what was read is changed, and written to `to` */
  bool verify;        /* what is read must have these checksums: volume_expect() */
  uint32_t crc;       /* of writes with checksums: the memory's when it was given to the device */
  struct io to;
};

struct vio {
  struct shard_op *op;
  struct volume *volume;
  struct vio *next;  /* free; or hungry: waits for pieces */
  uint64_t at, end;  /* bytes of the volume not yet issued; end: of the op */
  uint64_t chunk_at; /* writes: [chunk_at, chunk_end) is prepared; at most one leaf */
  uint64_t chunk_end;
  uint64_t copied_bytes; /* promotes */
  uint32_t in_flight;
  int32_t error;
  uint32_t reserved; /* clusters; 0: the chunk changes no cluster, so nothing is pinned either */
  uint32_t streak;   /* chunks in a row without I/O */
  uint32_t generation;
  uint8_t turn;                  /* of the views */
  bool hungry;                   /* in that list */
  bool parked;                   /* its op waits for room or for a leaf of a view */
  bool again;                    /* reads: what was read has moved meanwhile */
  bool pinned;                   /* live: the leaf has this write in flight */
  bool any_torn;                 /* live: of the chunk's blocks */
  uint8_t voiding;               /* live: enum voiding */
  struct manifest_waiter waiter; /* for that */
  uint32_t *sums;                /* live: of the blocks of the chunk's leaf that were written */
  uint64_t changes;              /* clusters of the chunk's leaf that change */
  uint16_t bits[LEAF_CLUSTERS];  /* blocks that get data */
  uint16_t zeros[LEAF_CLUSTERS]; /* blocks that become zeros */
  uint16_t torn[LEAF_CLUSTERS];  /* live: blocks whose memory has changed while they were written */
};

struct volumes { /* in struct shard; made with the first volume */
  struct shard *shard;
  uint32_t asked;                           /* fetches under way */
  struct shard_op *buckets[VOLUME_BUCKETS]; /* writes in flight within one cluster */
  uint32_t writes_in_flight;
  struct lower *lowers;
  uint32_t readers[2]; /* that use a view, by the turn in which they began */
  uint8_t turn;
  struct op_list view_drops; /* the first one waits for readers of the other turn */
  bool dropping;
  struct gate gate;
  uint64_t now_ns; /* one reading for a step of the core */
  struct volume *open, *directs;
  struct direct_stats direct_closed; /* of volumes that are closed */
  struct vio *vios, *free_vios, *hungry, **hungry_last;
  struct vpiece *pieces, *free_pieces;
  struct iovec *rows; /* of the pieces */
  char *bounces;
  uint32_t free_bounce_count;
  char *free_bounces[BOUNCES_MAX];
  struct fetch *fetches;
  struct op_list vio_waiting;   /* ops that found no vio */
  struct op_list fetch_waiting; /* ops that found no fetch */
  struct op_list jobs;          /* OP_LAYER_DROP, _MERGE; the first one runs */
  struct op_list records;       /* OP_RECORD that wait for room */
  struct merge *merge;
  struct summing *summing;
  bool sums_stopped;
  struct live *live; /* volume_live.c; NULL: no volume has checksums of what is written */
  struct resolved scratch;
};

/* op->state of volume ops. */
enum volume_state {
  VOLUME_NEW = 0,
  VOLUME_LOCKED = 1, /* it has its blocks for itself: writes, and reads that want that */
  VOLUME_ALONE = 2,  /* a read that is to be so: its data did not fit their checksums */
};

static inline uint64_t first_block(const struct shard_op *op) { return op->offset >> BLOCK_SHIFT; }
static inline uint64_t end_block(const struct shard_op *op) {
  return bytes_to_blocks(op->offset + op->bytes);
}
static inline bool op_is_short(const struct shard_op *op) {
  return !(((uintptr_t)op->buf | op->offset | op->bytes) & (BLOCK_BYTES - 1)) &&
         !((const struct volume_args *)&op->id)->iov_count && op->bytes <= IO_BYTES_MAX;
}
static inline bool op_is_volume_write(const struct shard_op *op) {
  return (op->kind >= OP_WRITE && op->kind <= OP_DISCARD) || op->kind == OP_PROMOTE;
}

static inline bool op_is_of_volume(const struct shard_op *op) {
  return op->kind <= OP_SYNC || op->kind == OP_PROMOTE;
}

/* volume.c */
bool volumes_idle(const struct shard *s);
void volume_prefetch(const struct shard_op *op);
int volumes_create(struct shard *s);
void volumes_destroy(struct shard *s);
void volume_submit(struct shard *s, struct shard_op *op);
/* The shard's own op, which may write to sealed layers: what it does changes nothing that reads
 * see. */
void volume_submit_own(struct shard *s, struct shard_op *op);
void volume_control(struct shard *s, struct shard_op *op);
/* Starts, or goes on with, an op that waited (for room, a vio, a leaf of a view). */
enum start volume_start(struct shard *s, struct shard_op *op);
void volume_run(struct shard *s, struct shard_op *op);
/* The op's end: unlocks, tells the gate, wakes who waits. */
void volume_complete(struct shard *s, struct shard_op *op, int64_t result);
bool volumes_tick(struct shard *s);

/* volume_read.c */
enum start volume_read_start(struct shard *s, struct shard_op *op);
/* The run at a block, of at most max blocks. */
uint32_t volume_run_at(const struct volume *v, uint64_t block, uint32_t max, struct place *p);
/* Fills file and offset for a place; returns how many of the blocks it covers. */
uint32_t volume_map_io(const struct shard *s, const struct volume *v, const struct place *p,
                       uint32_t blocks, struct io *io);

/* volume_verify.c: what a read must have. */
struct expected {
  bool verify;
  uint32_t crc; /* of the blocks' checksums, one after the other */
};
/* False: no more need be asked. */
static inline bool place_may_have_sums(const struct volume *v, const struct place *p) {
  return p->kind == PLACE_DATA && (p->own ? v->summed : v->lower->sums);
}
/* Of n blocks at a place: how many of them, from the first one on, have checksums or all have none.
 */
uint32_t volume_expect(const struct volume *v, const struct place *p, uint64_t block, uint32_t n,
                       struct expected *e);
uint32_t volume_data_crc(const struct io *io); /* of its memory, as in struct expected */
bool volume_data_fits(const struct io *io, uint32_t crc);
/* It did not fit: -EBADMSG (logged), or -EAGAIN: the blocks have moved or may have been written
 * meanwhile, so read again (volume_run() with the op's new state). */
int volume_mismatch(struct shard *s, struct shard_op *op, uint64_t block, const struct io *io,
                    uint32_t crc, const char *what);

/* volume_write.c */
bool volume_cluster_is_written(struct shard *s, struct volume *v, uint64_t cluster,
                               const struct shard_op *but); /* volume.c: by a write in flight */
enum start volume_write_start(struct shard *s, struct shard_op *op);
enum start volume_sync_start(struct shard *s, struct shard_op *op);
/* The next chunk of a write, from x->at on. 0: it may go out. -EAGAIN: no room now. -EINPROGRESS:
 * the op waits for a leaf of a view. Or an error. */
int write_prepare(struct vio *x);
/* The chunk's data is down. */
void write_apply(struct vio *x);
void write_cancel(struct vio *x);
/* Completes, after a commit if it is to be durable. */
void write_finish(struct shard *s, struct shard_op *op, int64_t result);

/* volume_pieces.c */
enum start vio_start(struct shard *s, struct shard_op *op);
enum start vio_drive(struct vio *x);
void vio_fail(struct vio *x, int error); /* a parked one */
int vpieces_create(struct volumes *vs);
void vpieces_destroy(struct volumes *vs);

/* volume_lower.c */
int lower_get(struct shard *s, struct layer_below from, struct lower **lower);
void lower_put(struct shard *s, struct lower *lower);
/* Makes a leaf known to the view. 0: it is now. -EAGAIN: op waits until it is; volume_run() is
 * called then. -ENOMEM. */
int lower_learn(struct shard *s, struct lower *lower, uint64_t leaf, struct shard_op *op);
/* If this shard has all that decides it. */
void lower_learn_here(struct shard *s, struct lower *lower, uint64_t leaf);
uint8_t lower_read_begin(struct volumes *vs);
void lower_read_end(struct shard *s, uint8_t turn);
void views_drop(struct shard *s, struct shard_op *op);
/* Views that have blocks without checksums are made anew. What they said stays true. */
void lowers_forget_unsummed(struct shard *s);

/* volume_direct.c. An op that reads goes the usual way: */
void volume_direct_offer(struct volume *v, const struct shard_op *op);
/* What lies below the top layers has changed. */
void volumes_direct_changed(struct volumes *vs);
/* It is known now where the blocks of this leaf lie. */
void volumes_direct_learned(struct volumes *vs, const struct lower *lower, uint64_t leaf);
/* Before and after v->top is another one; v->direct is not NULL. */
void volume_direct_unwatch(struct volume *v);
void volume_direct_watch(struct volume *v);
void volume_direct_close(struct volume *v);

/* volume_job.c */
void job_submit(struct shard *s, struct shard_op *op);
bool jobs_tick(struct shard *s);

/* volume_sum.c: one step of an OP_LAYER_SUM, as merge_some(). */
int sum_some(struct shard *s, struct shard_op *op);
void sums_finish(struct shard *s);

/* volume_live.c. Of chunks of writes, where v->live: */
int volume_live_create(struct shard *s);
void volume_live_destroy(struct volumes *vs);
/* Before anything is taken for the chunk: waits until log and checkpoints have no sums of what it
 * changes. Results as write_prepare(). */
int live_prepare(struct vio *x);
int live_pin(struct vio *x);               /* it goes out; -ENOMEM */
void live_written(const struct vpiece *p); /* a piece is down */
void live_apply(struct vio *x);            /* the map says so */
void live_cancel(struct vio *x);           /* it has failed, or never went out */
/* The short path, for an overwrite in place: true if nothing need be done or waited for before.
 * Then live_overwritten() follows. */
bool live_overwrite(struct volume *v, const struct shard_op *op);
void live_overwritten(struct volume *v, const struct shard_op *op, bool good);
uint32_t *live_sums_of(const struct vio *x);
/* Has it not been written for a while, and is nothing in flight? */
bool live_is_quiet(const struct shard *s, const struct layer *layer, uint64_t leaf);
/* A step of OP_LAYER_SUM with SUM_SAVE. */
int live_save_some(struct shard *s, struct shard_op *op);
/* Now and then has leaves saved that were not written for a while. */
void live_tick(struct shard *s);
uint64_t live_wake_ns(const struct shard *s);

/* volume_merge.c: one step of an OP_LAYER_MERGE. -EINPROGRESS: go on at once. -EAGAIN: later. */
int merge_some(struct shard *s, struct shard_op *op);
void merge_answered(struct shard_op *op); /* an OP_VIEWS_DROP that it asked for */

#endif
