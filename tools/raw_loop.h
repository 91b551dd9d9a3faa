/* raw_loop.h - the ceiling: a bare io_uring loop, against which the store is measured.
 *
 * It does nothing that a storage engine must do (no index, no checksum, no callback, no time
 * stamp): it submits a batch and collects a batch with one system call, with fixed buffers, a
 * registered file and a registered ring, at random or sequential block offsets. A slow ceiling
 * would flatter the store, so this loop is made as fast as the kernel allows.
 *
 * A loop belongs to one thread at a time. The ring is made by the first raw_loop_run() and
 * from then on that thread alone may run it (SINGLE_ISSUER). */
#ifndef TOOLS_RAW_LOOP_H
#define TOOLS_RAW_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct split;
struct raw_loop;

#define RAW_LOOP_FILES_MAX 64u
#define RAW_LOOP_DEPTH_MAX 4096u

struct raw_loop_options {
  const char *const *paths;  /* files or block devices; each is used in whole blocks */
  uint32_t path_count;       /* 1 to RAW_LOOP_FILES_MAX */
  uint64_t skip_bytes;       /* do not touch this much at the start of each; a multiple of 4096 */
  uint64_t span_bytes;       /* use at most this much of each after that; 0: all of it */
  uint32_t block_bytes;      /* of one request; a multiple of 512, at most 64 MiB */
  uint32_t depth;            /* requests in flight, 1 to RAW_LOOP_DEPTH_MAX */
  uint32_t batch;            /* submitted together, 1 to depth */
  uint32_t complete;         /* collected together, 1 to depth; 0: as batch */
  const struct split *split; /* requests of these sizes, the largest is block_bytes; NULL: of one */
  bool hipri;                /* poll the device: -EOPNOTSUPP where it has no poll queues */
  bool write;                /* destroys what the files hold */
  bool sequential;           /* one block after the other; default: random */
  bool nop;                  /* IORING_OP_NOP: what the ring alone costs; no files needed */
  uint64_t seed;             /* of the random offsets */
};

/* Opens the files and allocates the buffers. 0; -errno, and why (may be NULL) names what is
 * wrong. */
int raw_loop_create(struct raw_loop **loop, const struct raw_loop_options *options, char *why,
                    size_t why_bytes);

struct raw_loop_result {
  uint64_t ops;        /* completed */
  uint64_t bytes;      /* moved */
  uint64_t elapsed_ns; /* of the whole slice, the last collection included */
  uint64_t cpu_ns;     /* of this thread in the same time */
};
/* Runs for about duration_ns on the calling thread and leaves nothing in flight. 0; the error of
 * the first request that failed or was short (-EIO); -errno of the set-up of the ring. */
int raw_loop_run(struct raw_loop *loop, uint64_t duration_ns, struct raw_loop_result *result);

/* Set-up flags that were granted, refused ones with a leading '!'; "" before the first run. */
const char *raw_loop_flags(const struct raw_loop *loop);

/* ---- Single writes, each timed by its caller --------------------------------------------------
 */

enum raw_write { RAW_WRITE_PLAIN, RAW_WRITE_DSYNC, RAW_WRITE_FLUSH }; /* RWF_DSYNC; and fdatasync */
struct raw_writer;
/* A ring and a file for one thread. The block has 4096 bytes, aligned to as many. */
int raw_writer_create(struct raw_writer **writer, const char *path);
/* Returns when it is done, as the kind says. 0 or -errno. */
int raw_writer_write(struct raw_writer *writer, enum raw_write kind, const void *block,
                     uint64_t offset);
void raw_writer_destroy(struct raw_writer *writer);

/* NULL is fine. Any thread, when no other is inside raw_loop_run(). */
void raw_loop_destroy(struct raw_loop *loop);

#endif
