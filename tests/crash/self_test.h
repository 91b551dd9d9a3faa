/* self_test.h - proves that a look finds what is wrong. */
#ifndef TESTS_CRASH_SELF_TEST_H
#define TESTS_CRASH_SELF_TEST_H

#include "tests/crash/look.h"

/* Of volumes. The store was looked at, and the ledger has accepted it. How much was not found. */
uint32_t disk_self_test(const char *where, struct ledger *l);

#endif
