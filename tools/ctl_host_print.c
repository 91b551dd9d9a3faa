/* ctl_host_print.c - replies of a running shard-host, for people: tables of lists, the socket of
 * what was attached, "key value" of everything else. One thread. */
#include "tools/ctl_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_disk(const struct js *disk) {
  printf("%s %s %s %s\n",
         js_number_of(js_member(disk, "active"))      ? "active"
         : js_number_of(js_member(disk, "connected")) ? "connected"
                                                      : "idle",
         js_text_of(js_member(disk, "name")), js_text_of(js_member(disk, "volume")),
         js_text_of(js_member(disk, "socket")));
}

static void print_volume(const struct js *v) {
  uint64_t size = 0, used = 0, shared = 0;
  js_count_of(js_member(v, "size_bytes"), &size);
  js_count_of(js_member(v, "used_bytes"), &used);
  js_count_of(js_member(v, "shared_bytes"), &shared);
  printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", js_text_of(js_member(v, "kind")), size,
         used, shared, js_text_of(js_member(v, "name")));
}

static void print_list(const struct js *list, const char *head, void (*print)(const struct js *)) {
  char place[32];
  puts(head);
  for (size_t i = 0; i < js_size(list); i++) {
    snprintf(place, sizeof(place), "%zu", i);
    print(js_find(list, place));
  }
}

static int print_member(void *arg, const char *key, const struct js *value) {
  const char *prefix = arg;
  char name[128];
  uint64_t count;
  snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "/" : "", key);
  if (js_is_object(value)) return js_each(value, print_member, name);
  if (strcmp(key, "ok") == 0 || strcmp(key, "id") == 0) return 0;
  if (js_is_text(value))
    printf("%s %s\n", name, js_text_of(value));
  else if (js_is_bool(value))
    printf("%s %s\n", name, js_number_of(value) != 0 ? "yes" : "no");
  else if (js_count_of(value, &count))
    printf("%s %" PRIu64 "\n", name, count);
  else
    printf("%s %g\n", name, js_number_of(value));
  return 0;
}

int ctl_host_print(const struct host_reply *reply) {
  char none[1] = "";
  const struct js *root = reply->root, *list;
  int r = 0;
  if (reply->json)
    r = js_write(root, stdout);
  else if ((list = js_member(root, "disks")))
    print_list(list, "STATE NAME VOLUME SOCKET", print_disk);
  else if ((list = js_member(root, "volumes")))
    print_list(list, "KIND SIZE_BYTES USED_BYTES SHARED_BYTES NAME", print_volume);
  else if (js_is_text(js_member(root, "socket")))
    puts(js_text_of(js_member(root, "socket")));
  else
    js_each(root, print_member, none);
  return r < 0 || fflush(stdout) || ferror(stdout) ? ctl_fail("output", -EIO) : CTL_OK;
}
