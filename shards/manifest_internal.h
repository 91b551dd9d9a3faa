/* manifest_internal.h - the manifest's state, shared by its files. Not for other modules.
 *
 *   manifest.c       reserve, put, delete: the change in memory, and its entry in a buffer
 *   manifest_map.c   the same for clusters and records
 *   manifest_log.c   buffers become frames on disk; barriers: commit and seal
 *   checkpoint.c     rolling checkpoints and their directory
 *   recover.c        from disk to all of this
 *   recover_tail.c   which frames behind the root's tail count
 *   recover_map.c    clusters and records in it
 *
 * Buffers. A buffer collects entries; it is closed when it has FRAME_TARGET_BYTES, or by a
 * barrier; then it waits in `closed` and gets its position and checksum when its write starts.
 * Reservations make sure that an entry always finds a place: with L large and S bytes of small
 * ones outstanding,
 *     S <= room of the open buffer + SMALL_ROOM * (free buffers - 2 L)
 * holds at all times. A large one takes a buffer of its own, and may waste the room of the one that
 * it closes: hence two. S and L are also bounded so that, once all writes have completed, the
 * open buffer's room is not needed: then a barrier may close it, and a barrier waits for that.
 *
 * Data in place. What is overwritten where it lies has no entry, but must be flushed all the same:
 * a note makes a barrier necessary. A commit that has nothing but notes to cover ends with its
 * flush, without a commit frame.
 *
 * Barriers. One at a time. While one runs no new frame is started, so that the end of the log is
 * the end of what its flush has covered.
 *
 * What a flush alone makes durable. A frame is verifiable if checksums in it tell whether the data
 * that it names have reached the device; recovery looks, so after frames and flush it counts.
 * Behind frames of which nobody could tell (volumes' clusters, blobs without checksums, parts of
 * batches) a commit needs a commit frame, written when the flush is done. Recovery must not take
 * long: from VERIFY_BYTES_MAX of data on frames are not verifiable either. */
#ifndef SHARDS_MANIFEST_INTERNAL_H
#define SHARDS_MANIFEST_INTERNAL_H

#include "shards/log.h"
#include "shards/manifest.h"
#include "shards/survivor.h"

#define FRAME_TARGET_BYTES (64u << 10) /* the default */
#define ENTRY_SMALL_MAX    (16u << 10) /* larger entries are "large" */
#define SMALL_ROOM         (FRAME_BYTES_MAX - FRAME_HEADER_BYTES - ENTRY_SMALL_MAX)
/* Log blocks kept for what no reservation counts: a skip at the ring's end, frames that barriers
 * close early. */
#define LOG_MARGIN_BLOCKS (FRAME_BLOCKS_MAX + 16u)
#define LOG_BLOCKS_MIN    256u
#define VERIFY_BYTES_MAX  (UINT64_C(32) << 20)
#define UNVERIFIABLE      UINT64_MAX /* instead of bytes of data: no checksum tells of them */
/* A blob of so many bytes is worth a frame of its own, on its way before anybody asks for it. */
#define FRAME_AT_ONCE_BYTES (UINT64_C(256) << 10)

struct log_buffer {
  struct io io;
  struct manifest *manifest;
  struct log_buffer *next;
  char *bytes;                      /* FRAME_BYTES_MAX; the header's place first */
  struct survivor_buffer *survivor; /* NULL: it dies with the process */
  uint32_t payload_bytes, entry_count;
  uint64_t sequence;
  uint64_t data_bytes; /* that its entries name; UNVERIFIABLE */
  bool written;
};

/* One written piece of a checkpoint: partitions [first, first + count) as they were before
 * `sequence`; frames from `position` on hold what came after. */
#define CHECKPOINT_EXTENTS 16u
struct checkpoint {
  uint32_t first, count;
  uint64_t sequence, position;
  uint64_t bytes;
  uint32_t checksum;
  uint32_t extent_count;
  struct extent extents[CHECKPOINT_EXTENTS];
  uint32_t live;           /* partitions for which it is the newest; 0: dead */
  struct checkpoint *next; /* of the dead */
};

/* Writes a run of bytes into extents, one I/O at a time. */
struct extent_writer {
  struct io io;
  struct manifest *manifest;
  const struct extent *extents;
  uint32_t extent_count, at;
  uint64_t in; /* blocks done of extents[at] */
  char *from;
  void (*done)(struct manifest *m, int result);
};

enum barrier { BARRIER_NONE, BARRIER_COMMIT, BARRIER_SEAL };
enum barrier_step { STEP_FRAMES, STEP_FLUSH, STEP_COMMIT_FRAME };

struct manifest {
  struct manifest_config config;
  struct index *index;
  struct map *map;
  struct records *records;
  struct space *space;
  uint64_t store_key;
  bool stopped;
  bool unsettled;   /* changes behind the root's tail: until one has them, recovery may begin again
                       from the last one, so what they freed must stay as it is */
  bool recovering;  /* entries of a process before us are added: buffers get full */
  bool flush_asked; /* by manifest_ask_flush(); until the next seal */

  /* The log. */
  uint64_t epoch;    /* of the last durable root that it knows of: every frame tells it */
  uint64_t sequence; /* of the next entry */
  uint64_t position; /* of the next frame */
  uint32_t chain;
  uint64_t flushed_position; /* all before it is durable, and counts */
  uint64_t told_position;    /* what frames so far have told of that */
  uint32_t flushed_chain;    /* the chain there, and */
  uint64_t witness_position; /* the position behind a witness that stands there; 0: none */
  uint64_t plain_position;   /* behind the last frame that was not verifiable */
  uint64_t named_bytes;      /* of data that verifiable frames name, so far */
  uint64_t flushed_bytes;    /* of these, those of frames before flushed_position */
  uint64_t durable_head;     /* the last durable root's log_head */
  uint64_t notes;            /* of data that was overwritten in place, so far */
  uint64_t covered;          /* what has a ticket below this survives a crash */
  uint64_t committed;        /* entries before this sequence are so by a commit frame or a root */
  uint64_t flushed_notes;    /* the first so many are so by a flush */
  struct log_buffer buffers[LOG_BUFFERS];
  struct log_buffer *free_buffers, *open_buffer;
  struct log_buffer *writing_buffers, **writing_last; /* in the order of their frames */
  struct log_buffer *closed, **closed_last;
  uint32_t free_count;
  bool log_short; /* the last reservation found no room in the log */
  uint64_t small_reserved;
  uint32_t large_reserved, reserved_count;
  uint64_t large_reserved_bytes;
  uint32_t writes_in_flight;
  uint64_t frames;

  /* The running barrier. */
  enum barrier barrier;
  enum barrier_step step;
  uint64_t barrier_sequence; /* covers entries before it */
  uint64_t barrier_notes;    /* and the first so many notes */
  uint32_t flushes_in_flight;
  int barrier_result;
  struct io flush_ios[REGION_SEGMENTS_MAX];
  struct io frame_io; /* skip and commit frames */
  char *frame_bytes;  /* one block */
  struct manifest_waiter *waiters, **waiters_last;
  struct manifest_seal *seal;
  bool seal_waiting, sealed;
  uint64_t sealed_sequence, sealed_notes, sealed_bytes;
  struct root_shard root; /* the last durable one's, or the one to come while sealed */
  struct root_shard next_root;
  uint64_t commits, commit_waiters;
  bool in_group;                   /* changes of one batch are being added */
  struct log_buffer *group_buffer; /* where the first of them went; NULL: none yet */
  uint64_t batch_sequence; /* changes of many shards' batches lie before it. root.sequence below it:
                              no root names them all yet */

  /* Checkpoints. */
  struct checkpoint *of_partition[INDEX_PARTITIONS];
  struct checkpoint *writing;  /* its I/O runs */
  struct checkpoint *dead;     /* superseded; a directory on disk may name them */
  struct checkpoint *retiring; /* nor does the directory of the root that is to come: free then */
  uint64_t pending_head;       /* where replay begins once the newest checkpoints are in a root */
  uint32_t next_partition;
  uint32_t wanted; /* partitions still to be written for manifest_checkpoint_all() */
  bool directory_stale;
  bool directory_writing;
  /* Two places, written in turn, held for ever: a full region cannot keep a directory from being
   * written. blocks 0: not there. */
  struct extent directory_area[2];
  uint32_t directory_next;      /* the one that the durable root does not name */
  bool directory_moved;         /* the root to come names directory_next */
  struct extent directory_used; /* the part of it that is written */
  struct extent_writer writer, directory_writer;
  char *checkpoint_buf, *directory_buf;
  uint64_t checkpoint_buf_bytes;
  struct extent reserve[CHECKPOINT_EXTENTS]; /* held so that a full region can be checkpointed */
  uint32_t reserve_count;
  uint64_t largest_blocks; /* of a checkpoint so far */
  bool space_short;        /* the last one found no place, with so many blocks free: */
  uint64_t short_free_blocks;
  uint64_t zeroed_blocks;
  uint64_t checkpoints;

  struct losses *losses; /* recovered in spite of damage: what is missing; else NULL. losses.h */
};

/* Room in the index for one blob as it is. One extent may take as much as two: see
 * index_reserve(). */
static inline int manifest_index_room(struct manifest *m, uint64_t hash, const struct blob *b) {
  bool roomy = b->extent_count == 1 && (b->extents[0].blocks != bytes_to_blocks(b->bytes) ||
                                        b->extents[0].block >= INDEX_NEAR_BLOCKS);
  return index_reserve(m->index, hash, roomy ? 2 : b->extent_count, b->granule_count);
}

static inline uint32_t manifest_frame_target(const struct manifest *m) {
  return m->config.frame_target_bytes ? m->config.frame_target_bytes : FRAME_TARGET_BYTES;
}

static inline bool manifest_batched(const struct manifest *m) {
  return m->batch_sequence > m->root.sequence;
}

/* Tickets tell what waiters wait for: entries and notes of data, numbered through in the order in
 * which they came since the open. What a barrier covers is what has a lower one than its start. */
static inline uint64_t manifest_ticket(const struct manifest *m) { return m->sequence + m->notes; }
/* An entry has been added: its ticket. */
static inline uint64_t manifest_next_ticket(struct manifest *m) { return m->sequence++ + m->notes; }

/* manifest.c. Log room for one small entry of so many bytes; errors as manifest_reserve(). */
int manifest_reserve_entry(struct manifest *m, uint32_t bytes, bool frees);
void manifest_cancel_entry(struct manifest *m, uint32_t bytes);

/* manifest_log.c */
int manifest_log_create(struct manifest *m);
void manifest_log_destroy(struct manifest *m);
/* What is in buffers belongs to a batch of many shards: only a root makes it count. */
void manifest_log_batched(struct manifest *m);
/* Where to encode an entry of at most so many bytes; then manifest_log_added(). */
void *manifest_log_place(struct manifest *m, uint32_t bytes_max);
/* data_bytes: of the data that the entry names, all of them under checksums in it; UNVERIFIABLE. */
void manifest_log_added(struct manifest *m, uint32_t bytes, uint64_t data_bytes);
bool manifest_log_pump(struct manifest *m);
uint64_t manifest_log_free_blocks(const struct manifest *m);
/* Where the log ends, for roots and checkpoints: a witness has nothing that they would have to
 * name, nor need it be durable. */
static inline uint64_t manifest_log_end(const struct manifest *m) {
  return m->position == m->witness_position ? m->flushed_position : m->position;
}
/* Blocks that what waits in buffers will take. */
uint64_t manifest_log_staged_blocks(const struct manifest *m);
/* What puts may fill of the log: all but the margin and the part that is kept for deletes. */
static inline uint64_t manifest_log_usable(const struct manifest *m) {
  uint64_t log = m->config.region->log_blocks;
  return log - LOG_MARGIN_BLOCKS - log / 16;
}

/* checkpoint.c */
bool checkpoint_tick(struct manifest *m);
/* At a seal: if checkpoints have come since the last directory, allocates and writes a new one
 * (done later, by barrier_advance()), and frees what only the old one named. */
void checkpoint_write_directory(struct manifest *m, struct root_shard *root);
int checkpoint_create(struct manifest *m);
void checkpoint_destroy(struct manifest *m);
/* After recovery: holds back the directory's places and the reserve. */
void checkpoint_take_reserve(struct manifest *m);
/* A flush would give blocks back. */
static inline bool checkpoint_flush_helps(const struct manifest *m) {
  return m->dead || m->retiring || space_pending_blocks(m->space) > 0;
}
/* The sealed root is durable: what only older ones named is given back, to the reserve first. */
void checkpoint_root_durable(struct manifest *m);
/* The newest checkpoint that has partition p, NULL: none, all is in the log. */
static inline const struct checkpoint *checkpoint_of(const struct manifest *m, uint32_t p) {
  return m->of_partition[p];
}
/* Calls claim for the blocks of checkpoints and directory; its first error. */
int checkpoint_claim(const struct manifest *m, char *why, size_t why_bytes);
/* Recovery: the directory that root names; loads the index; sets of_partition. */
int checkpoint_load(struct manifest *m, const struct root_shard *root, char *why, size_t why_bytes);
uint64_t checkpoint_blocks(const struct manifest *m);
/* The same in spite of damage, which is reported; m->losses says what is missing. 0 or -ENOMEM. */
int checkpoint_load_damaged(struct manifest *m, const struct root_shard *root);
/* What is wrong with the head of a checkpoint's bytes, or NULL. */
const char *checkpoint_header(const struct manifest *m, const struct checkpoint *c,
                              const char *buf);
/* True for one partition of each checkpoint: to visit each of them once. */
bool checkpoint_is_first(const struct manifest *m, uint32_t p);
bool checkpoint_grow_buffer(struct manifest *m, uint64_t bytes);

/* manifest_log.c: something that a barrier waits for has happened. */
void barrier_advance(struct manifest *m);
void manifest_fail(struct manifest *m, int error, const char *what);

#endif
