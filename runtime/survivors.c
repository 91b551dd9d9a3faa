/* survivors.c - which memory counts, and when; see survivors.h. */
#include "runtime/survivors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shards/base/plant.h"
#include "shards/survivor.h"

#define VERSION 1u

struct head { /* one block */
  char magic[8];
  uint32_t version, shard_count;
  uint8_t uuid[16];
  uint64_t incarnation;              /* of the root that this open has written; 0: not yet */
  uint32_t changing;                 /* several parts at once: not to be used */
  char where[SURVIVORS_WHERE_BYTES]; /* absolute; "": not said */
};
_Static_assert(sizeof(struct head) <= BLOCK_BYTES, "one block");
static const char magic[8] = "SRSURVIV";

struct survivors {
  const struct logger *logger;
  struct survivors_place *place;
  struct head *left; /* NULL: none */
  struct head *kept;
};

uint64_t survivors_bytes(uint32_t shard_count) {
  return BLOCK_BYTES + (uint64_t)shard_count * sizeof(struct survivor);
}

bool survivors_is_marked(const void *memory) { return ((const struct head *)memory)->changing; }

static bool fits(const struct head *h, const struct layout *l) {
  return !memcmp(h->magic, magic, sizeof magic) && h->version == VERSION &&
         h->shard_count == l->shard_count && !memcmp(h->uuid, l->uuid, sizeof h->uuid) &&
         h->incarnation &&
         (h->incarnation == l->root->incarnation || PLANTED(survivors_of_another_open));
}

static struct survivor *shards_of(struct head *h) {
  return (struct survivor *)(void *)((char *)h + BLOCK_BYTES);
}

/* Why what was left must not be used, or NULL. What one shard has and another has not could be half
 * of a batch: so it counts for all of them or for none. */
static const char *unusable(struct head *h) {
  const struct survivor *shards = shards_of(h);
  if (survivors_is_marked(h) && !PLANTED(survive_half_a_change))
    return "was killed in the middle of a change of several parts";
  for (uint32_t i = 0; i < h->shard_count; i++)
    if (shards[i].failed && !PLANTED(survive_a_failure))
      return "had a write or a flush that failed";
  return NULL;
}

struct survivors *survivors_open(struct survivors_place *place, const struct layout *l,
                                 const struct logger *logger) {
  uint64_t bytes = survivors_bytes(l->shard_count);
  struct survivors *s = place ? calloc(1, sizeof *s) : NULL;
  if (!s) {
    if (place) place->close(place);
    return NULL;
  }
  s->place = place;
  s->logger = logger;
  struct head *left = place->find(place, bytes);
  bool is_ours = left && fits(left, l);
  const char *why = is_ours ? unusable(left) : NULL;
  if (is_ours && !why) s->left = left;
  if (why)
    log_line(logger, 1, "%s: the process before %s: the store goes on from its last durable state",
             place->name, why);
  s->kept = place->make(place, bytes);
  if (!s->kept) return s;
  *s->kept = (struct head){.version = VERSION, .shard_count = l->shard_count};
  memcpy(s->kept->magic, magic, sizeof magic);
  memcpy(s->kept->uuid, l->uuid, sizeof s->kept->uuid);
  return s;
}

const struct survivor *survivors_left(const struct survivors *s, uint32_t shard) {
  return s && s->left ? shards_of(s->left) + shard : NULL;
}

struct survivor *survivors_keep(struct survivors *s, uint32_t shard) {
  return s && s->kept ? shards_of(s->kept) + shard : NULL;
}

void survivors_distrust(struct survivors *s) {
  if (s && s->left && !PLANTED(survive_a_failure))
    __atomic_store_n(&shards_of(s->left)->failed, 1, __ATOMIC_SEQ_CST);
}

void survivors_settle(struct survivors *s, uint64_t incarnation) {
  if (!s) return;
  s->left = NULL;
  if (s->kept) __atomic_store_n(&s->kept->incarnation, incarnation, __ATOMIC_RELEASE);
  s->place->settle(s->place);
}

void survivors_note_where(struct survivors *s, const char *where) {
  struct stat st;
  char *path = s && s->kept ? realpath(where, NULL) : NULL;
  if (path && stat(path, &st) == 0 && S_ISDIR(st.st_mode) && strlen(path) < SURVIVORS_WHERE_BYTES)
    strcpy(s->kept->where, path);
  free(path);
}

bool survivors_read_head(const void *block, uint8_t uuid[16], char where[SURVIVORS_WHERE_BYTES]) {
  const struct head *h = block;
  if (memcmp(h->magic, magic, sizeof magic) || h->version != VERSION) return false;
  memcpy(uuid, h->uuid, sizeof h->uuid);
  snprintf(where, SURVIVORS_WHERE_BYTES, "%.*s", (int)SURVIVORS_WHERE_BYTES - 1, h->where);
  return true;
}

void survivors_mark(struct survivors *s, bool changing) {
  if (s && s->kept) __atomic_store_n(&s->kept->changing, changing, __ATOMIC_SEQ_CST);
}

void survivors_close(struct survivors *s) {
  if (!s) return;
  if (s->left && !unusable(s->left))
    log_line(s->logger, 1,
             "%s: what a killed process has left was not taken over, and stays for the next open; "
             "without it the store goes on from its last durable state",
             s->place->name);
  s->place->close(s->place);
  free(s);
}
