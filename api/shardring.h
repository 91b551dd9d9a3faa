/* shardring.h - the public interface of libshardring, a thread-per-core storage runtime.
 *
 * Rules that hold for the whole header
 *
 *   Errors    A function returns 0 or a count, else a negative errno. A submit that fails
 *             never calls back; a request that was accepted completes exactly once.
 *             -EAGAIN means "a queue is full now: reap, then try again", never anything else.
 *   Threads   A struct sr_store may be used by any thread. A struct sr_port belongs to one
 *             thread at a time; open one port per thread. Nothing here is safe in a signal
 *             handler, nor in a child after fork().
 *   Memory    Requests and buffers belong to the caller and must stay untouched from submit
 *             until the request has been reaped (or its callback has begun). Nothing is
 *             allocated between submit and reap, but for a batch.
 *   Buffers   Any address and any length work. A buffer whose address and length are
 *             multiples of 4096 is used as it is; any other is copied once. Memory from
 *             sr_buffer_alloc() or sr_memory_register() is the fastest.
 *   Options   Every options struct begins with its own size (use the SR_*_INIT macros).
 *             Zero means the default, a NULL pointer all defaults. An unknown non-zero tail
 *             is -E2BIG.
 *   Units     Names end in their unit: _bytes, _ns, _ms, _blocks.
 *   Order     A completed request is visible to every later one. Two puts or deletes of one
 *             id that are submitted to one port take effect in the order of submission;
 *             requests in flight on different ids, or from different ports, have no order.
 *   Durable   What completed before sr_flush() was called survives any crash once sr_flush()
 *             has returned 0. A request with SR_DURABLE survives on its own. The root, the record
 *             that ends a flush, may be written after that, or with a later flush: it is what
 *             gives freed space back.
 */
#ifndef SHARDRING_H
#define SHARDRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
/* The library hides everything by default; what this header declares is public. */
#pragma GCC visibility push(default)

#define SR_BLOCK_BYTES    4096u
#define SR_BLOB_BYTES_MAX (UINT64_C(1) << 40)
#define SR_SHARDS_MAX     1024u
#define SR_CORES_MAX      256u

/* The value of the SR_*_INIT macros: all default. C++11 has no designated initializers. */
#ifdef __cplusplus
#define SR_OPTIONS_INIT_(type)                                                                     \
  [] {                                                                                             \
    struct type options_ = {};                                                                     \
    options_.size = sizeof(options_);                                                              \
    return options_;                                                                               \
  }()
#else
#define SR_OPTIONS_INIT_(type)                                                                     \
  { .size = sizeof(struct type) }
#endif

struct sr_store;
struct sr_port;
struct sr_stream;
struct sr_block;

/* A blob's name: 128 bits that mean nothing to the store. */
struct sr_id {
  uint64_t hi, lo;
};

/* "0123456789abcdef0123456789abcdef" (1 to 32 hexadecimal digits, optional 0x) to an id.
 * -EINVAL for anything else. */
int sr_id_parse(const char *text, struct sr_id *id);
/* Writes 32 digits and a zero byte. */
void sr_id_format(struct sr_id id, char text[33]);

/* ---- Stores ------------------------------------------------------------------------- */

/* Where a store lies, in one string ("where" below):
 *   a directory             one packed file per shard lies in it
 *   a device or file,       regions are slices of them; several are joined by commas:
 *   or several              "/dev/nvme0n1,/dev/nvme1n1"; name all of them, in any order
 *   fd:N                    an already-open descriptor, wherever a device can stand; it is
 *                           duplicated, so the caller still closes its own
 *   mem:SIZE[:SHARDS]       memory of this process, as in mem:256M:4: made by sr_store_open(),
 *                           gone with sr_store_close(); sr_format() refuses it */

enum sr_prealloc {
  SR_PREALLOC_DEFAULT = 0, /* reserve the space; zero it ahead of use in the background */
  SR_PREALLOC_FULL = 1,    /* write every block now */
  SR_PREALLOC_SPARSE = 2,  /* reserve nothing: the file system may run out later */
};

enum sr_log_level { SR_LOG_ERROR = 0, SR_LOG_WARNING = 1, SR_LOG_INFO = 2 };

struct sr_format_options {
  size_t size;
  uint64_t size_bytes; /* of the whole store; required for a directory and for mem:; for
                          devices the default is all of each. Rounded down to blocks. At
                          least 16 MiB a shard. */
  uint32_t shards;     /* 1 to SR_SHARDS_MAX; default: one per physical core that this
                          process may use. Fixed for the life of the store. */
  uint32_t prealloc;   /* enum sr_prealloc */
  bool force;          /* overwrite what looks like a store or holds data */
  uint64_t log_bytes;  /* manifest log of one shard; default 1/512 of its region, between
                          1 MiB and 1 GiB */
  void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */
  void *progress_arg;
};
#define SR_FORMAT_OPTIONS_INIT SR_OPTIONS_INIT_(sr_format_options)

/* Creates a store. -EEXIST: there is one and force is not set. -ENOSPC: it does not fit.
 * -EINVAL: an option is out of range. -EBUSY: it is open. A failed format leaves no store. */
int sr_format(const char *where, const struct sr_format_options *options);

/* What is wrong at one place on disk, as an open in spite of damage and a scrub report it. */
enum sr_damage_kind {
  SR_DAMAGE_PART = 1,   /* a file or device of the store is missing, or is not what it should be */
  SR_DAMAGE_IDENTITY,   /* one of its two copies */
  SR_DAMAGE_ROOT,       /* a copy in a root slot; or no root is left */
  SR_DAMAGE_LOG,        /* of the changes that were lost with it see lost_changes */
  SR_DAMAGE_DIRECTORY,  /* of the checkpoints */
  SR_DAMAGE_CHECKPOINT, /* blobs that only it had are lost */
  SR_DAMAGE_BLOB,       /* id is damaged or cannot be read at this place */
  SR_DAMAGE_OLD,        /* changes are lost, so blob id may be older than the last one that was put,
                           or have been deleted */
  SR_DAMAGE_VOLUME,     /* a block of a volume's snapshot, or a whole volume; `what` says which */
  SR_DAMAGE_OLD_VOLUME, /* changes are lost, so parts of the volume that `what` names may be missing
                           or older than what was written last, or it was removed */
  SR_DAMAGE_NOTE,       /* no harm: carries nothing that counts and will be overwritten */
};
struct sr_damage {
  uint32_t kind;         /* enum sr_damage_kind */
  int error;             /* -EBADMSG, -EIO ... */
  int shard;             /* -1: of no shard */
  const char *where;     /* file or device; NULL: of no single place */
  uint64_t offset_bytes; /* in it */
  uint64_t bytes;        /* how far it may reach; 0: unknown */
  uint64_t lost_changes; /* SR_DAMAGE_LOG; UINT64_MAX: unknown how many */
  struct sr_id id;       /* SR_DAMAGE_BLOB, SR_DAMAGE_OLD */
  const char *what;      /* one line */
  const char *remedy;    /* one line: what can be done */
};
/* Strings are valid during the call. Any core's thread may call it, one at a time; it must not
 * call the library. */
typedef void sr_damage_fn(void *arg, const struct sr_damage *damage);

enum sr_damaged {
  SR_DAMAGED_REFUSE = 0, /* -EBADMSG, and the log names the place */
  SR_DAMAGED_SKIP = 1,   /* open with all that is proven to be intact, report the rest. A blob or a
                            volume that may have been there, but nobody knows, is -EBADMSG, not
                            -ENOENT */
  SR_DAMAGED_SEARCH = 2, /* the same, and where roots or directories are destroyed search the whole
                            store for what they named: reads everything */
};

struct sr_open_options {
  size_t size;
  const char *cores;        /* CPUs to run on, "0-3,8"; default: chosen by topology */
  uint32_t core_count;      /* how many, if cores is NULL; default: one per shard, at most one
                               per physical core of the affinity mask. Fewer and more than
                               shards both work. */
  const char *engine;       /* "uring" (default), "pool", "null"; mem: stores always use "mem".
                               If io_uring is refused "pool" is taken and the log says so. */
  bool read_only;           /* shared with other read-only opens; changes no byte */
  bool must_engine;         /* fail rather than fall back to another engine */
  uint32_t lock_timeout_ms; /* how long to wait for another opener; default 0: not at all */
  uint32_t queue_depth;     /* device requests in flight per core; default 256, max 4096 */
  uint32_t poll_us;         /* an idle core polls this long before it sleeps; default 50 */
  uint64_t arena_bytes;     /* memory for sr_buffer_alloc(); default 32 MiB */
  bool no_background;       /* no zeroing ahead, no checkpoints between flushes */
  bool no_pin;              /* do not pin core threads */
  uint64_t seed;            /* of all randomness in the runtime; default: from the system */
  void (*log)(void *arg, enum sr_log_level level, const char *line); /* default: errors and
                              warnings go to stderr. Any core's thread may call it. */
  void *log_arg;
  uint32_t damaged;     /* enum sr_damaged; other than the default: read_only must be set */
  sr_damage_fn *damage; /* is told of each damage that an open or a scrub finds; may be NULL */
  void *damage_arg;
  uint64_t scrub_bytes_per_second; /* scrub continuously at this rate; default 0: not */
  const char *memory_dir; /* a directory in memory (tmpfs), such as "/dev/shm": all that has
                             completed is kept there until it is durable, about 3 MiB a shard, so
                             that it survives a killed process, though no power cut. The next open
                             takes it over if it looks in the same directory; a change of several
                             shards at once that was under way loses what was not durable. Default:
                             keeps nothing, looks in /dev/shm; "": neither */
  const char *settings;  /* a file that `shard-bench tune` has written, for poll_us, queue_depth and
                            flush_method where they are 0 here. Default: "settings" in the
                            directory of the store, if it is there; "": none. A file that is
                            damaged is left alone, and the log says so. */
  uint32_t flush_method; /* enum sr_flush_method */
};
/* How the record that ends a store-wide flush reaches the device. */
enum sr_flush_method {
  SR_FLUSH_DEFAULT = 0, /* as the settings say, else SR_FLUSH_FUA */
  SR_FLUSH_FUA = 1,     /* by a write that is durable by itself (RWF_DSYNC) */
  SR_FLUSH_AFTER = 2,   /* by a plain write, then a flush: some devices are faster that way */
};
#define SR_OPEN_OPTIONS_INIT SR_OPTIONS_INIT_(sr_open_options)

/* What killed processes have left in a memory_dir and nobody has taken over. */
enum sr_leftover_state {
  SR_LEFTOVER_USED = 0,    /* a process has it: nobody was killed */
  SR_LEFTOVER_NEEDED = 1,  /* its store is where it was: the next open takes it over */
  SR_LEFTOVER_GONE = 2,    /* the store is not there any more: it was removed; or moved, or its file
                              system is not mounted now, and then the next open may still want it */
  SR_LEFTOVER_UNKNOWN = 3, /* it does not say where the store was: on devices, for example */
};
struct sr_leftover {
  uint32_t state; /* enum sr_leftover_state */
  uint64_t bytes;
  const char *path, *store; /* the file; where its store was, or "" */
};
/* Calls fn for each; where it returns true the file is removed, if it is SR_LEFTOVER_GONE. Files of
 * other users are skipped unless they can be read. The first error. Any thread. */
int sr_leftovers(const char *memory_dir, bool (*fn)(void *arg, const struct sr_leftover *leftover),
                 void *arg);

/* Opens a store and starts its cores. *store is set only on success.
 *   -ENOENT     nothing there                      -EBUSY   another process has it open
 *   -EINVAL     an option is out of range          -EACCES  no permission
 *   -ENOTSUP    a newer or unknown format          -E2BIG   options from a newer header
 *   -EMEDIUMTYPE  not a store, or parts of different stores
 *   -EBADMSG    damaged; the log names the place. A read-only open with SR_DAMAGED_SKIP works.
 *   -EROFS      only a read-only open is possible
 * -ENOENT also: options->settings names a file that is not there. */
int sr_store_open(const char *where, const struct sr_open_options *options,
                  struct sr_store **store);

/* Flushes (unless read-only), stops the cores, frees everything. All ports must be closed
 * (-EBUSY) and no request may be in flight. NULL is fine. Any other error is that of the
 * last flush: the store is closed all the same, unflushed changes are lost. */
int sr_store_close(struct sr_store *store);
/* As after a power cut: no flush, and nothing is left in memory. For tests and for giving up. All
 * ports must be closed: with an open one it does nothing. */
void sr_store_abandon(struct sr_store *store);

/* True exactly when something that has completed is not yet durable. */
bool sr_needs_flush(struct sr_store *store);

uint32_t sr_shard_count(const struct sr_store *store);
uint32_t sr_core_count(const struct sr_store *store);
/* The shard and the core that own an id: pure functions, any thread. */
uint32_t sr_shard_of(const struct sr_store *store, struct sr_id id);
uint32_t sr_core_of_shard(const struct sr_store *store, uint32_t shard);

/* Runs fn(port, arg) once on the core that owns the shard, soon; returns at once. The port
 * is that core's own: inside fn, and inside callbacks of requests submitted to it, submit is
 * a plain function call that takes no lock and makes no hop for ids of that core. fn must not
 * block. -EAGAIN: the core's mailbox is full. */
typedef void sr_run_fn(struct sr_port *port, void *arg);
int sr_store_run(struct sr_store *store, uint32_t shard, sr_run_fn *fn, void *arg);

/* Makes a store larger; it must not be open (-EBUSY). add_bytes: dealt evenly to the packed files
 * of a directory, or to the given files; block devices are used as far as they reach by now.
 * add_device: instead, a further device for a store on devices; name it in `where` from then
 * on. A failure in between leaves a store that opens. */
int sr_grow(const char *where, uint64_t add_bytes, const char *add_device);

/* ---- Memory --------------------------------------------------------------------------- */

/* 4 KiB-aligned memory, rounded up to whole blocks, registered with every ring while the
 * arena lasts, ordinary memory after that; zeroed on request. NULL when memory is out. */
void *sr_buffer_alloc(struct sr_store *store, size_t bytes, bool zeroed);
void sr_buffer_free(struct sr_store *store, void *buffer);

/* Registers the caller's memory (block-aligned, at most 1 GiB a call, 15 at a time) with
 * every ring, until sr_memory_unregister() or close. Blocks until all cores have it.
 * -ENOMEM: the memory limit forbids it; the memory can be used all the same, slower. */
int sr_memory_register(struct sr_store *store, void *base, size_t bytes);
int sr_memory_unregister(struct sr_store *store, void *base);

/* ---- Requests --------------------------------------------------------------------------- */

enum sr_op {
  SR_OP_GET = 1,    /* bytes [offset, offset+bytes) of a blob into buf; result: bytes read,
                       less than asked only at the blob's end; 0 at or past the end */
  SR_OP_PUT = 2,    /* buf becomes the blob, whole; result 0 */
  SR_OP_DELETE = 3, /* result 0, or -ENOENT if there was none */
  SR_OP_STAT = 4,   /* result 0 and size_bytes; -ENOENT */
  SR_OP_FLUSH = 5,  /* store-wide flush; result 0 */
  SR_OP_APPEND = 6, /* buf to the end of a stream; result: bytes */
  SR_OP_NOP = 7,    /* to the core that owns id and back: what a hop costs */
  SR_OP_BATCH = 8,  /* buf: an array of `bytes` struct sr_request *; see "Batches" */
  /* Of `block`, [offset, offset + bytes), whole logical blocks inside its size; result: bytes. */
  SR_OP_READ = 32,
  SR_OP_WRITE = 33,
  SR_OP_WRITE_ZEROES = 34, /* writes no data, where it is a volume */
  SR_OP_DISCARD = 35, /* of a volume (files: -EOPNOTSUPP): whole blocks of 4 KiB in the range read
                         as zeros afterwards, others stay as they are. Space comes back by empty
                         clusters of 64 KiB, after the next SR_OP_FLUSH */
  SR_OP_SYNC = 36,    /* what completed before, by any handle, survives any crash */
};

enum sr_flags {
  SR_DURABLE = 1u << 0,     /* put, delete, write, write zeroes: complete when it survives any
                               crash (FUA) */
  SR_IF_ABSENT = 1u << 1,   /* put: -EEXIST if the id exists */
  SR_NO_CHECKSUM = 1u << 2, /* put: store no data checksums; get: do not verify */
  SR_RESERVE = 1u << 3,     /* put: reserve the extents and write nothing (buf may be NULL).
                               The bytes are undefined. For measurements; implies
                               SR_NO_CHECKSUM. Also of writes to a volume. */
  SR_VECTORED = 1u << 4, /* read, write: buf is a struct iovec[iov_count], and must stay untouched;
                            `bytes` is the sum of their lengths */
};

/* A request: the caller's memory. `opaque` is the library's and
 * need not be set.
 * Errors in `result`:
 *   -ENOENT no such blob         -EEXIST  see SR_IF_ABSENT      -EINVAL  impossible arguments
 *   -ENOSPC the shard is full    -EBADMSG checksum mismatch     -EROFS   read-only store
 *   -EFBIG  longer than 1 TiB    -EIO     the device failed, or the shard stopped writing
 *                                         after a failed flush
 *   -ENOMEM memory is out; the blob is as it was */
struct sr_request {
  uint32_t op;    /* enum sr_op */
  uint32_t flags; /* enum sr_flags */
  union {
    struct sr_id id;
    uint64_t iov_count; /* SR_VECTORED: at most 1024 */
  };
  void *buf; /* read-only for puts and writes */
  uint64_t offset;
  uint64_t bytes;
  union {
    struct sr_stream *stream; /* SR_OP_APPEND */
    struct sr_block *block;   /* SR_OP_READ to SR_OP_SYNC */
  };
  /* Called by sr_port_reap(), or on the core for a core's own port; NULL: the request is
   * returned by sr_port_reap(). It may submit requests, this one included. */
  void (*done)(struct sr_request *request);
  void *user;
  int64_t result;
  uint64_t size_bytes; /* of the blob: set by get, stat */
  uint64_t opaque[21];
} __attribute__((aligned(64)));

/* Batches. Puts and deletes over any shards, all or nothing: after a crash, and to a flush that
 * runs at the same time. The request has op SR_OP_BATCH, in buf an array of `bytes` pointers to
 * requests (1 to SR_BATCH_PARTS_MAX), flags 0 or SR_DURABLE; id and offset do not matter. Its parts
 * are SR_OP_PUT (flags 0 or SR_NO_CHECKSUM) or SR_OP_DELETE (flags 0), without `done`, each in one
 * place only; array, parts and buffers must stay untouched until the batch is reaped.
 *
 *   Effect    as if one part after the other, in the order of the array; one id may come up more
 *             than once. A delete of an absent id has the result -ENOENT; the batch goes on.
 *   Errors    Any other error of a part is the batch's result, and nothing of it has happened;
 *             parts that were fine have -ECANCELED. -EIO of a durable batch whose parts have no
 *             error: all has happened, but it is not durable, as after a failed flush.
 *             -ENOSPC also if the changes do not fit a shard's log at once. 1024 small blobs fit
 *             one of 1 MiB; of blobs of more than 250 MiB only three fit any.
 *   Order     Two batches take effect in one order on all shards. A batch has no order with other
 *             requests in flight on the same ids. Readers may see a part of one that is in flight.
 *   Cost      Besides its puts two messages to each shard concerned, and one small allocation for
 *             each put. Changes in more than one shard become durable by a store-wide flush alone:
 *             a request with SR_DURABLE that finds such changes in its shard waits for one. */
#define SR_BATCH_PARTS_MAX 1024u

/* ---- Ports ---------------------------------------------------------------------------- */

struct sr_port_options {
  size_t size;
  uint32_t depth; /* requests in flight; default 1024, max 65536 */
};
#define SR_PORT_OPTIONS_INIT SR_OPTIONS_INIT_(sr_port_options)

/* One thread's door to the store. At most 64 are open at a time (-EMFILE). */
int sr_port_open(struct sr_store *store, const struct sr_port_options *options,
                 struct sr_port **port);
/* -EBUSY while requests are in flight. NULL is fine. */
int sr_port_close(struct sr_port *port);

/* Submits requests[0..count). Returns how many were accepted, in order from the first;
 * -EAGAIN if none was for want of room, -EINVAL if the first is malformed, -ESHUTDOWN when
 * the store is closing. */
int sr_port_submit(struct sr_port *port, struct sr_request *const requests[], uint32_t count);
/* Collects finished requests: runs the callbacks of those that have one, stores the others
 * in finished[0..max). Returns how many of both together. Returning 0 arms sr_port_fd(), once
 * that has been called.
 * Never blocks. A core's own port is reaped by its core: -EINVAL. */
int sr_port_reap(struct sr_port *port, struct sr_request *finished[], uint32_t max);
/* Waits until sr_port_reap() would return something: 1, or 0 after the timeout (ns; negative:
 * for ever). -EINVAL on a core's own port; -ENODATA if nothing is in flight. */
int sr_port_wait(struct sr_port *port, int64_t timeout_ns);
/* An eventfd for poll/epoll: readable when something has finished since this call or the last reap
 * that returned 0. Owned by the port; do not read it, reap does. A port whose descriptor was
 * never asked for is cheaper to poll by reap. -EINVAL on a core's own port. */
int sr_port_fd(struct sr_port *port);
uint32_t sr_port_in_flight(const struct sr_port *port);

/* ---- Blocking calls --------------------------------------------------------------------- */
/* Each submits to the port and waits. The port may have other requests in flight; those
 * that finish meanwhile stay there for the next reap. Not on a core's own port (-EDEADLK).
 *
 * sr_get(), sr_stat() and sr_exists() spare themselves that where they can: the calling thread
 * looks up by itself where the bytes lie, reads the device by pread() and verifies them, while the
 * core sleeps or does other work. Results, order and guarantees are the same. Not so, but by way of
 * the core: ranges of more than 256 KiB (128 KiB if range or buf are not aligned) or in several
 * extents, what fails or does not have its checksum, stores in memory, and engines other than
 * "uring" and "pool". */

int sr_put(struct sr_port *port, struct sr_id id, const void *buf, uint64_t bytes, uint32_t flags);
int64_t sr_get(struct sr_port *port, struct sr_id id, void *buf, uint64_t offset, uint64_t bytes);
int sr_delete(struct sr_port *port, struct sr_id id, uint32_t flags);
int sr_exists(struct sr_port *port, struct sr_id id); /* 1, 0, or an error */
int sr_stat(struct sr_port *port, struct sr_id id, uint64_t *size_bytes);
int sr_flush(struct sr_port *port);
/* An SR_OP_BATCH of parts[0..count); flags 0 or SR_DURABLE. */
int sr_batch(struct sr_port *port, struct sr_request *const parts[], uint32_t count,
             uint32_t flags);
/* Blobs in the store now. */
int64_t sr_count(struct sr_port *port);

struct sr_entry {
  struct sr_id id;
  uint64_t size_bytes;
};
/* Iterates over all blobs in no particular order. Begin with a zeroed cursor. Returns how
 * many entries were stored (at most max, at least 1), 0 at the end. A blob that exists
 * throughout is returned exactly once, whatever else is written meanwhile. */
struct sr_cursor {
  uint64_t opaque[4];
};
int sr_list(struct sr_port *port, struct sr_cursor *cursor, struct sr_entry *entries, uint32_t max);

/* Streams: put a blob piece by piece. Nothing is visible before commit. size_bytes is a
 * hint for a good layout, 0 if unknown. Appends are ordered; keep one in flight a stream. At most
 * 64 streams are open per shard (-EAGAIN). Commit and abort both free the stream. */
int sr_stream_begin(struct sr_port *port, struct sr_id id, uint64_t size_bytes, uint32_t flags,
                    struct sr_stream **stream);
int sr_stream_append(struct sr_port *port, struct sr_stream *stream, const void *buf,
                     uint64_t bytes);
int sr_stream_commit(struct sr_port *port, struct sr_stream *stream);
int sr_stream_abort(struct sr_port *port, struct sr_stream *stream);

/* ---- Volumes ---------------------------------------------------------------------------- */

/* A volume is a virtual disk: thin, of up to 64 TiB, under a name. A snapshot is a volume that
 * never changes again; a clone is a writable volume that begins as a snapshot. All three have names
 * of one kind and are opened, read, listed and removed by the same calls. docs/volumes.md explains
 * layers and guarantees.
 *
 * Names: 1 to 255 bytes of UTF-8 without control characters and without '/'; "#N" (as in "#17")
 * stands for the volume with id N wherever a name is asked for, so none begins with '#'.
 * Calls that take a port block, as those of "Blocking calls". What they change counts at once
 * and survives a crash from the next sr_flush(), or flush of the volume, on; a crash before
 * finds all of the change or nothing of it.
 * Common errors: -ENOENT no such volume, -EEXIST the name is taken, -EINVAL a malformed name or an
 * option out of range, -ENAMETOOLONG, -EROFS the store is read-only or the volume a snapshot,
 * -EBUSY it is open (or, where that is said, something lies on it), -ENOSPC, -EIO. */

#define SR_VOLUME_BYTES_MAX      (UINT64_C(64) << 40)
#define SR_VOLUME_NAME_BYTES_MAX 255u

/* Checksums of a volume's data. What is sealed by a snapshot gets them in the background; from then
 * on reads of it, through the snapshot and through every volume that lies on it, are verified:
 * -EBADMSG instead of data that is not what was written, and the log says where. Data that can be
 * overwritten in place has none, unless the volume was made with SR_INTEGRITY_ON: then what is
 * written has its checksum when the write has completed. 4 bytes of RAM for 4 KiB. */
enum sr_integrity {
  SR_INTEGRITY_SEALED = 0, /* the default */
  SR_INTEGRITY_OFF = 1,    /* none for the snapshots of this volume, either */
  SR_INTEGRITY_ON = 2, /* also for what is not sealed. If memory changes while a write of it is in
                          flight, that write's blocks have none until they are read in the
                          background; if it changes and back again unseen, the block may be -EBADMSG
                          until it is written again. The first write over data in 4 MiB that were
                          not written for a while waits for a flush; after a crash blocks in such
                          that were, have none until they are read in the background */
};

struct sr_volume_options {
  size_t size;
  uint64_t size_bytes;   /* of the disk: whole logical blocks; clones default to the snapshot's */
  uint32_t block_bytes;  /* logical block: 512 (default) or 4096; clones: the snapshot's */
  bool striped;          /* over all shards; else whole on one. Clones: as the snapshot */
  uint32_t stripe_bytes; /* if striped: a power of two, 64 KiB to 1 GiB; default 1 MiB */
  bool on_shard;         /* place it on `shard`; else by load and free space */
  uint32_t shard;
  uint32_t integrity; /* enum sr_integrity; snapshots: the volume's */
};
#define SR_VOLUME_OPTIONS_INIT SR_OPTIONS_INIT_(sr_volume_options)
int sr_volume_create(struct sr_port *port, const char *name,
                     const struct sr_volume_options *options);
/* Its space comes back, but for what snapshots and clones share, with the next sr_flush(); of large
 * ones in the background. A snapshot with clones can be removed: they keep what they need. If a
 * single volume of its shard is left upon it the two are merged before the call returns, beside
 * requests, so that what nobody sees any more comes back as well. */
int sr_volume_remove(struct sr_port *port, const char *name);
int sr_volume_rename(struct sr_port *port, const char *name, const char *new_name);
/* Also while it is open. Smaller: -ENOTEMPTY if there is data beyond the new end, unless force. */
int sr_volume_resize(struct sr_port *port, const char *name, uint64_t size_bytes, bool force);

/* The volume as it is now, under a new name: all writes that completed before the call are in, of
 * writes in flight each one is or is not (of one that crosses stripes: each stripe). Also while it
 * is open and written to, and for striped volumes: one point in time for all shards. Waits for
 * requests in flight; those that come meanwhile wait for it. */
int sr_volume_snapshot(struct sr_port *port, const char *name, const char *snapshot);
/* A writable volume that begins as a snapshot (-EINVAL: it is none). options: NULL, or size_bytes
 * (not below the snapshot's), on_shard and integrity. */
int sr_volume_clone(struct sr_port *port, const char *snapshot, const char *name,
                    const struct sr_volume_options *options);
/* The volume, which must not be open, becomes what one of the snapshots below it is, in size as
 * well (-EXDEV: it is none of them). Newer snapshots stay, but do not lie below it any more. */
int sr_volume_rollback(struct sr_port *port, const char *name, const char *snapshot);
/* Copies what lies in snapshots below into the volume, so that it depends on none. May be open and
 * in use; takes as long as that. Meanwhile it cannot be removed, resized, rolled back or made a
 * snapshot of (-EBUSY). */
int sr_volume_flatten(struct sr_port *port, const char *name);

struct sr_volume_range {
  uint64_t offset_bytes, bytes;
  bool zeros; /* reads as zeros now */
};
/* Calls fn for each range, in order, that may differ between snapshot `from` and volume `to`; from
 * NULL: that is not zeros by nature. Whole blocks of 4 KiB. fn's first non-zero return ends it and
 * is returned. fn may use the library, through the port as well, but neither of the two can be
 * removed, resized or rolled back meanwhile (-EBUSY). Of a volume that is being written to the
 * ranges are as good as the moment. -EINVAL: from is no snapshot, or they are striped otherwise. */
int sr_volume_diff(struct sr_port *port, const char *from, const char *to,
                   int (*fn)(void *arg, const struct sr_volume_range *range), void *arg);
/* The same of one volume, from NULL, in [offset, offset + bytes) alone: the ranges are cut to it.
 * Costs what is looked at, a message for each 4 MiB that has something. -EINVAL: outside the
 * volume. */
int sr_volume_ranges(struct sr_port *port, const char *name, uint64_t offset, uint64_t bytes,
                     int (*fn)(void *arg, const struct sr_volume_range *range), void *arg);

struct sr_volume_info {
  uint64_t id, parent_id;          /* parent: the snapshot that it lies on; 0: none */
  uint64_t size_bytes, used_bytes; /* used: clusters of its own, not of what it shares */
  uint64_t shared_bytes;           /* clusters in all layers below */
  uint64_t unsummed_bytes; /* data of snapshots, its own or below, that has no checksum yet */
  uint32_t block_bytes, stripe_bytes; /* 0: on one shard */
  uint32_t shard;                     /* the first */
  uint32_t depth;                     /* layers below */
  uint32_t children;                  /* snapshots and clones that lie directly on it */
  bool snapshot, open_for_writing;
  uint32_t openers;
  char name[SR_VOLUME_NAME_BYTES_MAX + 1];
  char group[64];
  /* Since it was opened, by whoever has it open: requests that waited at a limit, and how long all
   * of them did together. What is waiting now counts up to the last one that could go. */
  uint64_t limit_waits, limit_wait_ns;
};
int sr_volume_stat(struct sr_port *port, const char *name, struct sr_volume_info *info);
/* All of them by name, in alphabetical order: begin with "", go on with the last name. Returns how
 * many were stored, 0 at the end. */
int sr_volume_list(struct sr_port *port, const char *after, struct sr_volume_info *infos,
                   uint32_t max);

/* ---- Limits ----------------------------------------------------------------------------- */

/* A token bucket: holds `size` tokens, which come back in refill_ms; one_time_burst more are there
 * when it is set and when the store is opened, and do not come back. A request that is larger than
 * the bucket waits until it is full. 1,000 operations a second: {1000, 0, 1000}.
 *
 * Reads and writes of volumes take their bytes and an operation; flushes, discards and zeroes an
 * operation. A request to a striped volume is one for each stripe (a flush: for each shard) that it
 * concerns. Blobs and files take nothing. */
struct sr_bucket {
  uint64_t size; /* tokens; 0: not limited */
  uint64_t one_time_burst;
  uint64_t refill_ms;
};
struct sr_limits {
  size_t size;
  struct sr_bucket bytes, ops;
  const char
      *group; /* of volumes: also limited by that group's limits; at most 63 bytes; NULL: of none */
};
#define SR_LIMITS_INIT SR_OPTIONS_INIT_(sr_limits)
/* Each counts at once, also for open volumes, and stays until it is changed, over restarts; a
 * volume is limited by its own, its group's and the store's. All zeros: no limit; what is not given
 * is not kept. A bucket with size 0 but a burst or a refill time, or a refill time of 0 with a
 * size, is -EINVAL. */
int sr_volume_limit(struct sr_port *port, const char *name, const struct sr_limits *limits);
int sr_group_limit(struct sr_port *port, const char *group, const struct sr_limits *limits);
int sr_store_limit(struct sr_port *port, const struct sr_limits *limits);
/* What they are now. -ENOENT: no such volume, or group. limits: begun with SR_LIMITS_INIT; of a
 * volume its group points to `group` (NULL: not asked for), or is NULL. */
int sr_volume_limits(struct sr_port *port, const char *name, struct sr_limits *limits,
                     char group[64]);
int sr_group_limits(struct sr_port *port, const char *group, struct sr_limits *limits);
int sr_store_limits(struct sr_port *port, struct sr_limits *limits);

/* ---- Blocks ----------------------------------------------------------------------------- */

/* One interface to volumes and to files and devices outside the store; all go through the same
 * cores and rings. A struct sr_block may be used by any thread through its own port, without locks.
 *
 * Writes in flight that touch the same 4 KiB block take effect one after the other: in the order of
 * submission if they come through one port and none of them crosses stripes, else in any. A read
 * beside them gets each block as before or as after. A request that is refused (-EINVAL,
 * -EROFS) has changed nothing; one of many blocks that fails later (-ENOSPC, -EIO) may have written
 * some of them. */

struct sr_block_options {
  size_t size;
  bool read_only;
  bool share;           /* volumes: open for writing though somebody else has it so (else -EBUSY) */
  uint32_t block_bytes; /* of files: logical block, 512 (default) or 4096 */
  bool on_shard;        /* of files: whose core does the I/O; else spread */
  uint32_t shard;
  bool direct_reads; /* of volumes: sr_block_pread() will be used. Takes memory, up to 2 MiB for
                        each of its shards, and 12 KiB for each 4 MiB that have checksums or are put
                        together from blocks of several snapshots */
};
#define SR_BLOCK_OPTIONS_INIT SR_OPTIONS_INIT_(sr_block_options)
int sr_volume_open(struct sr_port *port, const char *name, const struct sr_block_options *options,
                   struct sr_block **block);
/* A plain file or block device: a path, or "fd:N" for an open descriptor, which is duplicated. Its
 * size is that at the time, rounded down to 4 KiB; it never grows. Direct I/O where possible. At
 * most 64 at a time (-EMFILE). -EBADF: the descriptor is not open for that. -EOPNOTSUPP: a store in
 * memory. After a failed flush every change and flush is -EIO until it is closed and opened. */
int sr_block_open(struct sr_port *port, const char *file, const struct sr_block_options *options,
                  struct sr_block **block);
/* Either kind. -EBUSY: requests are in flight; where the volume stays open, for other handles or a
 * merge of the store's own, the caller sees to it that none of this one is. Does not flush. */
int sr_block_close(struct sr_port *port, struct sr_block *block);
uint64_t sr_block_size_bytes(const struct sr_block *block);
uint32_t sr_block_block_bytes(const struct sr_block *block);
bool sr_block_read_only(const struct sr_block *block);

/* Requests: SR_OP_READ to SR_OP_SYNC, through ports like all others. Blocking: bytes or an error.
 */
int64_t sr_block_read(struct sr_port *port, struct sr_block *block, void *buf, uint64_t offset,
                      uint64_t bytes);
int64_t sr_block_write(struct sr_port *port, struct sr_block *block, const void *buf,
                       uint64_t offset, uint64_t bytes, uint32_t flags);
int64_t sr_block_write_zeroes(struct sr_port *port, struct sr_block *block, uint64_t offset,
                              uint64_t bytes, uint32_t flags);
int64_t sr_block_discard(struct sr_port *port, struct sr_block *block, uint64_t offset,
                         uint64_t bytes);
int sr_block_flush(struct sr_port *port, struct sr_block *block);
/* Reads on the calling thread, without a port, a core or its wake-up: for threads that have nothing
 * to do but to wait for one read at a time. Any thread, any number of them; blocks as pread() does.
 * `bytes`: it is done, and guarantees are those of a read through a port (data with checksums are
 * verified). 0: not this time, read it through a port: where the bytes lie is not known here yet
 * (such a read makes it known, for 4 MiB around), or has just changed; the volume has a limit, or
 * SR_INTEGRITY_ON; it was opened without direct_reads; it is a file, or in memory; the device has
 * failed; or more than 64 KiB were asked for. buf may have been written to. -EINVAL: not whole
 * logical blocks inside its size. While one runs sr_block_close() is -EBUSY, if it is the volume's
 * last handle; with others open the caller sees to it that none runs, and always that none begins
 * meanwhile. */
int64_t sr_block_pread(struct sr_block *block, void *buf, uint64_t bytes, uint64_t offset);
struct iovec;
int64_t sr_block_readv(struct sr_port *port, struct sr_block *block, const struct iovec *iov,
                       uint32_t iov_count, uint64_t offset);
int64_t sr_block_writev(struct sr_port *port, struct sr_block *block, const struct iovec *iov,
                        uint32_t iov_count, uint64_t offset, uint32_t flags);
/* The same by the name of what a block most often is. */
int64_t sr_volume_read(struct sr_port *port, struct sr_block *volume, void *buf, uint64_t offset,
                       uint64_t bytes);
int64_t sr_volume_write(struct sr_port *port, struct sr_block *volume, const void *buf,
                        uint64_t offset, uint64_t bytes, uint32_t flags);
int64_t sr_volume_write_zeroes(struct sr_port *port, struct sr_block *volume, uint64_t offset,
                               uint64_t bytes, uint32_t flags);
int64_t sr_volume_discard(struct sr_port *port, struct sr_block *volume, uint64_t offset,
                          uint64_t bytes);
int sr_volume_flush(struct sr_port *port, struct sr_block *volume);
int sr_volume_close(struct sr_port *port, struct sr_block *volume);

/* ---- Maintenance ------------------------------------------------------------------------ */

struct sr_vacuum_result {
  uint64_t moved_bytes;    /* relocated towards the start of the regions */
  uint64_t released_bytes; /* given back to the file system */
};
/* Moves blobs down, flushes, then punches holes behind the last one. Others may read and
 * write meanwhile. */
int sr_vacuum(struct sr_port *port, struct sr_vacuum_result *result);
/* Writes a checkpoint of every shard's whole index, then flushes: the next open is quick. */
int sr_checkpoint(struct sr_port *port);

/* ---- Scrubbing -------------------------------------------------------------------------- */

/* Reads again everything that counts, beside requests, and verifies it: every blob to the end of
 * its last block, what volumes have with checksums (enum sr_integrity), committed logs,
 * checkpoints, both copies of identities and roots. What is damaged is logged and told to
 * sr_open_options.damage, once for each place; nothing is changed and the store goes on. What is
 * overwritten, moved or deleted meanwhile is no finding. Blobs without checksums are only read. Of
 * a mem: store the shards alone. */
struct sr_scrub_options {
  size_t size;
  uint64_t bytes_per_second; /* of the whole store; default: as fast as it goes */
  bool continuous;           /* begin again at the end, until it is stopped */
};
#define SR_SCRUB_OPTIONS_INIT SR_OPTIONS_INIT_(sr_scrub_options)
struct sr_scrub_status {
  bool running;
  uint64_t passes; /* that came to their end since the store was opened */
  /* Of the running or the last pass. */
  uint64_t done_bytes, total_bytes; /* total: as far as it is known now */
  uint64_t checked_blobs, damaged_blobs;
  uint64_t unverified_blobs; /* put without checksums */
  uint64_t damaged_metadata, unreadable;
  uint64_t checked_blocks,
      damaged_blocks; /* of 4 KiB, of volumes' snapshots: those with checksums */
};
/* -EBUSY: it runs already. -ENOMEM. */
int sr_scrub_start(struct sr_port *port, const struct sr_scrub_options *options);
int sr_scrub_status(struct sr_port *port, struct sr_scrub_status *status);
/* Returns at once; reads in flight come to their end. Not running: 0. */
int sr_scrub_stop(struct sr_port *port);

/* ---- Statistics ------------------------------------------------------------------------- */

struct sr_space {
  uint64_t total_bytes;    /* data area of all regions */
  uint64_t free_bytes;     /* can be allocated now */
  uint64_t pending_bytes;  /* freed, usable after the next root */
  uint64_t live_bytes;     /* sum of blob sizes */
  uint64_t metadata_bytes; /* logs, checkpoints, identities */
  uint64_t blobs;
  uint64_t index_ram_bytes;
  uint64_t volume_bytes;     /* clusters of all volumes, snapshots' included, each once */
  uint64_t volume_ram_bytes; /* of their maps */
};
int sr_space(struct sr_port *port, struct sr_space *space);

#define SR_LATENCY_BUCKETS 320
/* Bucket i counts latencies in a log-linear scale: 8 buckets per power of two. */
uint64_t sr_latency_bucket_ns(uint32_t bucket); /* upper end of a bucket */

struct sr_core_stats {
  uint32_t core, cpu, numa_node, shards;
  char engine[16];
  char why_cpu[64];    /* why this CPU was chosen */
  char ring_flags[96]; /* granted; refused ones with a leading '!' */
  bool buffers_registered, files_registered;
  uint64_t gets, puts, deletes, other_ops, read_bytes, write_bytes;
  uint64_t block_reads, block_writes;  /* of volumes and files; their bytes are in the above */
  uint64_t hops_in, batches_in;        /* requests and batches that came through mailboxes */
  uint64_t device_submits, device_ios; /* system calls to submit, and I/Os submitted: small writes
                                          in a row on disk may be one */
  uint64_t device_flushes, device_fua_writes; /* among these I/Os */
  uint64_t steps, idle_steps, sleeps, wakes_sent, wakes_received;
  uint64_t io_workers; /* io-wq threads of this process now, all cores together */
  uint64_t short_ios, retried_ios, checksum_errors;
  uint64_t latency_ns[SR_LATENCY_BUCKETS]; /* from the core's mailbox to completion; one request in
                                              16 is timed */
  uint64_t direct_reads; /* of block_reads: by sr_block_pread(), of volumes of this core; they are
                            not in device_ios nor in latency_ns */
  uint64_t direct_gets;  /* of gets: by sr_get() on its caller's thread; the same holds for them.
                            sr_stat() and sr_exists() done so are in other_ops */
};
int sr_core_stats(struct sr_port *port, uint32_t core, struct sr_core_stats *stats);

struct sr_store_stats {
  uint64_t epoch, flushes, flushes_shared, durable_commits, checkpoints;
  uint64_t zeroed_bytes, log_bytes_used, log_bytes;
  char uuid[37];
  uint32_t format_version, shards, cores, devices;
  bool read_only, engine_fallback;
  char why_cores[128];
  char why_engine[128];
  /* Damage that was found since the store was opened, in the open or by scrubbing; reads that fail
   * are in checksum_errors of the cores. */
  uint64_t damaged_blobs, damaged_metadata;
  uint64_t old_blobs;    /* see SR_DAMAGE_OLD */
  uint64_t lost_changes; /* as far as it is known how many */
  /* Atomic batches that came, that failed, and how often one had to wait for room in a log. */
  uint64_t batches, batches_failed, batch_retries;
  uint64_t queue_depth, poll_us; /* in use: of the options, the settings, or by default */
  uint32_t flush_method;         /* enum sr_flush_method: the same */
  char why_settings[128];        /* the file of settings that was read, or why there is none */
};
int sr_store_stats(struct sr_port *port, struct sr_store_stats *stats);

const char *sr_version(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
