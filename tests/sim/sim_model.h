/* sim_model.h - what the store must say: every id has a row of versions, in the order in which they
 * were asked for. Knows nothing of stores or disks. One thread.
 *
 *   floor    the oldest version that a power cut may leave: everything before it is history
 *   visible  the newest version that has completed: a later read may not see an older one
 *
 * A version that failed cleanly is not there; of one that failed with -EIO nobody knows. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_IDS_MAX   256u
#define MODEL_BYTES_MAX (192u << 10) /* of a blob */
#define MODEL_PARTS_MAX 12u          /* of a batch */

enum outcome { IN_FLIGHT, DONE, UNKNOWN, FAILED };

struct version {
  bool absent; /* a delete, or never written */
  enum outcome outcome;
  uint32_t content; /* the number that its bytes are made of */
  uint64_t bytes;
};
struct row {
  struct version *versions; /* [0] has number `first` */
  uint32_t first, count, room;
  uint32_t floor, visible; /* numbers */
  uint32_t in_flight;
};
struct batch_record {
  uint32_t id[MODEL_PARTS_MAX], version[MODEL_PARTS_MAX], count;
};
struct vmodel;
struct model {
  uint64_t seed;          /* of the contents */
  struct vmodel *volumes; /* NULL: there are none */
  uint32_t id_count;
  struct row rows[MODEL_IDS_MAX];
  bool killed;                  /* not the power failed: what had completed is there */
  struct batch_record *batches; /* since the last collapse */
  uint32_t batch_count, batch_room;
};

void model_create(struct model *m, uint64_t seed, uint32_t id_count);
void model_destroy(struct model *m);

/* The bytes of a version of an id (its content: at first its number). */
void model_fill(const struct model *m, uint32_t id, uint32_t content, void *buf, uint64_t bytes);
static inline const struct version *model_version(const struct model *m, uint32_t id, uint32_t v) {
  return &m->rows[id].versions[v - m->rows[id].first];
}
/* The oldest version that the next open may find. */
static inline uint32_t model_oldest(const struct model *m, uint32_t id) {
  return m->killed ? m->rows[id].visible : m->rows[id].floor;
}
static inline uint32_t model_last(const struct model *m, uint32_t id) {
  return m->rows[id].first + m->rows[id].count - 1;
}

/* A write is asked for: its number. */
uint32_t model_begin(struct model *m, uint32_t id, bool absent, uint64_t bytes);
/* result: 0 done; -EIO nobody knows; any other: it did not happen. durable: it survives. */
void model_end(struct model *m, uint32_t id, uint32_t version, int64_t result, bool durable);
/* These versions appear together after a power cut, or none. */
void model_batch(struct model *m, const struct batch_record *batch);
/* A flush that covers what was visible at its start has succeeded. */
void model_flushed(struct model *m, const uint32_t visible[]);

#define MODEL_SPAN 64u /* versions between floor and last, at most */
/* Which of the versions from..to (numbers) of an id are what was found: a bit mask from `from` on;
 * 0: none, the store is wrong. present: there is a blob, of so many bytes. */
uint64_t model_match(const struct model *m, uint32_t id, uint32_t from, uint32_t to, bool present,
                     const void *buf, uint64_t bytes);
/* The same for a range: buf has [offset, offset + bytes) of a blob, as far as it goes. */
uint64_t model_match_range(const struct model *m, uint32_t id, uint32_t from, uint32_t to,
                           bool present, const void *buf, uint64_t offset, uint64_t asked,
                           uint64_t bytes);
/* found[id]: mask as of model_match() from model_oldest() on. The batch that is torn, NULL: none.
 */
const struct batch_record *model_torn_batch(const struct model *m, const uint64_t found[]);
/* From now on a version is all that an id ever was; it survives. */
void model_collapse(struct model *m, uint32_t id, uint32_t version);
void model_forget_batches(struct model *m);

#endif
