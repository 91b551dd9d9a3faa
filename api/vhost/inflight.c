/* inflight.c - see inflight.h; split rings. */
#include "api/vhost/inflight.h"

#include <errno.h>
#include <stdlib.h>

/* The last batch was made visible to the driver, but its entries may still say "in flight". At most
 * as many as the batch had; the list is checked step by step. */
static void finish_last_batch(struct inflight *t, uint16_t used_index) {
  uint16_t batch = (uint16_t)(used_index - t->q->used_index), head = t->q->last_head;
  for (; batch > 0 && batch <= t->size && head < t->size; batch--) {
    uint16_t next = t->q->entries[head].next;
    t->q->entries[head].in_flight = 0;
    head = next;
  }
  t->q->used_index = used_index;
}

static int by_counter(const void *left, const void *right) {
  const struct inflight_order *a = left, *b = right;
  if (a->counter != b->counter) return a->counter < b->counter ? -1 : 1;
  return a->head < b->head ? -1 : a->head > b->head;
}

void inflight_sort(struct inflight_order order[], int n, uint16_t heads[]) {
  qsort(order, (size_t)n, sizeof *order, by_counter);
  for (int i = 0; i < n; i++) heads[i] = order[i].head;
}

int inflight_begin(struct inflight *t, struct inflight_queue *q, uint16_t *put, struct vring *ring,
                   uint16_t heads[]) {
  *t = (struct inflight){.q = q, .size = ring->size, .put = put};
  if (!q) return 0;
  if (q->version == 0) { /* nobody has used it yet */
    q->version = INFLIGHT_VERSION;
    q->size = ring->size;
    q->used_index = ring->next_used;
    q->last_head = 0;
  }
  if (q->version != INFLIGHT_VERSION || q->size != ring->size) return -EBADMSG;
  struct inflight_order *order = malloc(ring->size * sizeof *order);
  if (!order) return -ENOMEM;
  finish_last_batch(t, ring->next_used);
  int n = 0;
  for (uint16_t i = 0; i < t->size; i++) {
    if (!q->entries[i].in_flight) continue;
    order[n++] = (struct inflight_order){q->entries[i].counter, i};
    if (q->entries[i].counter >= t->counter) t->counter = q->entries[i].counter + 1;
  }
  inflight_sort(order, n, heads);
  free(order);
  t->last_head = q->last_head < t->size ? q->last_head : 0;
  ring->last_avail = ring->known_avail = (uint16_t)(ring->next_used + n);
  return n;
}
