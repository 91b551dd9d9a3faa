/* sim_client.h - an application of the simulated store: keeps random requests in flight, tells the
 * model of each when it is asked for and when it ends, and checks every result. One thread. */
#ifndef TESTS_SIM_CLIENT_H
#define TESTS_SIM_CLIENT_H

#include "tests/sim/sim_check.h"

#define SLOTS_MAX 24u

enum kind { K_PUT, K_DELETE, K_GET, K_STAT, K_FLUSH, K_BATCH, K_COUNT };

/* How often which request is made, and how large blobs are. */
struct habits {
  uint32_t weight[K_COUNT];
  uint32_t durable_percent, absent_percent, no_checksum_percent;
  uint64_t bytes_max;
  uint32_t large_percent; /* else up to a block */
};

/* Results that a world with faults may give. */
struct tolerance {
  bool io_errors; /* -EIO */
  bool damage;    /* -EBADMSG, never other bytes */
  bool dead;      /* the power is gone: results mean nothing */
};

struct slot {
  struct sr_request r;
  struct sr_request parts[MODEL_PARTS_MAX], *part_list[MODEL_PARTS_MAX];
  struct batch_record batch;
  enum kind kind;
  bool busy;
  uint32_t id, version, from; /* from: the oldest version that may be seen */
  uint32_t visible[MODEL_IDS_MAX];
  uint64_t since; /* of a flush: the volumes' clock */
  char *buf;
};

struct client {
  struct random random;
  struct model *model;
  struct sr_store *store;
  struct sr_port *port;
  struct habits habits;
  struct tolerance tolerance;
  uint32_t slot_count, in_flight;
  struct slot slots[SLOTS_MAX];
  char *memory;
  bool locked[MODEL_IDS_MAX];            /* part of a batch in flight */
  uint64_t submitted, finished, refused; /* refused: -ENOSPC */
};

void client_create(struct client *c, uint64_t seed, struct model *m, uint32_t slot_count);
void client_destroy(struct client *c);
void client_open(struct client *c, struct sr_store *store);
/* All requests must have been reaped. */
void client_close(struct client *c);
/* Makes one request if there is a free slot and room: true if it did. */
bool client_submit(struct client *c);
/* Takes what has finished. How many. */
uint32_t client_reap(struct client *c);

/* Blocking: lists, checkpoint, vacuum, a stream. Others may be in flight. */
void client_block(struct client *c);

#endif
