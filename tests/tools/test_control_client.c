/* test_control_client.c - the client of shard-host's control socket against daemons that stop in
 * the middle of an answer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/control/client.h"

struct rig {
  char dir[64];
  struct sockaddr_un at;
  int listener, daemon;
  struct control_client *client;
};

static int set_up(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  assert_non_null(r);
  snprintf(r->dir, sizeof r->dir, "/tmp/control-XXXXXX"); /* paths of sockets are short */
  assert_non_null(mkdtemp(r->dir));
  r->at.sun_family = AF_UNIX;
  snprintf(r->at.sun_path, sizeof r->at.sun_path, "%s/control", r->dir);
  r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(r->listener, (struct sockaddr *)&r->at, sizeof r->at), 0);
  assert_int_equal(listen(r->listener, 1), 0);
  assert_int_equal(control_open(&r->client, r->at.sun_path, 50), 0);
  r->daemon = accept(r->listener, NULL, NULL);
  assert_true(r->daemon >= 0);
  *state = r;
  return 0;
}

static int tear_down(void **state) {
  struct rig *r = *state;
  control_close(r->client);
  if (r->daemon >= 0) close(r->daemon);
  close(r->listener);
  unlink(r->at.sun_path);
  rmdir(r->dir);
  free(r);
  return 0;
}

/* What it will find, since the daemon is faster than it. */
static void answer(struct rig *r, const char *text) {
  assert_int_equal(send(r->daemon, text, strlen(text), 0), strlen(text));
}

static int ask(struct rig *r, struct js **reply) {
  return control_ask(r->client, control_request("list"), reply, NULL, 0);
}

static void takes_a_whole_answer(void **state) {
  struct rig *r = *state;
  struct js *reply;
  answer(r, "{\"ok\":true,\"n\":1}\n{\"ok\":false,\"error\":\"EBUSY\"}\n");
  assert_int_equal(ask(r, &reply), 0);
  assert_int_equal(js_number_of(js_member(reply, "n")), 1);
  js_free(reply);
  assert_int_equal(ask(r, &reply), -EBUSY);
}

/* Also if the beginning would do: the rest is yet to come, and is no answer to what is asked next.
 */
static void an_answer_without_its_end(void **state) {
  static const char *const beginnings[] = {"", "{\"ok\":tr", "{\"ok\":true}"};
  for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
    for (int hangs_up = 0; hangs_up < 2; hangs_up++) {
      struct rig *r = *state;
      struct js *reply;
      answer(r, beginnings[i]);
      if (hangs_up) shutdown(r->daemon, SHUT_WR);
      assert_int_equal(ask(r, &reply), hangs_up ? -ECONNRESET : -ETIMEDOUT);
      tear_down(state);
      set_up(state);
    }
  }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(takes_a_whole_answer),
      TEST(an_answer_without_its_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
