/* ctl_damage.c - one finding of the library as a line of text or a piece of JSON. */
#include "tools/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool has_id(const struct sr_damage *d) {
  return d->kind == SR_DAMAGE_BLOB || d->kind == SR_DAMAGE_OLD;
}

static void place(const struct sr_damage *d, const char *store, char *text, size_t bytes) {
  size_t used = 0;
  if (d->where)
    snprintf(text, bytes, "%s, byte %" PRIu64, d->where, d->offset_bytes);
  else
    snprintf(text, bytes, "%s", d->shard >= 0 ? "" : store);
  used = strlen(text);
  if (d->shard >= 0) snprintf(text + used, bytes - used, "%sshard %d", used ? ", " : "", d->shard);
}

void ctl_damage_print(const struct sr_damage *d, const char *store) {
  char where[400], id[33] = "";
  place(d, store, where, sizeof where);
  if (has_id(d)) sr_id_format(d->id, id);
  const char *colon = d->kind == SR_DAMAGE_OLD ? " " : ": ";
  printf("%s%s: %s%s%s%s; remedy: %s\n", d->kind == SR_DAMAGE_NOTE ? "note: " : "", where,
         *id ? "blob " : "", id, *id ? colon : "", d->what, d->remedy);
}

void ctl_damage_json(const struct sr_damage *d, const char *store, struct js *list) {
  char where[400], id[33];
  struct js *f = js_add(list, NULL, js_object());
  place(d, store, where, sizeof where);
  js_text(f, "where", where);
  js_text(f, "what", d->what);
  js_text(f, "remedy", d->remedy);
  if (d->where) js_text(f, "file", d->where);
  if (d->where) js_count(f, "offset_bytes", d->offset_bytes);
  if (d->bytes) js_count(f, "bytes", d->bytes);
  if (d->shard >= 0) js_count(f, "shard", (uint64_t)d->shard);
  if (d->kind == SR_DAMAGE_LOG && d->lost_changes != UINT64_MAX)
    js_count(f, "lost_changes", d->lost_changes);
  if (!has_id(d)) return;
  sr_id_format(d->id, id);
  js_text(f, "id", id);
}
