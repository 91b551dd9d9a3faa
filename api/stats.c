/* stats.c - being written. */
typedef int translation_unit_not_empty;
