/* sleep_wake.pml - how the sender of a mailbox and its sleeping receiver find each other:
 * runtime/mailbox.c as a Promela model, for spin.
 *
 * SENDERS senders hand BATCHES numbered batches each to one receiver through a ring of SLOTS
 * slots each. The receiver drains, takes away the bit of whom it likes, announces sleep, looks again,
 * and blocks on an eventfd.
 *
 * What is shown, over all interleavings of sequentially consistent steps:
 *   - Nothing is lost, doubled or reordered: the assertion in take().
 *   - No wake-up is lost: the receiver blocks only where it sleeps, which has an exit for "all has
 *     arrived" but is no legal end state. Mail that nobody wakes for is an invalid end state.
 *   - It ends: all arrives under weak fairness (the claim `drains`).
 *
 * A step here is one atomic access there. The C code makes all of them seq_cst for this very proof:
 * `ready`, `sleeping`, and the number that says that a slot of a ring is full.
 *
 * With one of these macros a mistake is planted, and spin must find it:
 *   BUG_FLAG_AFTER_LOOK    the receiver looks first and announces then
 *   BUG_NO_SECOND_LOOK     it announces and blocks without a look
 *   BUG_CLEAR_AFTER_LOOK   it takes a ready bit away after a look at the ring, not before
 *   BUG_NO_LOOK_AT_RING    it takes a ready bit away without a look at the ring
 *   BUG_NO_FENCE           its announcement waits in the store buffer while it looks
 *   BUG_BATCH_BUFFERED     the sender's batch waits in the store buffer while it looks at bit and flag
 *   BUG_FLAG_BEFORE_BIT    the sender looks at the flag before it sets its bit
 *   BUG_BIT_BEFORE_BATCH   the sender sets its bit before the batch is in the ring
 *   BUG_CLEAR_EVENT        the receiver, once it has announced sleep, empties the eventfd to be
 *                          rid of old wakes, after its second look
 */

#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef BATCHES
#define BATCHES 3
#endif
#ifndef SLOTS
#define SLOTS 2
#endif

chan ring0 = [SLOTS] of { byte };
chan ring1 = [SLOTS] of { byte };
bool ready[SENDERS];
bool sleeping;
byte event; /* the eventfd's counter */

byte arrived[SENDERS];
byte others = 1; /* other reasons to get up: a device completion, a timeout */

#define all_arrived (arrived[0] == BATCHES && arrived[1] == BATCHES)

#ifdef BUG_NO_FENCE
/* The receiver's store buffer: what it has written and others do not see yet. */
bool buffered;
active proctype StoreBuffer() {
end_buffer:
  do
  :: atomic { buffered -> buffered = false; sleeping = true }
  od
}
#endif

/* ---- The sender ---- */

inline put(ring, value) {
  ring ! value /* blocks while full: the sender that gets -EAGAIN comes back later */
}

inline wake_if_sleeping() {
  if
  :: sleeping -> /* the load; then the exchange, which one sender wins */
    atomic { won = sleeping; sleeping = false };
    if
    :: won -> event++
    :: else
    fi;
    won = false
  :: else
  fi
}

/* A bit that is there stays: the receiver keeps it as long as mail comes. */
inline set_bit(me) {
  if
  :: ready[me]
  :: else -> ready[me] = true
  fi
}

proctype Sender(byte me; chan ring) {
  byte sent;
  bool won;
  do
  :: sent < BATCHES ->
#if defined(BUG_FLAG_BEFORE_BIT)
    put(ring, sent);
    wake_if_sleeping();
    set_bit(me);
#elif defined(BUG_BIT_BEFORE_BATCH)
    set_bit(me);
    put(ring, sent);
    wake_if_sleeping();
#elif defined(BUG_BATCH_BUFFERED)
    if
    :: ready[me] -> wake_if_sleeping(); put(ring, sent)
    :: else -> put(ring, sent); ready[me] = true; wake_if_sleeping()
    fi;
#else
    put(ring, sent);
    set_bit(me);
    wake_if_sleeping();
#endif
    sent++
  :: else -> break
  od
}

/* ---- The receiver ---- */

inline take(me, ring) {
  taken = 0;
  do
  :: atomic { taken < SLOTS && nempty(ring) ->
    ring ? value; /* only this process takes */
    assert(value == arrived[me]);
    arrived[me]++;
    taken++;
    found = true }
  :: taken == SLOTS -> break /* the bound; the bit stays */
  :: taken < SLOTS && empty(ring) -> break
  od
}

/* One ready word for each sender: as peers 0 and 64. Peers of one word have fewer orders. */
inline drain_peer(me, ring) {
  if
  :: ready[me] ->
    take(me, ring);
    if
    :: forget(me, ring) /* the C code: of whom it has not heard for a while */
    :: skip
    fi
  :: else
  fi
}

inline forget(me, ring) {
#if defined(BUG_CLEAR_AFTER_LOOK)
  if
  :: nempty(ring)
  :: empty(ring) -> ready[me] = false
  fi
#elif defined(BUG_NO_LOOK_AT_RING)
  ready[me] = false
#else
  ready[me] = false;
  if
  :: nempty(ring) -> ready[me] = true
  :: empty(ring)
  fi
#endif
}

inline look(me, ring) {
  if
  :: ready[me] ->
    if
    :: nempty(ring) -> found = true
    :: empty(ring)
    fi
  :: else
  fi
}

inline announce() {
#ifdef BUG_NO_FENCE
  buffered = true
#else
  sleeping = true
#endif
}

inline withdraw() {
#ifdef BUG_NO_FENCE
  atomic { buffered = false; sleeping = false }
#else
  sleeping = false
#endif
}

active proctype Receiver() {
  byte value, taken;
  bool found;

drain:
  found = false;
  drain_peer(0, ring0);
  drain_peer(1, ring1);
  if
  :: found -> goto drain
  :: else
  fi;

#if defined(BUG_FLAG_AFTER_LOOK)
  look(0, ring0);
  look(1, ring1);
  if
  :: found -> goto drain
  :: else
  fi;
  announce();
#elif defined(BUG_NO_SECOND_LOOK)
  announce();
#else
  announce();
  look(0, ring0);
  look(1, ring1);
  if
  :: found -> withdraw(); goto drain
  :: else
  fi;
#endif

#ifdef BUG_CLEAR_EVENT
  event = 0;
#endif
  if
  :: atomic { event > 0 -> event = 0 } /* the read of the eventfd */
  :: atomic { others > 0 -> others-- }
  :: all_arrived -> goto done
  fi;
  withdraw();
  goto drain;

done:
  assert(empty(ring0) && empty(ring1))
}

init {
  atomic {
    run Sender(0, ring0);
    run Sender(1, ring1)
  }
}

ltl drains { <> (all_arrived) }
