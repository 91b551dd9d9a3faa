/* sim_vclient.h - an application of the simulated store's volumes: keeps random requests in flight
 * and makes random calls, tells the model of each when it begins and when it ends, and checks every
 * result. One thread. */
#ifndef TESTS_SIM_VCLIENT_H
#define TESTS_SIM_VCLIENT_H

#include <sys/uio.h>

#include "tests/sim/sim_client.h"
#include "tests/sim/sim_vmodel.h"

#define VBYTES_MAX (128u << 10) /* of a read or write */
#define VIOV_MAX   10u

/* How often which request is made. */
struct vhabits {
  uint32_t weight[V_KINDS];
  uint32_t durable_percent, vectored_percent, wide_percent;
  uint32_t volumes_max, names, striped_percent, summed_percent;
  bool limits, tree; /* most calls make and remove snapshots and clones */
};

struct vslot {
  struct sr_request r;
  struct iovec iov[VIOV_MAX];
  enum vkind kind;
  bool busy;
  uint64_t since;
  struct vnode *node;
  struct content *content;
  char *buf;
};

struct vhandle { /* of the node with the same number */
  struct sr_block *block;
  bool read_only;
  uint32_t in_flight;
};

struct vclient {
  struct random random;
  struct vmodel *model;
  struct sr_store *store;
  struct sr_port *port;
  struct vhabits habits;
  struct tolerance *tolerance;
  uint32_t shards, slot_count, in_flight;
  uint64_t region_blocks, names;
  struct vslot slots[VOPS_MAX];
  struct vhandle handles[NODES_MAX];
  char *memory;
  uint64_t submitted, finished, refused, calls;
};

void vclient_create(struct vclient *c, uint64_t seed, struct vmodel *m, struct tolerance *t,
                    uint32_t slot_count);
void vclient_destroy(struct vclient *c);
void vclient_open(struct vclient *c, struct sr_store *store);
/* All requests must have been reaped. */
void vclient_close(struct vclient *c);
bool vclient_submit(struct vclient *c);
uint32_t vclient_reap(struct vclient *c);
const char *vkind_name(enum vkind k);

/* sim_vcalls.c: one call by chance. Others' requests may be in flight. */
void vclient_call(struct vclient *c);
/* Removes all volumes and flushes; no shard has anything of a volume any more. */
void vclient_remove_all(struct vclient *c);

/* sim_vcheck.c: all volumes of an opened store against the model. Returns a hash of it all. */
enum found_what {
  FOUND_LOOK,      /* just a look */
  FOUND_VISIBLE,   /* the model is what was found, from now on */
  FOUND_SURVIVING, /* ... and it survives a power cut */
};
uint64_t sim_compare_volumes(struct sr_store *store, struct vmodel *m, enum found_what what);

#endif
