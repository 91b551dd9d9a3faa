/* ctl_host_upgrade.c - shard-ctl host upgrade: says how a successor takes the place of the daemon
 * that runs, with the command to start, as far as /proc shows how that one was started. Nothing is
 * changed: the successor itself asks for the upgrade. One thread. */
#include "tools/ctl_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As a word of a shell. */
static void put_word(FILE *out, const char *word) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "%+,-./:=@_";
  if (*word && word[strspn(word, plain)] == 0) {
    fputs(word, out);
    return;
  }
  fputc('\'', out);
  for (; *word; word++) {
    if (*word == '\'')
      fputs("'\\''", out);
    else
      fputc(*word, out);
  }
  fputc('\'', out);
}

/* It would be given twice. */
static bool is_takeover(const char *word) {
  return strcmp(word, "--takeover") == 0 || strncmp(word, "--takeover=", 11) == 0;
}

static int put_words(FILE *out, FILE *cmdline) {
  char *word = NULL;
  size_t room = 0;
  int count = 0;
  while (getdelim(&word, &room, 0, cmdline) > 0) {
    if (is_takeover(word)) continue;
    if (count++) fputc(' ', out);
    put_word(out, word);
  }
  free(word);
  return count;
}

/* The caller frees it; NULL: that process is not to be seen from here. */
static char *successor_command(uint64_t pid) {
  char path[64], where[4096], *text = NULL;
  size_t bytes;
  snprintf(path, sizeof(path), "/proc/%" PRIu64 "/cmdline", pid);
  FILE *cmdline = fopen(path, "re");
  if (!cmdline) return NULL;
  FILE *out = open_memstream(&text, &bytes);
  if (!out) {
    fclose(cmdline);
    return NULL;
  }
  snprintf(path, sizeof(path), "/proc/%" PRIu64 "/cwd", pid);
  ssize_t n = readlink(path, where, sizeof(where) - 1);
  if (n > 0) {
    where[n] = 0;
    fputs("cd ", out);
    put_word(out, where);
    fputs(" && ", out);
  }
  int count = put_words(out, cmdline);
  fputs(" --takeover", out);
  fclose(cmdline);
  if (fclose(out) == 0 && count > 0) return text;
  free(text);
  return NULL;
}

static int print_json(uint64_t pid, const char *command) {
  struct js *root = js_object();
  js_bool(root, "ok", true);
  js_count(root, "pid", pid);
  js_text(root, "command", command);
  int r = js_write(root, stdout);
  js_free(root);
  return r;
}

int ctl_host_explain_upgrade(const struct host_reply *reply) {
  uint64_t pid = 0;
  js_count_of(js_member(reply->root, "pid"), &pid);
  char *seen = successor_command(pid);
  const char *command = seen ? seen : "shard-host (the options of the one that runs) --takeover";
  int r = 0;
  if (reply->json)
    r = print_json(pid, command);
  else
    printf("The successor asks for the disks itself. Start it with the options of the one that "
           "runs (pid %" PRIu64 "),\nfrom the program that shall run from now on:\n\n  %s\n\n"
           "Guests see a pause, and their monitors keep their connections. The old one ends with "
           "status 0\nwhen the disks have been handed over; if that fails it goes on.\n",
           pid, command);
  free(seen);
  return r < 0 || fflush(stdout) || ferror(stdout) ? ctl_fail("output", -EIO) : CTL_OK;
}
