/* volume_copy.h - reads or writes of a block handle with many in flight, for copies between a
 * volume and a file: 32 requests of up to 256 KiB. One thread, that of the port.
 *
 * Reads are given to the sink in the order in which they were asked for. An error stops the copy:
 * every later call returns it. */
#ifndef TOOLS_VOLUME_COPY_H
#define TOOLS_VOLUME_COPY_H

#include "api/shardring.h"

#define COPY_DEPTH 32u
#define COPY_BYTES 262144u

struct copy_slot {
  struct sr_request request;
  char *buf; /* COPY_BYTES */
  bool busy; /* in flight */
  bool used; /* not yet retired */
};

/* buf NULL: of copy_note(). */
typedef int copy_sink(void *arg, uint64_t offset, const char *buf, uint64_t bytes);

struct copy {
  struct sr_store *store;
  struct sr_port *port;
  struct sr_block *block;
  copy_sink *sink; /* of reads */
  void *arg;
  uint32_t next; /* slot; also the oldest one, if used */
  int error;
  bool sink_failed;   /* the error is the sink's, not the volume's */
  uint64_t failed_at; /* byte of the volume */
  struct copy_slot *slots;
};

/* 0 or -ENOMEM. The port must have nothing else in flight. */
int copy_begin(struct copy *c, struct sr_store *store, struct sr_port *port,
               struct sr_block *block);
/* Waits for everything in flight, whether there was an error or not, and frees. 0 or the error. */
int copy_end(struct copy *c);
/* The same without the end: what was written before can be flushed. */
int copy_drain(struct copy *c);

/* bytes: at most COPY_BYTES. */
int copy_read(struct copy *c, uint64_t offset, uint32_t bytes);
/* Nothing to read: the sink is told when it is this range's turn. */
int copy_note(struct copy *c, uint64_t offset, uint64_t bytes);
/* The buffer of the next write, NULL after an error. */
char *copy_buffer(struct copy *c);
/* data: in the buffer that copy_buffer() has given last. */
int copy_write(struct copy *c, const char *data, uint64_t offset, uint32_t bytes);
/* The same, but leaves out what is zeros over a longer distance. */
int copy_write_sparse(struct copy *c, const char *data, uint64_t offset, uint32_t bytes);
int copy_zeros(struct copy *c, uint64_t offset, uint64_t bytes);

/* How many of the bytes at the beginning of buf, in units of 4096, are alike: all zeros (*zeros) or
 * none of them. At least one unit, or what there is. */
uint32_t copy_run(const char *buf, uint32_t bytes, bool *zeros);

#endif
