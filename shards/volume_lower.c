/* volume_lower.c - what lies below the top layers: a view for each parent, learned leaf by leaf.
 * Owned by the shard's thread.
 *
 * A leaf that lies in layers of this shard alone is resolved at once. For others the owners are
 * asked, one after the other downwards; after that this shard knows and asks no more: what is
 * sealed stays where it is. When layers are merged or dropped the runtime has all shards forget
 * what they have learned (OP_VIEWS_DROP) and waits for the reads that still use it. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- Lowers ------------------------------------------------------------------------------------
 */

int lower_get(struct shard *s, struct layer_below from, struct lower **out) {
  struct lower *l = s->volumes->lowers;
  while (l && (l->from.id != from.id || l->from.shard != from.shard)) l = l->next;
  if (!l) {
    l = calloc(1, sizeof *l);
    if (!l || view_create(&l->view)) {
      free(l);
      return -ENOMEM;
    }
    l->from = from;
    l->next = s->volumes->lowers;
    s->volumes->lowers = l;
  }
  l->refs++;
  *out = l;
  return 0;
}

void lower_put(struct shard *s, struct lower *l) {
  if (--l->refs) return;
  struct lower **at = &s->volumes->lowers;
  while (*at != l) at = &(*at)->next;
  *at = l->next;
  view_destroy(l->view);
  free(l);
}

/* ---- Learning ----------------------------------------------------------------------------------
 */

static void run_all(struct shard *s, struct op_list list) {
  for (struct shard_op *op; (op = op_list_pop(&list));) volume_run(s, op);
}

static void fail_all(struct shard *s, struct op_list list, int error) {
  for (struct shard_op *op; (op = op_list_pop(&list));) {
    if (op->work)
      vio_fail(op->work, error);
    else
      volume_complete(s, op, error);
  }
}

static int add_leaf(struct shard *s, struct lower *l, uint64_t leaf,
                    const struct resolved *resolved) {
  int r = view_add_leaf(l->view, leaf, resolved);
  if (r) return r;
  l->sums |= view_sums(l->view, leaf) != NULL;
  l->unsummed |= resolved->unsummed;
  volumes_direct_learned(s->volumes, l, leaf);
  return 0;
}

static void ask(struct fetch *f) {
  struct shard *s = f->shard;
  f->op = (struct shard_op){.kind = OP_RESOLVE, .buf = &f->request};
  s->config.ask(s->config.ask_arg, &f->op, f->request.from.shard);
}

static void begin_fetch(struct fetch *f) {
  f->request.from = f->lower->from;
  f->request.leaf = f->leaf;
  f->version = f->lower->version;
  resolved_init(&f->request.resolved);
  ask(f);
}

/* The reads of the views are forgotten while a question is on its way: it is asked again. */
void shard_answered(struct shard_op *op) {
  if (op->kind == OP_VIEWS_DROP) {
    merge_answered(op);
    return;
  }
  struct fetch *f = container_of(op, struct fetch, op);
  struct shard *s = f->shard;
  if (f->version != f->lower->version) {
    begin_fetch(f);
    return;
  }
  if (f->request.resolved.undecided && f->request.from.id) {
    ask(f);
    return;
  }
  int r = add_leaf(s, f->lower, f->leaf, &f->request.resolved);
  struct op_list list = f->waiting, more = s->volumes->fetch_waiting;
  f->lower = NULL;
  s->volumes->asked--;
  f->waiting = s->volumes->fetch_waiting = (struct op_list){0};
  if (r)
    fail_all(s, list, r);
  else
    run_all(s, list);
  run_all(s, more);
}

/* The layers of this shard need no question, as long as they decide it. */
static bool resolve_here(struct shard *s, struct lower *l, uint64_t leaf, int *result) {
  uint32_t self = s->config.manifest.shard;
  struct resolved *r = &s->volumes->scratch;
  if (l->from.shard != self) return false;
  resolved_init(r);
  struct layer_below next = layer_resolve(manifest_map(s->manifest), l->from, self, leaf, r);
  if (next.id && r->undecided) return false;
  *result = add_leaf(s, l, leaf, r);
  return true;
}

void lower_learn_here(struct shard *s, struct lower *l, uint64_t leaf) {
  int r;
  resolve_here(s, l, leaf, &r);
}

int lower_learn(struct shard *s, struct lower *l, uint64_t leaf, struct shard_op *op) {
  struct volumes *vs = s->volumes;
  int r;
  if (resolve_here(s, l, leaf, &r)) return r;
  struct fetch *unused = NULL;
  for (uint32_t i = 0; i < FETCHES_MAX; i++) {
    struct fetch *f = &vs->fetches[i];
    if (!f->lower) unused = f;
    if (f->lower != l || f->leaf != leaf) continue;
    op_list_push(&f->waiting, op);
    return -EAGAIN;
  }
  if (!unused) {
    op_list_push(&vs->fetch_waiting, op);
    return -EAGAIN;
  }
  vs->asked++;
  unused->shard = s;
  unused->lower = l;
  unused->leaf = leaf;
  op_list_push(&unused->waiting, op);
  begin_fetch(unused);
  return -EAGAIN;
}

/* ---- Readers, and forgetting ----------------------------------------------------------------- */

uint8_t lower_read_begin(struct volumes *vs) {
  vs->readers[vs->turn]++;
  return vs->turn;
}

/* The turn changes only when nobody reads in the other one: so who began before the change is over
 * when that counter is 0. */
static void drop_next(struct shard *s) {
  struct volumes *vs = s->volumes;
  while (vs->view_drops.first) {
    if (!vs->dropping) {
      if (vs->readers[vs->turn ^ 1]) return;
      vs->turn ^= 1;
      vs->dropping = true;
    }
    if (vs->readers[vs->turn ^ 1]) return;
    vs->dropping = false;
    op_complete(s, op_list_pop(&vs->view_drops), 0);
  }
}

void lower_read_end(struct shard *s, uint8_t turn) {
  check(s->volumes->readers[turn] > 0);
  if (--s->volumes->readers[turn] == 0 && s->volumes->view_drops.first) drop_next(s);
}

static void forget(struct lower *l) {
  view_drop_all(l->view);
  l->sums = l->unsummed = false;
}

void lowers_forget_unsummed(struct shard *s) {
  for (struct lower *l = s->volumes->lowers; l; l = l->next) {
    if (l->unsummed) forget(l);
    l->version++; /* answers that are on their way may be without */
  }
  volumes_direct_changed(s->volumes);
}

void views_drop(struct shard *s, struct shard_op *op) {
  if (op->offset) {
    lowers_forget_unsummed(s);
    op_complete(s, op, 0);
    return;
  }
  for (struct lower *l = s->volumes->lowers; l; l = l->next) {
    forget(l);
    l->version++;
  }
  volumes_direct_changed(s->volumes);
  op_list_push(&s->volumes->view_drops, op);
  drop_next(s);
}
