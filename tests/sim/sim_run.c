/* sim_run.c - see sim_run.h.
 *
 *   life: open, compare with the model -> requests, while cores take turns by chance -> the end:
 *         a power cut or a kill of the process at some moment, a clean close, or a store that is
 *         abandoned
 *
 * A core that has nothing to do goes to sleep as its thread would: then only a wake-up or a
 * completion of its device gives it a turn. If nobody can move and requests are outstanding, a
 * wake-up was lost. One thread. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STUCK_TURNS   400000u
#define STUCK_MOMENTS 30000u /* of a life: writes and flushes of the device */

struct world {
  struct random random;
  struct geometry geometry;
  struct sim_io io;
  struct model model;
  struct client client;
  struct vmodel *volumes; /* NULL: without */
  struct vclient vclient;
  struct sr_store *store;
  struct run_totals *totals;
  bool asleep[16];
  bool abandoned;  /* the life before: what no flush has covered may be there and get lost yet */
  bool remove_all; /* volumes, at the end of the life */
  struct open_how how;      /* cores: chosen at each open */
  uint32_t calm_requests;   /* one in so many waits: a checkpoint, a stream, ... */
  uint32_t volume_percent;  /* of requests: to volumes */
  uint32_t call_percent;    /* of those: calls that change volumes */
  struct sim_faults faults; /* while requests are made; while the store opens: try_to_open() */
  struct random opens;      /* which opens have some */
  /* Power cuts. */
  uint32_t sample_percent, samples, enumerate; /* states to look at, of so many moments */
  uint64_t moments;                            /* of this life, so far */
  uint64_t moments_left;                       /* until the power fails; 0: it does not */
  /* Kills: the life ends as with a power cut, but it is the process that dies. */
  uint32_t kill_percent;           /* of crashes; 0: memory is not looked at */
  uint32_t look_percent;           /* of moments: states that a kill would leave */
  bool kill, killed;               /* this life's crash is one; has happened */
  uint64_t turns_left;             /* until it; 0: it waits for a moment */
  bool opened;                     /* this life's store */
  struct sim_memory memory, saved; /* the store's own; as it was when the process was killed */
  uint64_t device_moments_left;    /* until the device disappears, with the power on */
};

/* ---- Moments ------------------------------------------------------------------------------------
 */

/* In the middle of a change of several shards the rule is that of power cuts; before the store is
 * open that of the process before. */
static void expect_kill(struct world *w) {
  if (!w->opened) return;
  w->model.killed = w->how.memory && sim_memory_counts(&w->memory);
  if (w->volumes) w->volumes->killed = w->model.killed ? w->volumes->clock : 0;
}

static void kill_process(struct world *w) {
  expect_kill(w);
  sim_memory_copy(&w->saved, &w->memory);
  sim_kill(&w->io, &w->random, w->totals->checker.whole_blocks);
  sim_fail(&w->io);
  w->killed = w->client.tolerance.dead = true;
  sim_trace("killed%s\n", w->model.killed ? "" : ", and nothing survives");
  w->totals->kills++;
  w->totals->kills_surviving += w->model.killed;
}

static void cut_power(struct world *w) {
  checker_choose(&w->totals->checker, &w->io);
  sim_fail(&w->io);
  w->client.tolerance.dead = true;
  w->model.killed = false;
  if (w->volumes) w->volumes->killed = 0;
  sim_trace("power cut\n");
  w->totals->cuts++;
}

static void expect(struct world *w, bool killed, uint64_t volumes_killed) {
  w->model.killed = killed;
  if (w->volumes) w->volumes->killed = volumes_killed;
}

/* What a process before has left is looked at more closely: there are few moments until a root has
 * it. */
static void look_around(struct world *w) {
  struct checker *c = &w->totals->checker;
  uint64_t volumes_killed = w->volumes ? w->volumes->killed : 0;
  bool killed = w->model.killed;
  uint32_t percent = killed ? 90 : w->sample_percent;
  expect(w, false, 0);
  if (w->enumerate)
    checker_enumerate(c, &w->io, &w->model, w->enumerate);
  else if (random_percent(&w->random, percent))
    checker_sample(c, &w->io, &w->model, w->samples);
  expect(w, killed, volumes_killed);
  percent = killed ? 50 : w->opened && sim_log_busy(w->store) ? 80 : w->look_percent;
  if (!w->how.memory || !random_percent(&w->random, percent)) return;
  expect_kill(w);
  checker_kills(c, &w->io, &w->model, &w->memory, 1);
  expect(w, killed, volumes_killed);
}

static void on_moment(struct sim_io *io, void *arg) {
  struct world *w = arg;
  if (++w->moments > STUCK_MOMENTS) sim_violation("no end: the devices find no rest");
  look_around(w);
  if (w->device_moments_left && --w->device_moments_left == 0) io->faults.gone = true;
  if (w->moments_left && --w->moments_left == 0) {
    if (w->kill)
      kill_process(w);
    else
      cut_power(w);
  }
}

static void watch(struct world *w, bool on) {
  w->io.moment = on ? on_moment : NULL;
  w->io.moment_arg = w;
}

/* ---- Turns ----------------------------------------------------------------------------------- */

static void wake_all(struct world *w) {
  struct store *s = store_of(w->store);
  for (uint32_t i = 0; i < s->core_count; i++) {
    if (w->asleep[i]) inbox_awake(&s->cores[i].inbox);
    w->asleep[i] = false;
  }
}

/* When a core that sleeps has something to do: its device, or a limit that lets somebody pass. */
static uint64_t core_due_ns(const struct core *core) {
  uint64_t due = sim_device_due_ns(core->device);
  for (uint32_t i = 0; i < core->mine_count; i++)
    due = min_u64(due, shard_wake_ns(core->shards[core->mine[i]].shard));
  return due;
}

/* False: it sleeps, and nothing wakes it. */
static bool turn(struct world *w, uint32_t i) {
  struct core *core = &store_of(w->store)->cores[i];
  if (w->asleep[i]) {
    if (!sim_device_take_wake(core->device) && core_due_ns(core) > w->io.now_ns) return false;
    inbox_awake(&core->inbox);
    w->asleep[i] = false;
  }
  w->totals->steps++;
  if (w->turns_left && --w->turns_left == 0 && !w->client.tolerance.dead) kill_process(w);
  if (!core_step(core) && random_percent(&w->random, 50))
    w->asleep[i] = inbox_prepare_sleep(&core->inbox);
  return true;
}

/* All sleep: time passes until a device has something. False: none ever will. */
static bool pass_time(struct world *w) {
  struct store *s = store_of(w->store);
  uint64_t due = UINT64_MAX;
  for (uint32_t i = 0; i < s->core_count; i++) due = min_u64(due, core_due_ns(&s->cores[i]));
  if (due == UINT64_MAX) return false;
  w->io.now_ns = max_u64(w->io.now_ns, due);
  return true;
}

static bool any_turn(struct world *w) {
  uint32_t n = store_of(w->store)->core_count, first = (uint32_t)random_up_to(&w->random, n);
  for (uint32_t k = 0; k < n; k++)
    if (turn(w, (first + k) % n)) return true;
  return pass_time(w);
}

static void stuck(const struct world *w, const char *why) {
  for (uint32_t i = 0; i < w->client.slot_count; i++) {
    const struct slot *s = &w->client.slots[i];
    if (s->busy)
      sim_violation("%s: %u requests are never answered; one is of kind %d, blob %u (shard %u)",
                    why, w->client.in_flight, (int)s->kind, s->id,
                    sr_shard_of(w->store, sim_id(s->id)));
  }
  for (uint32_t i = 0; w->volumes && i < w->vclient.slot_count; i++) {
    const struct vslot *s = &w->vclient.slots[i];
    if (s->busy)
      sim_violation("%s: %u requests to volumes are never answered; one is a %s of [%llu, +%llu)",
                    why, w->vclient.in_flight, vkind_name(s->kind), (unsigned long long)s->r.offset,
                    (unsigned long long)s->r.bytes);
  }
}

static uint32_t in_flight(const struct world *w) {
  return w->client.in_flight + (w->volumes ? w->vclient.in_flight : 0);
}

static uint32_t reap(struct world *w) {
  return client_reap(&w->client) + (w->volumes ? vclient_reap(&w->vclient) : 0);
}

static void submit_to_volumes(struct world *w) {
  if (random_percent(&w->random, w->call_percent)) {
    wake_all(w);
    vclient_call(&w->vclient);
  } else {
    vclient_submit(&w->vclient);
  }
}

static void submit(struct world *w) {
  client_submit(&w->client);
  if (random_up_to(&w->random, w->calm_requests) == 0 && !w->enumerate) {
    wake_all(w);
    client_block(&w->client);
  }
}

/* Until so many requests have finished, or the power is gone; then until none is in flight. */
static void work(struct world *w, uint64_t requests) {
  struct client *c = &w->client;
  uint64_t end = requests, submitted = 0, turns = 0;
  uint32_t eager = (uint32_t)random_in(&w->random, 1, 60);
  while (in_flight(w) || (submitted < end && !c->tolerance.dead)) {
    if (submitted < end && !c->tolerance.dead && random_percent(&w->random, eager)) {
      uint64_t before = c->submitted;
      if (w->volumes && random_percent(&w->random, w->volume_percent)) {
        submit_to_volumes(w);
        submitted++;
      } else {
        submit(w);
      }
      submitted += c->submitted - before;
    }
    bool moved = any_turn(w);
    uint32_t reaped = moved && random_percent(&w->random, 60) ? 0 : reap(w);
    if (reaped || !in_flight(w)) turns = 0;
    if (!moved && !reaped && in_flight(w)) stuck(w, "everybody sleeps");
    if (++turns > STUCK_TURNS) stuck(w, "no end");
  }
}

/* ---- Lives ----------------------------------------------------------------------------------- */

static void collapse(struct world *w, const uint64_t found[]) {
  for (uint32_t i = 0; i < w->model.id_count; i++) {
    uint32_t oldest = model_oldest(&w->model, i);
    model_collapse(&w->model, i, oldest + (uint32_t)__builtin_ctzll(found[i]));
  }
  w->model.killed = false;
  model_forget_batches(&w->model);
}

static void set_faults(struct world *w, const struct sim_faults *faults) {
  uint64_t injected = w->io.faults.injected;
  bool gone = w->io.faults.gone;
  w->io.faults = *faults;
  w->io.faults.gone = gone;
  w->io.faults.injected = injected;
}

/* An open that writes and flushes of which fail leaves all as it was for the next one, but for what
 * a killed process has left in memory: that may be of no use any more. */
static int try_to_open(struct world *w) {
  const struct sim_faults faults = {.write_error = UINT32_MAX >> 5, .flush_error = UINT32_MAX >> 3};
  bool fails = w->client.tolerance.io_errors && random_percent(&w->opens, 30);
  for (int i = 0; fails && i < 3; i++) {
    set_faults(w, &faults);
    int r = sim_open(&w->store, &w->io, &w->how);
    set_faults(w, &(struct sim_faults){0});
    if (r != -EIO || w->client.tolerance.dead) return r;
    if (w->model.killed && w->how.memory && !sim_memory_counts(&w->memory)) expect(w, false, 0);
  }
  return sim_open(&w->store, &w->io, &w->how);
}

/* False: the power failed meanwhile. */
static bool open_store(struct world *w) {
  uint64_t found[MODEL_IDS_MAX];
  w->how.cores = (uint32_t)random_in(&w->random, 1, w->geometry.shards + 1);
  memset(w->asleep, 0, sizeof w->asleep);
  int r = try_to_open(w);
  if (w->client.tolerance.dead) {
    if (r == 0) sr_store_abandon(w->store);
    return false;
  }
  /* -EMEDIUMTYPE: writes that went astray have hit both copies of an identity. */
  if ((r == -EBADMSG || r == -EMEDIUMTYPE) && w->client.tolerance.damage) return false;
  if (r) sim_violation("the store does not open: %s", strerror(-r));
  watch(w, false);
  sim_compare(w->store, &w->model, w->client.tolerance.damage, found);
  collapse(w, found);
  if (w->volumes)
    sim_compare_volumes(w->store, w->volumes, w->abandoned ? FOUND_VISIBLE : FOUND_SURVIVING);
  if (w->volumes) w->volumes->killed = 0;
  w->opened = true;
  watch(w, true);
  client_open(&w->client, w->store);
  if (w->volumes) vclient_open(&w->vclient, w->store);
  return true;
}

static void start_again(struct world *w) {
  w->io.faults.gone = false;
  w->io.delay_ns_max = random_in(&w->random, 100, 50000);
  w->client.tolerance.dead = false;
  w->abandoned = w->killed;
  w->moments_left = w->turns_left = 0;
  if (w->killed) {
    sim_memory_copy(&w->memory, &w->saved);
  } else {
    sim_power_on(&w->io, &w->totals->checker.image);
    w->memory.there = false;
  }
}

/* All that has completed must be there when the store opens again. */
static void close_cleanly(struct world *w) {
  uint32_t visible[MODEL_IDS_MAX];
  for (uint32_t i = 0; i < w->model.id_count; i++) visible[i] = w->model.rows[i].visible;
  uint64_t at = w->volumes ? w->volumes->clock : 0;
  int r = sr_store_close(w->store);
  if (w->client.tolerance.dead) return;
  if (r && !w->client.tolerance.io_errors) sim_violation("close: %s", strerror(-r));
  if (r) return;
  model_flushed(&w->model, visible);
  if (w->volumes) vmodel_cover(w->volumes, NULL, at);
}

static void live(struct world *w, uint64_t requests, bool cut) {
  w->moments_left = cut ? random_in(&w->random, 1, 3 * requests) : 0;
  w->kill = w->kill_percent && cut && random_percent(&w->random, w->kill_percent);
  if (w->kill && random_percent(&w->random, 40)) {
    w->turns_left = random_in(&w->random, 1, 20 * requests);
    w->moments_left = 0;
  }
  /* What a killed process has left is taken over by the next one, or by the one after it. */
  if (cut && w->model.killed && random_percent(&w->random, 60)) {
    w->moments_left = random_in(&w->random, 1, 12);
    w->turns_left = 0;
  }
  /* What is there and not looked at gets old. */
  w->how.memory = w->kill_percent && random_percent(&w->random, 75) ? &w->memory : NULL;
  if (!w->how.memory) expect(w, false, 0);
  w->opened = w->killed = false;
  w->totals->lives++;
  w->moments = w->io.polls = 0;
  sim_trace("life\n");
  watch(w, true);
  if (open_store(w)) {
    set_faults(w, &w->faults);
    work(w, requests);
    wake_all(w);
    set_faults(w, &(struct sim_faults){0});
    if (w->remove_all) vclient_remove_all(&w->vclient);
    if (!w->io.faults.gone) sim_account(w->store);
    if (w->volumes) vclient_close(&w->vclient);
    client_close(&w->client);
    w->abandoned = !w->client.tolerance.dead && random_percent(&w->random, w->volumes ? 40 : 20);
    if (w->client.tolerance.damage && !sim_log_told(w->store)) w->abandoned = false;
    if (w->client.tolerance.dead || w->abandoned)
      sr_store_abandon(w->store);
    else
      close_cleanly(w);
  }
  if (w->client.tolerance.dead) start_again(w);
  w->turns_left = 0;
  w->device_moments_left = 0;
  w->io.faults.gone = false;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void world_create(struct world *w, uint64_t seed, struct run_totals *t, uint32_t ids,
                         uint32_t slots) {
  uint64_t blocks[SIM_DISKS_MAX];
  geometry_disks(&w->geometry, blocks);
  sim_io_create(&w->io, random_next(&w->random), w->geometry.disk_count, blocks);
  sim_format(&w->io, &w->geometry);
  w->io.delay_ns_max = random_in(&w->random, 100, 50000);
  w->opens.state = ~seed;
  sim_memory_create(&w->memory, w->geometry.shards);
  sim_memory_create(&w->saved, w->geometry.shards);
  w->totals = t;
  t->checker.whole_blocks = false;
  model_create(&w->model, seed, ids);
  client_create(&w->client, random_next(&w->random), &w->model, slots);
  checker_begin(&t->checker, &w->io, w->geometry.shards, random_next(&w->random));
}

static void world_destroy(struct world *w) {
  w->totals->runs++;
  w->totals->requests += w->client.finished;
  if (w->volumes) {
    w->totals->requests += w->vclient.finished;
    w->totals->calls += w->vclient.calls;
    w->totals->refused += w->vclient.refused;
    vclient_destroy(&w->vclient);
    vmodel_destroy(w->volumes);
    free(w->volumes);
  }
  w->totals->refused += w->client.refused;
  w->totals->events += w->io.events;
  w->totals->vectored += w->io.vectored;
  w->totals->faults += w->io.faults.injected;
  checker_end(&w->totals->checker);
  client_destroy(&w->client);
  model_destroy(&w->model);
  sim_io_destroy(&w->io);
  sim_memory_destroy(&w->memory);
  sim_memory_destroy(&w->saved);
  free(w);
}

static struct geometry random_geometry(struct random *r, uint32_t shards_max) {
  struct geometry g = {.shape = (enum shape)random_up_to(r, SHAPE_COUNT),
                       .shards = (uint32_t)random_in(r, 1, shards_max),
                       .log_blocks = random_in(r, 256, 300),
                       .zeroed = random_percent(r, 60)};
  /* Beside the log: two directories and the reserve for checkpoints, 96 blocks; little more, so
   * that blocks are soon used again, or plenty. */
  g.region_blocks = g.log_blocks + 96 + random_in(r, 20, random_percent(r, 60) ? 150 : 700);
  return g;
}

static struct habits random_habits(struct random *r) {
  struct habits h = {.weight = {40, 10, 15, 5, (uint32_t)random_in(r, 1, 8), 6},
                     .durable_percent = (uint32_t)random_up_to(r, 30),
                     .absent_percent = 10,
                     .no_checksum_percent = 5,
                     .bytes_max = random_in(r, 5000, 120000),
                     .large_percent = (uint32_t)random_up_to(r, 40)};
  return h;
}

static struct world *random_world(uint64_t seed, struct run_totals *t) {
  struct world *w = calloc(1, sizeof *w);
  check(w != NULL);
  w->random.state = seed;
  struct random *r = &w->random;
  w->geometry = random_geometry(r, 4);
  w->how = (struct open_how){.works_max = (uint32_t)random_in(r, 2, 12),
                             .checkpoint_group_bytes = 1u << random_in(r, 6, 16),
                             .background = random_percent(r, 80)};
  w->sample_percent = (uint32_t)random_in(r, 1, 20);
  w->samples = (uint32_t)random_in(r, 2, 12);
  world_create(w, seed, t, (uint32_t)random_in(r, 2, 40), (uint32_t)random_in(r, 1, SLOTS_MAX));
  w->calm_requests = (uint32_t)random_in(r, 10, 300);
  w->io.slow_reads = random_percent(r, 50) ? (uint32_t)random_in(r, 1, 40) : 0;
  w->client.habits = random_habits(r);
  return w;
}

/* Most worlds know them; in some of those most crashes are kills. */
static void choose_kills(struct world *w) {
  if (random_percent(&w->random, 30)) return;
  w->kill_percent = random_percent(&w->random, 50) ? 85 : 40;
  w->look_percent = (uint32_t)min_u64(w->sample_percent, 6);
  /* Small frames: several are on their way at a time. */
  if (random_percent(&w->random, 60))
    w->how.frame_target_bytes = 1u << random_in(&w->random, 6, 14);
  if (w->kill_percent > 50) w->sample_percent = 1;
}

void run_random(uint64_t seed, struct run_totals *t) {
  struct world *w = random_world(seed, t);
  uint32_t lives = (uint32_t)random_in(&w->random, 2, 5);
  choose_kills(w);
  if (w->kill_percent > 50) lives *= 2;
  for (uint32_t i = 0; i < lives; i++)
    live(w, random_in(&w->random, 10, 300), random_percent(&w->random, 60));
  world_destroy(w);
}

void run_small(uint64_t seed, struct run_totals *t) {
  struct world *w = calloc(1, sizeof *w);
  check(w != NULL);
  w->random.state = seed;
  struct random *r = &w->random;
  w->geometry = random_geometry(r, 3);
  w->geometry.zeroed = true;
  w->how.works_max = 4;
  w->calm_requests = 1;
  world_create(w, seed, t, (uint32_t)random_in(r, 1, 6), (uint32_t)random_in(r, 1, 4));
  w->client.habits = (struct habits){.weight = {40, 15, 0, 0, 20, 15},
                                     .durable_percent = (uint32_t)random_up_to(r, 60),
                                     .bytes_max = 5000,
                                     .large_percent = 5};
  live(w, random_in(r, 1, 12), random_percent(r, 50));
  w->enumerate = 2048;
  live(w, random_in(r, 1, 4), false);
  world_destroy(w);
}

/* A chance of `percent` of being there at all; then up to one in 8. */
static uint32_t some(struct random *r, uint32_t percent) {
  return random_percent(r, percent) ? UINT32_MAX >> random_in(r, 3, 10) : 0;
}

void run_faults(uint64_t seed, struct run_totals *t) {
  struct world *w = random_world(seed, t);
  struct random *r = &w->random;
  w->client.tolerance.io_errors = true;
  w->sample_percent = (uint32_t)random_up_to(r, 4);
  w->samples = 3;
  if (random_percent(r, 50)) w->client.habits.weight[K_BATCH] = 30;
  if (seed % 4 == 0) choose_kills(w);
  for (uint32_t i = 0; i < 4; i++) {
    w->faults = (struct sim_faults){.read_error = some(r, 30),
                                    .write_error = some(r, 40) >> random_up_to(r, 5),
                                    .flush_error = some(r, 40),
                                    .no_space = some(r, 20)};
    if (random_percent(r, 15)) w->device_moments_left = random_in(r, 20, 300);
    live(w, random_in(r, 10, 200), random_percent(r, 40));
  }
  world_destroy(w);
}

void run_damage(uint64_t seed, struct run_totals *t) {
  struct world *w = random_world(seed, t);
  struct random *r = &w->random;
  w->sample_percent = 0;
  w->client.tolerance.damage = true;
  w->client.habits.no_checksum_percent = 0;
  for (uint32_t i = 0; i < 3; i++) {
    w->faults = (struct sim_faults){.bit_flip = some(r, 50),
                                    .zero_block = some(r, 20),
                                    .misdirect = some(r, 20),
                                    .lose_write = some(r, 30)};
    live(w, random_in(r, 10, 200), false);
  }
  world_destroy(w);
}

/* ---- Volumes ------------------------------------------------------------------------------------
 */

static void add_volumes(struct world *w, uint64_t seed) {
  struct random *r = &w->random;
  w->volumes = malloc(sizeof *w->volumes);
  check(w->volumes != NULL);
  vmodel_create(w->volumes, seed, r);
  w->volumes->torn_blocks = random_percent(r, 40);
  w->model.volumes = w->volumes;
  w->totals->checker.whole_blocks = !w->volumes->torn_blocks;
  vclient_create(&w->vclient, random_next(r), w->volumes, &w->client.tolerance,
                 (uint32_t)random_in(r, 1, VOPS_MAX));
  w->vclient.shards = w->geometry.shards;
  bool tree = random_percent(r, 50);
  uint32_t volumes_max = (uint32_t)random_in(r, tree ? 4 : 2, tree ? 8 : 11);
  w->call_percent = (uint32_t)random_in(r, tree ? 25 : 5, tree ? 70 : 25);
  w->vclient.habits = (struct vhabits){
      .weight = {40, 6, 8, 20, (uint32_t)random_in(r, 1, 8), (uint32_t)random_in(r, 0, 4)},
      .durable_percent = (uint32_t)random_up_to(r, 30),
      .vectored_percent = (uint32_t)random_up_to(r, 50),
      .wide_percent = (uint32_t)random_up_to(r, 60),
      .volumes_max = volumes_max,
      .names = volumes_max + (uint32_t)random_in(r, 1, 3),
      .striped_percent = random_percent(r, 60) ? 30 : 0,
      .summed_percent = random_percent(r, 60) ? 60 : 0,
      .limits = !tree && random_percent(r, 40),
      .tree = tree};
}

void run_volumes(uint64_t seed, struct run_totals *t) {
  struct world *w = calloc(1, sizeof *w);
  check(w != NULL);
  w->random.state = seed;
  struct random *r = &w->random;
  w->geometry = random_geometry(r, 4);
  w->geometry.region_blocks += random_in(r, 100, random_percent(r, 70) ? 2500 : 500);
  w->how = (struct open_how){.works_max = (uint32_t)random_in(r, 2, 12),
                             .checkpoint_group_bytes = 1u << random_in(r, 6, 16),
                             .live_save_ns = random_in(r, 10000, 1000000),
                             .background = random_percent(r, 80)};
  w->sample_percent = (uint32_t)random_in(r, 1, 6);
  w->samples = (uint32_t)random_in(r, 1, 4);
  world_create(w, seed, t, (uint32_t)random_in(r, 2, 8), (uint32_t)random_in(r, 1, 4));
  w->calm_requests = (uint32_t)random_in(r, 10, 300);
  w->client.habits = random_habits(r);
  w->client.habits.bytes_max = 20000;
  w->volume_percent = (uint32_t)random_in(r, 70, 100);
  add_volumes(w, seed);
  choose_kills(w);
  bool faults = random_percent(r, 20);
  uint32_t lives = (uint32_t)random_in(r, 2, 5);
  for (uint32_t i = 0; i < lives; i++) {
    if (faults) w->faults.read_error = some(r, 60);
    w->client.tolerance.io_errors = w->faults.read_error > 0;
    live(w, random_in(r, 20, 500), random_percent(r, 60));
  }
  w->faults.read_error = 0;
  w->client.tolerance.io_errors = false;
  w->remove_all = true;
  live(w, random_in(r, 1, 50), false);
  world_destroy(w);
}
