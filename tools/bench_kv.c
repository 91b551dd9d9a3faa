/* bench_kv.c - --workload=kv: gets and puts of small blobs in the mixes of YCSB (bench_models.h).
 * On the load's own thread.
 *
 * A get asks for as much as the largest blob may have, as somebody does who knows a key and no
 * size. An update puts what is there already, as contents are a function of the number: so all that
 * is read can be compared. */
#include "tools/bench_load.h"

enum { READ, UPDATE, MODIFY, MODIFY_READ, MODIFY_UPDATE };

static void aim_get(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  r->op = SR_OP_GET;
  r->flags = l->read_flags;
  r->buf = load_buffer(l, w, 0);
  r->bytes = l->stride;
  w->want = (int64_t)load_blob_bytes(l, w->number);
}

static void aim_put(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  r->op = SR_OP_PUT;
  r->flags = l->write_flags;
  r->buf = load_buffer(l, w, 1);
  r->bytes = load_blob_bytes(l, w->number);
  w->want = 0;
  bench_stamp(r->buf, w->number, l->seed, 0, (r->bytes + 511) / 512 * 512);
}

static void begin(struct load *l, struct load_work *w) {
  struct ycsb_mix mix = ycsb_mix_of((enum ycsb)l->bench->o.ycsb);
  uint64_t dice = load_pick(l, 100), block;
  w->kind = dice < mix.read ? READ : mix.modify ? MODIFY : UPDATE;
  w->number = load_choose(l, w, &block);
  w->request.id = bench_id(w->number, l->seed);
  w->request.offset = 0;
  if (w->kind == UPDATE)
    aim_put(l, w);
  else
    aim_get(l, w);
}

static bool step(struct load *l, struct load_work *w, uint64_t now) {
  const struct sr_request *r = &w->request;
  if (r->op == SR_OP_GET) load_compare(l, w, (uint64_t)r->result);
  if (w->kind == READ) load_class_add(l, READ, (uint64_t)r->result, now, w->op_ns, w->sent_ns);
  if (w->kind == UPDATE) load_class_add(l, UPDATE, r->bytes, now, w->op_ns, w->sent_ns);
  if (w->kind != MODIFY) return false;
  if (w->step == 0) {
    load_class_add(l, MODIFY_READ, (uint64_t)r->result, now, w->op_ns, w->sent_ns);
    aim_put(l, w);
    return true;
  }
  load_class_add(l, MODIFY_UPDATE, r->bytes, now, w->start_ns, w->start_ns);
  load_class_add(l, MODIFY, 2 * r->bytes, now, w->op_ns, w->sent_ns);
  return false;
}

const struct load_script bench_kv_script = {
    .classes = {[READ] = {"read", SIDE_READ},
                [UPDATE] = {"update", SIDE_WRITE},
                [MODIFY] = {"read-modify-write", SIDE_NONE},
                [MODIFY_READ] = {"its read", SIDE_READ},
                [MODIFY_UPDATE] = {"its update", SIDE_WRITE}},
    .buffers = 2,
    .begin = begin,
    .step = step,
};
