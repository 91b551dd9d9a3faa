/* volumes.c - the catalog itself: a tree by name, a table by id, and what fills them at open. Under
 * the catalog's lock; see volumes.h.
 *
 * The tree is a treap: its shape is that of a heap of hashes of the ids, so it is balanced whatever
 * the names are. */
#include "runtime/volumes.h"

#include <stdio.h>

#include "runtime/volumes_internal.h"

#define TABLE_MIN 64u

/* ---- The tree by name -------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t id) {
  id *= UINT64_C(0x9e3779b97f4a7c15);
  id ^= id >> 29;
  id *= UINT64_C(0xbf58476d1ce4e5b9);
  return id ^ id >> 32;
}

/* Cuts a tree: what is before name, and the rest. */
static void tree_split(struct vdisk *t, const char *name, struct vdisk **before,
                       struct vdisk **rest) {
  while (t) {
    if (strcmp(t->name, name) < 0) {
      *before = t;
      before = &t->right;
      t = t->right;
    } else {
      *rest = t;
      rest = &t->left;
      t = t->left;
    }
  }
  *before = *rest = NULL;
}

static struct vdisk *tree_join(struct vdisk *a, struct vdisk *b) {
  struct vdisk *root = NULL, **at = &root;
  while (a && b) {
    if (mix(a->id) > mix(b->id)) {
      *at = a;
      at = &a->right;
      a = a->right;
    } else {
      *at = b;
      at = &b->left;
      b = b->left;
    }
  }
  *at = a ? a : b;
  return root;
}

static void tree_add(struct catalog *c, struct vdisk *d) {
  struct vdisk **at = &c->tree;
  while (*at && mix((*at)->id) >= mix(d->id))
    at = strcmp((*at)->name, d->name) < 0 ? &(*at)->right : &(*at)->left;
  tree_split(*at, d->name, &d->left, &d->right);
  *at = d;
}

static void tree_take(struct catalog *c, struct vdisk *d) {
  struct vdisk **at = &c->tree;
  while (*at != d) at = strcmp((*at)->name, d->name) < 0 ? &(*at)->right : &(*at)->left;
  *at = tree_join(d->left, d->right);
  d->left = d->right = NULL;
}

static struct vdisk *tree_find(const struct catalog *c, const char *name) {
  struct vdisk *d = c->tree;
  while (d) {
    int order = strcmp(d->name, name);
    if (!order) return d;
    d = order < 0 ? d->right : d->left;
  }
  return NULL;
}

struct vdisk *catalog_after(const struct catalog *c, const char *name) {
  struct vdisk *found = NULL, *d = c->tree;
  while (d) {
    bool after = strcmp(d->name, name) > 0;
    if (after) found = d;
    d = after ? d->left : d->right;
  }
  return found;
}

/* ---- The table by id ---------------------------------------------------------------------------
 */

static struct vdisk **bucket(const struct catalog *c, uint64_t id) {
  return &c->table[mix(id) & (c->table_size - 1)];
}

struct vdisk *catalog_find_id(const struct catalog *c, uint64_t id) {
  struct vdisk *d = c->table_size ? *bucket(c, id) : NULL;
  while (d && d->id != id) d = d->next;
  return d;
}

int catalog_reserve(struct catalog *c, uint32_t more) {
  uint32_t size = c->table_size ? c->table_size : TABLE_MIN, old_size = c->table_size;
  while (size < c->count + more) size *= 2;
  if (size == old_size) return 0;
  struct vdisk **old = c->table, **table = calloc(size, sizeof(struct vdisk *));
  if (!table) return -ENOMEM;
  c->table = table;
  c->table_size = size;
  for (uint32_t i = 0; i < old_size; i++)
    for (struct vdisk *d = old[i], *next; d; d = next) {
      next = d->next;
      d->next = *bucket(c, d->id);
      *bucket(c, d->id) = d;
    }
  free(old);
  return 0;
}

void catalog_add(struct catalog *c, struct vdisk *d) {
  d->next = *bucket(c, d->id);
  *bucket(c, d->id) = d;
  c->count++;
  if (d->name) tree_add(c, d);
}

void catalog_take(struct catalog *c, struct vdisk *d) {
  struct vdisk **at = bucket(c, d->id);
  while (*at != d) at = &(*at)->next;
  *at = d->next;
  c->count--;
  if (!d->name) return;
  tree_take(c, d);
  names_give_up(c, d->name, d->shard);
}

void catalog_set_name(struct catalog *c, struct vdisk *d, char *name) {
  if (d->name) {
    tree_take(c, d);
    names_give_up(c, d->name, d->shard);
  }
  free(d->name);
  d->name = name;
  if (name) tree_add(c, d);
}

/* ---- Looking up ---------------------------------------------------------------------------------
 */

static int parse_id(const char *text, uint64_t *id) {
  uint64_t v = 0;
  if (!*text) return -EINVAL;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || v > (UINT64_MAX - 9) / 10) return -EINVAL;
    v = v * 10 + (uint64_t)(*text - '0');
  }
  *id = v;
  return 0;
}

int catalog_find(const struct catalog *c, const char *name, struct vdisk **disk) {
  uint64_t id = 0;
  int r = name[0] == '#' ? parse_id(name + 1, &id) : volume_name_check(name, VOLUME_NAME_MAX);
  if (r) return r;
  struct vdisk *d = name[0] == '#' ? catalog_find_id(c, id) : tree_find(c, name);
  if (!d || !d->name) return c->lost ? -EBADMSG : -ENOENT;
  *disk = d;
  return 0;
}

int catalog_check_name(const struct catalog *c, const char *name) {
  int r = volume_name_check(name, VOLUME_NAME_MAX);
  return r ? r : tree_find(c, name) ? -EEXIST : 0;
}

struct vdisk *vdisk_create(const char *name) {
  struct vdisk *d = calloc(1, sizeof *d);
  if (d && name && !(d->name = strdup(name))) {
    free(d);
    d = NULL;
  }
  return d;
}

void vdisk_destroy(struct vdisk *d) {
  if (!d) return;
  free(d->limit);
  free(d->name);
  free(d);
}

struct vdisk_group *catalog_group(struct catalog *c, const char *name, bool make) {
  struct vdisk_group *g = c->groups;
  while (g && strcmp(g->name, name) != 0) g = g->next;
  if (g || !make || !(g = calloc(1, sizeof *g))) return g;
  snprintf(g->name, sizeof g->name, "%s", name);
  limit_init(&g->limit, NULL, &c->limit, clock_now_ns(&c->store->clock));
  g->limit.shared = true;
  g->next = c->groups;
  c->groups = g;
  return g;
}

void vdisk_record(const struct vdisk *d, struct volume_record *r) {
  *r = (struct volume_record){.id = d->id,
                              .layer = d->layer,
                              .parent = d->parent ? d->parent->id : 0,
                              .size_bytes = d->size_bytes,
                              .shard = d->shard,
                              .block_shift = d->block_shift,
                              .stripe_shift = d->stripe_shift,
                              .sealed = d->sealed,
                              .live_sums = d->live_sums,
                              .no_sums = d->no_sums};
  if (d->limit) limit_params_get(d->limit, &r->limits);
  if (d->name) memcpy(r->name, d->name, strlen(d->name));
  if (d->group) memcpy(r->group, d->group->name, sizeof r->group);
}

int catalog_enter(struct port *port, bool writing, struct catalog **out) {
  struct catalog *c = &port->store->catalog;
  if (writing && c->store->config.read_only) return -EROFS;
  pthread_mutex_lock(&c->lock);
  *out = c;
  return 0;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

void catalog_finish(struct catalog *c) {
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i], *next; d; d = next) {
      next = d->next;
      vdisk_destroy(d);
    }
  for (struct vdisk_group *g = c->groups, *next; g; g = next) {
    next = g->next;
    free(g);
  }
  free(c->table);
  free(c->placed);
  free(c->free_blocks);
  pthread_mutex_destroy(&c->lock);
  pthread_cond_destroy(&c->merged);
}
