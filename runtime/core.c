/* core.c - a core's step, its thread, and how ops travel in and out of it. See core.h. */
#include "runtime/core.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/split.h"
#include "runtime/store.h"
#include "shards/base/plant.h"

#define LATENCY_SAMPLE    16u
#define YIELD_EVERY_NS    UINT64_C(10000)
#define YIELD_NS_MAX      UINT64_C(20000) /* of a yield that lets nobody in */
#define CROWDED_SLEEPS    8u
#define STOPPING_SLEEP_NS 1000000
#define MAIL_LOOKS        16u            /* between two steps that find nothing */
#define RETURNED          ((uintptr_t)1) /* tag of a chain that comes back to a core */

/* ---- Latency buckets: 8 per power of two ---------------------------------------------- */

uint32_t latency_bucket(uint64_t ns) {
  if (ns < 8) return (uint32_t)ns;
  uint32_t exponent = 63u - (uint32_t)__builtin_clzll(ns);
  uint32_t bucket = (exponent - 2) * 8 + (uint32_t)((ns >> (exponent - 3)) & 7);
  return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

uint64_t latency_bucket_end_ns(uint32_t bucket) {
  if (bucket < 8) return bucket + 1;
  return (uint64_t)(8 + bucket % 8 + 1) << (bucket / 8 - 1);
}

/* ---- Out of the core --------------------------------------------------------------------- */

static void time_op(struct core *core, struct shard_op *op) {
  uint32_t now = (uint32_t)clock_now_ns(&core->store->clock);
  core->stats.latency_ns[latency_bucket(now - op->tick)]++;
}

void core_complete(struct core *core, struct shard_op *op) {
  struct peer *peer = op->owner;
  if (op->tick) time_op(core, op);
  if (peer->local == core) {
    op_chain_add(&core->local_done, op);
    return;
  }
  struct op_mail *mail = &core->returns[peer->number];
  if (!mail->count) core->touched[core->touched_count++] = (uint16_t)peer->number;
  op_mail_add(mail, op);
}

void core_op_done(struct shard_op *op) {
  struct peer *peer = op->owner;
  struct store *store =
      peer->local ? peer->local->store : container_of(peer, struct port, peer)->store;
  core_complete(&store->cores[op->core], op);
}

void core_own_op_done(struct shard_op *op) {
  struct peer *peer = op->owner;
  op_chain_add(&peer->local->local_done, op);
}

static void wake_peer(const struct peer *peer) {
  if (peer->local) {
    peer->local->device->ops->wake(peer->local->device);
  } else {
    uint64_t one = 1;
    ssize_t n = write(peer->event_fd, &one, sizeof one);
    (void)n; /* EAGAIN: the counter is full, so it is readable already */
  }
}

/* Keeps what does not fit into a full mailbox for the next step. */
static void send_returns(struct core *core) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < core->touched_count; i++) {
    uint32_t number = core->touched[i];
    struct op_mail *mail = &core->returns[number];
    struct peer *peer = mail->chain.head->owner;
    bool wake = false;
    uintptr_t batch = (uintptr_t)mail->chain.head | (peer->local ? RETURNED : 0);
    uint32_t from = peer->local ? PORTS_MAX + core->index : core->index;
    mail->slot.batch = (void *)batch;
    if (!mailbox_send_slot(peer->inbox, from, &mail->slot, &wake)) {
      core->touched[kept++] = (uint16_t)number;
      continue;
    }
    op_mail_clear(mail);
    if (wake) {
      core->stats.wakes_sent++;
      wake_peer(peer);
    }
  }
  core->touched_count = kept;
}

bool core_has_room(const struct core *core, const struct peer *from) {
  return mailbox_has_room(&core->inbox, from->number);
}

static bool post(struct core *core, const struct peer *from, const struct mailbox_slot *slot) {
  bool wake = false;
  if (!mailbox_send_slot(&core->inbox, from->number, slot, &wake)) return false;
  if (wake && !PLANTED(lose_a_wake_up)) core->device->ops->wake(core->device);
  return true;
}

bool core_post(struct core *core, const struct peer *from, struct shard_op *head) {
  head->ahead = NULL;
  return post(core, from, &(struct mailbox_slot){.batch = head});
}

bool core_post_mail(struct core *core, const struct peer *from, struct op_mail *mail) {
  mail->slot.batch = mail->chain.head;
  if (!post(core, from, &mail->slot)) return false;
  op_mail_clear(mail);
  return true;
}

static void send_outgoing(struct core *core) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < core->outgoing_touched_count; i++) {
    uint32_t target = core->outgoing_touched[i];
    if (!core_post_mail(&core->store->cores[target], &core->self, &core->outgoing[target]))
      core->outgoing_touched[kept++] = (uint16_t)target;
  }
  core->outgoing_touched_count = kept;
}

void core_prefetch(const struct core *core, struct shard_op *op) {
  if (op->kind >= OP_CALL || op->kind == OP_FLUSH || op->kind == OP_NOP) return;
  struct shard *shard = core->shards[shard_of_hash(op->hash, core->shard_count)].shard;
  if (op->kind == OP_GET) op->work = shard;
  shard_prefetch(shard, op);
}

void core_enter(struct core *core, struct shard_op *op) {
  if (op->core == core->index) {
    op->done = core_own_op_done;
    core_prefetch(core, op);
    op_chain_add(&core->incoming, op);
    return;
  }
  core_leave(core, op);
}

/* ---- Into the core ------------------------------------------------------------------------- */

static void append(struct op_chain *to, struct shard_op *head, struct shard_op *tail) {
  if (to->tail)
    to->tail->next = head;
  else
    to->head = head;
  to->tail = tail;
}

static void deliver_returned(struct core *core, struct shard_op *head) {
  append(&core->local_done, head, op_fetch_chain(head));
}

/* Here a request's first line is waited for, if need be; the others, of who needs them, come
 * until it is started. */
static void deliver_requests(struct core *core, struct shard_op *head) {
  struct shard_op *op = head, *last;
  uint32_t n = 0;
  do {
    op_fetch_ahead(op);
    op->done = core_op_done;
    if (op->kind != OP_NOP) {
      mailbox_fetch(&op->io);
      mailbox_fetch(&op->buf);
      core_prefetch(core, op);
    }
    n++, last = op, op = op->next;
  } while (op);
  append(&core->incoming, head, last);
  core->stats.hops_in += n;
}

static void deliver(void *arg, uint32_t peer, void *batch) {
  struct core *core = arg;
  struct shard_op *head = (struct shard_op *)((uintptr_t)batch & ~RETURNED);
  (void)peer;
  core->stats.batches_in++;
  if ((uintptr_t)batch & RETURNED)
    deliver_returned(core, head);
  else
    deliver_requests(core, head);
}

void core_mark_busy(struct core *core, uint32_t shard) {
  struct hosted *h = &core->shards[shard];
  core->busy_count += !h->busy;
  h->busy = true;
}

static void count_op(struct core *core, const struct shard_op *op) {
  switch (op->kind) {
  case OP_PUT:
    core->stats.puts++;
    core->stats.write_bytes += op->bytes;
    break;
  case OP_DELETE:
    core->stats.deletes++;
    break;
  case OP_READ:
    core->stats.block_reads++;
    core->stats.read_bytes += op->bytes;
    break;
  case OP_WRITE:
    core->stats.block_writes++;
    core->stats.write_bytes += op->bytes;
    break;
  default:
    if (op->kind == OP_PREPARE) { /* a put in a batch */
      core->stats.puts++;
      core->stats.write_bytes += op->bytes;
    } else {
      core->stats.others++;
    }
  }
}

/* Everything that is not for a shard, and the shard ops that may change something. */
static void start_rare(struct core *core, struct shard_op *op) {
  if (op->kind == OP_CALL) {
    core_call_fn *fn;
    memcpy(&fn, &op->work, sizeof fn);
    fn(core, op);
  } else if (op->kind == OP_FLUSH) {
    flusher_request(&core->store->flusher, op);
  } else if (op->kind == OP_BATCH) {
    batcher_request(&core->store->batcher, op);
  } else if (op->kind == OP_SPLIT) {
    splitter_request(core->splitter, op);
  } else if (op->kind == OP_NOP) {
    op->result = 0;
    core_complete(core, op);
  } else {
    uint32_t number = shard_of_hash(op->hash, core->shard_count);
    core_mark_busy(core, number);
    shard_submit(core->shards[number].shard, op);
  }
}

static __attribute__((noinline)) void start_counted(struct core *core, struct shard_op *op) {
  count_op(core, op);
  if (op->kind == OP_STAT)
    shard_submit(core->shards[shard_of_hash(op->hash, core->shard_count)].shard, op);
  else
    start_rare(core, op);
}

/* What an op will touch was prefetched when it came in: the cache misses of a batch overlap. */
static bool start_incoming(struct core *core) {
  struct shard_op *op = core->incoming.head;
  uint64_t gets = 0, bytes = 0;
  if (!op) return false;
  core->incoming = (struct op_chain){0};
  uint32_t now = 0, turn = core->latency_turn;
  for (struct shard_op *next; op; op = next) {
    next = op->next; /* the op may be gone once it is started */
    op->tick = 0;
    if (unlikely(++turn % LATENCY_SAMPLE == 0)) {
      if (!now) now = (uint32_t)clock_now_ns(&core->store->clock) | 1;
      op->tick = now;
      op->done = core_op_done; /* which looks at the tick, and at: */
      op->core = (uint8_t)core->index;
    }
    if (likely(op->kind == OP_GET)) {
      gets++;
      bytes += op->bytes;
      shard_get(op->work, op);
    } else {
      start_counted(core, op);
    }
  }
  core->latency_turn = turn;
  core->stats.gets += gets;
  core->stats.read_bytes += bytes;
  return true;
}

/* ---- The step ------------------------------------------------------------------------------- */

static void self_finished(struct peer *peer, struct shard_op *op) {
  (void)op;
  peer->local->flush_requested = false;
}

/* A log that cannot advance without a root asks for a flush by itself. */
static void request_flush(struct core *core) {
  if (core->flush_requested || atomic_load_explicit(&core->quiet, memory_order_acquire)) return;
  core->flush_requested = true;
  core->flush_request = (struct shard_op){.kind = OP_FLUSH, .flags = OP_ROOT, .owner = &core->self};
  core_enter(core, &core->flush_request);
}

/* A shard asks another one: shard_config.ask. */
static void ask_shard(void *arg, struct shard_op *op, uint32_t shard) {
  struct core *core = arg;
  op->hash = hash_of_shard(shard, core->shard_count);
  op->core = (uint8_t)core->store->core_of_shard[shard];
  op->owner = &core->asker;
  core_enter(core, op);
}

static void asker_finished(struct peer *peer, struct shard_op *op) {
  (void)peer;
  shard_answered(op);
}

static bool tick_shards(struct core *core) {
  bool worked = false;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    struct hosted *h = &core->shards[core->mine[i]];
    if (!h->busy) continue;
    if (shard_tick(h->shard)) {
      worked = true;
    } else if (shard_idle(h->shard)) {
      h->busy = false;
      core->busy_count--;
    }
    if (manifest_wants_flush(shard_manifest(h->shard))) request_flush(core);
  }
  return worked;
}

/* Before the returns of this step leave: who sees a put completed must see the store dirty. */
static void publish_dirty(struct core *core) {
  bool dirty = false;
  for (uint32_t i = 0; i < core->mine_count && !dirty; i++)
    dirty = manifest_dirty(shard_manifest(core->shards[core->mine[i]].shard));
  atomic_store_explicit(&core->dirty, dirty, memory_order_release);
}

static bool finish_local(struct core *core) {
  struct shard_op *op = core->local_done.head;
  if (!op) return false;
  core->local_done = (struct op_chain){0};
  while (op) {
    struct shard_op *next = op->next;
    struct peer *peer = op->owner;
    peer->finished(peer, op);
    op = next;
  }
  return true;
}

bool core_step(struct core *core) {
  uint32_t mail = inbox_drain(&core->inbox, deliver, core);
  bool served = core->services.first && core_services_step(&core->services);
  bool started = start_incoming(core);
  /* First the device gets its work, then ours goes on while it is at it. */
  uint32_t completed = device_poll(core->device);
  bool was_busy = core->busy_count > 0;
  bool ticked = was_busy && tick_shards(core);
  if (unlikely(core->scrub.on)) ticked |= core_scrub_tick(core);
  if (was_busy) publish_dirty(core);
  if (core->touched_count) send_returns(core); /* others wait for it while ours goes on */
  bool finished = finish_local(core);
  if (core->services.first) core_services_end_step(&core->services);
  if (core->touched_count) send_returns(core);
  if (core->outgoing_touched_count) send_outgoing(core);
  core->stats.steps++;
  bool worked = mail || served || started || ticked || completed || finished ||
                core->incoming.head || core->touched_count || core->outgoing_touched_count;
  core->stats.idle_steps += !worked;
  return worked;
}

bool core_idle(const struct core *core) {
  for (uint32_t i = 0; i < core->mine_count; i++)
    if (!shard_idle(core->shards[core->mine[i]].shard)) return false;
  return !core->incoming.head && !core->local_done.head && !core->touched_count &&
         !core->outgoing_touched_count && !core->flush_requested && !core->scrub.layout.busy &&
         !(core->index == 0 && (core->store->batcher.active || core->store->catalog.jobs)) &&
         core->device->ops->in_flight(core->device) == 0;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

int core_init(struct core *core, struct store *store, uint32_t index) {
  core->store = store;
  core->index = index;
  core_services_init(&core->services);
  core->shard_count = store->shard_count;
  core->shards = calloc(store->shard_count, sizeof *core->shards);
  core->mine = calloc(store->shard_count, sizeof *core->mine);
  if (!core->shards || !core->mine) return -ENOMEM;
  for (uint32_t s = 0; s < store->shard_count; s++)
    if (store->core_of_shard[s] == index) core->mine[core->mine_count++] = s;
  core->self = (struct peer){.number = PORTS_MAX + index,
                             .local = core,
                             .inbox = &core->inbox,
                             .event_fd = -1,
                             .finished = self_finished};
  core->asker = core->self;
  core->asker.finished = asker_finished;
  core->splitter = calloc(1, sizeof *core->splitter);
  if (!core->splitter) return -ENOMEM;
  splitter_init(core->splitter, core);
  int r = inbox_init(&core->inbox, PEERS_MAX);
  for (uint32_t c = 0; !r && c < store->core_count; c++) /* its own number: store_post() */
    r = inbox_add_peer(&core->inbox, PORTS_MAX + c, c == index ? MAILBOX_SLOTS : CORE_SLOTS);
  return r;
}

void core_finish(struct core *core) {
  inbox_finish(&core->inbox);
  if (core->splitter) splitter_finish(core->splitter);
  free(core->splitter);
  free(core->shards);
  free(core->mine);
}

static int create_device(struct core *core) {
  struct store *store = core->store;
  struct layout *l = store->layout;
  struct device_options options = {.queue_depth = store->config.queue_depth,
                                   .file_count = l->backing_count + BLOCK_FILES_MAX,
                                   .clock = store->clock,
                                   .logger = store->logger};
  int r = store->engine->create(&core->device, &options);
  for (uint32_t b = 0; !r && b < l->backing_count; b++)
    r = core->device->ops->attach(core->device, (uint16_t)b, l->backings[b]);
  return r;
}

/* After recovery: meanwhile the thread that opens has touched the memory. Refused: works
 * unregistered; the statistics say so. */
static void register_ranges(struct core *core) {
  const struct range *ranges = core->store->ranges;
  for (uint32_t i = 0; i < STORE_RANGES_MAX; i++)
    if (ranges[i].base)
      core->device->ops->register_memory(core->device, i, ranges[i].base, ranges[i].bytes);
}

static int open_shard(struct core *core, uint32_t number) {
  struct store *store = core->store;
  struct layout *l = store->layout;
  struct shard_config config = {
      .manifest = {.region = &l->regions[number],
                   .device = core->device,
                   .shard = number,
                   .shard_count = store->shard_count,
                   .incarnation = l->root->incarnation + 1,
                   .clock = store->clock,
                   .logger = store->logger,
                   .frame_target_bytes = store->config.frame_target_bytes,
                   .checkpoint_group_bytes = store->config.checkpoint_group_bytes,
                   .read_only = store->config.read_only,
                   .damaged = store->config.damaged,
                   .root_lost = l->root_lost,
                   .survived = survivors_left(store->survivors, number),
                   .survivor = survivors_keep(store->survivors, number),
                   .damage = {damage_log_report, &store->damage}},
      .regions = l->regions,
      .ask = ask_shard,
      .ask_arg = core,
      .live_save_ns = store->config.live_save_ns,
      .works_max = store->config.works_max,
      .background = !store->config.no_background && !store->config.read_only};
  memcpy(config.manifest.uuid, l->uuid, sizeof l->uuid);
  memcpy(config.manifest.hash_key, l->hash_key, sizeof l->hash_key);
  char why[256] = "";
  struct hosted *h = &core->shards[number];
  int r = shard_open(&h->shard, &config, l->root, why, sizeof why);
  if (!r) h->index = shard_index(h->shard);
  if (r)
    log_line(&store->logger, 0, "%s: shard %u: %s%s%s",
             l->regions[number].segments[0].backing->name, number, why, *why ? ": " : "",
             strerror(-r));
  return r;
}

int core_start(struct core *core) {
  int r = create_device(core);
  for (uint32_t i = 0; !r && i < core->mine_count; i++) {
    r = open_shard(core, core->mine[i]);
    if (!r) core_mark_busy(core, core->mine[i]);
  }
  if (!r) register_ranges(core);
  struct scrub_request scrub = {core->store->config.scrub_bytes_per_second, true};
  if (!r && scrub.bytes_per_second) r = core_scrub_start(core, &scrub);
  return r;
}

void core_stop(struct core *core) {
  for (uint32_t i = 0; i < core->mine_count; i++)
    if (core->shards[core->mine[i]].shard) shard_close(core->shards[core->mine[i]].shard);
  free(core->scrub.layout.buf);
  if (core->device) core->device->ops->destroy(core->device);
  core->device = NULL;
  core_services_finish(&core->services);
}

/* Until something is due by itself: a scrub's next read, tokens of a volume. -1: nothing is. */
static int64_t wait_ns(const struct core *core) {
  uint64_t due = UINT64_MAX;
  for (uint32_t i = 0; i < core->mine_count; i++)
    due = min_u64(due, shard_wake_ns(core->shards[core->mine[i]].shard));
  int64_t scrub = core_scrub_wait_ns(core);
  if (due == UINT64_MAX) return scrub;
  uint64_t now = clock_now_ns(&core->store->clock), left = due > now ? due - now : 0;
  return scrub < 0 || (uint64_t)scrub > left ? (int64_t)left : scrub;
}

/* If what ended the sleep came soon, polling would have caught it: poll longer next time. */
static void sleep_until_something(struct core *core) {
  struct store *store = core->store;
  uint64_t poll_ns_max = (uint64_t)store->config.poll_us * 1000;
  if (!core_services_may_sleep(&core->services)) return;
  if (!inbox_prepare_sleep(&core->inbox)) return;
  uint64_t before = clock_now_ns(&store->clock);
  core->stats.sleeps++;
  core->device->ops->sleep(core->device, wait_ns(core));
  inbox_awake(&core->inbox);
  if (core->services.watches) core_watches_look(&core->services);
  core->stats.wakes_received += inbox_has_mail(&core->inbox);
  uint64_t slept = clock_now_ns(&store->clock) - before;
  if (slept <= poll_ns_max)
    core->poll_window_ns = min_u64(core->poll_window_ns * 2 + 1000, poll_ns_max);
  else
    core->poll_window_ns /= 2;
}

bool core_cpu_is_wanted(const struct clock *clock) {
  uint64_t before = clock_now_ns(clock);
  sched_yield();
  return clock_now_ns(clock) - before > YIELD_NS_MAX;
}

/* Polling is free as long as nobody else wants the CPU. If somebody does, the core sleeps at once
 * the next few times that it has nothing to do: the sooner he is done, whose requests we wait for.
 */
static bool may_poll(struct core *core, uint64_t idle_ns) {
  if (core->crowded || idle_ns >= core->poll_window_ns) return false;
  if (idle_ns < core->yield_ns) return true;
  core->yield_ns = idle_ns + YIELD_EVERY_NS;
  if (!core_cpu_is_wanted(&core->store->clock)) return true;
  core->crowded = CROWDED_SLEEPS;
  return false;
}

/* After a step that found nothing, where nothing but mail can come: looks for it a few times before
 * the next one, which looks at everything and at the clock. */
static void look_for_mail(const struct core *core) {
  __builtin_ia32_pause();
  if (core->busy_count || core->scrub.on || core->services.first ||
      core->device->ops->in_flight(core->device))
    return;
  for (uint32_t i = 0; i < MAIL_LOOKS && !inbox_has_mail(&core->inbox); i++) __builtin_ia32_pause();
}

static void run(struct core *core) {
  uint64_t idle_since = 0;
  core->poll_window_ns = (uint64_t)core->store->config.poll_us * 1000;
  while (!atomic_load_explicit(&core->stop, memory_order_acquire) || !core_idle(core)) {
    if (core_step(core)) {
      idle_since = 0;
      continue;
    }
    uint64_t now = clock_now_ns(&core->store->clock);
    if (!idle_since) {
      idle_since = now;
      core->yield_ns = YIELD_EVERY_NS;
    }
    if (may_poll(core, now - idle_since)) {
      look_for_mail(core);
      continue;
    }
    if (core->crowded) core->crowded--;
    if (!atomic_load_explicit(&core->stop, memory_order_acquire))
      sleep_until_something(core);
    else /* what is in flight may need this very CPU: the kernel's own threads, below us */
      core->device->ops->sleep(core->device, STOPPING_SLEEP_NS);
    idle_since = 0;
  }
}

void *core_thread(void *arg) {
  struct core *core = arg;
  int status = store_core_started(core->store, core);
  if (!status) {
    run(core);
    store_core_stopped(core->store);
  }
  core_stop(core);
  return NULL;
}
