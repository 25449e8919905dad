/* dist/marks.h: a set of numbers 0 .. n-1 that many threads fill and that is read out in ascending order: how tables
 * find the distinct rows of a batch. n / 8 bytes; reading out costs what was touched, not n.
 */
#ifndef SH_DIST_MARKS_H
#define SH_DIST_MARKS_H

#include <stdint.h>

typedef struct sh_marks {
  int64_t n, pages;
  uint64_t *bits;   /* one bit a number */
  uint8_t *page;    /* [pages] some bit of these 4096 is set */
  int64_t *touched; /* [ntouched] such pages, as sh_marks_count found them */
  int64_t *first;   /* [ntouched + 1] place of a touched page's first number */
  int64_t ntouched;
} sh_marks;

void sh_marks_create(sh_marks *m, int64_t n);
void sh_marks_destroy(sh_marks *m);

/* 1 when the number is there; 0 may be out of date while threads add. */
static inline uint64_t sh_marks_has(const sh_marks *m, int64_t i) {
  return __atomic_load_n(m->bits + (i >> 6), __ATOMIC_RELAXED) >> (i & 63) & 1;
}

/* Add a number; any thread, any order. */
static inline void sh_marks_set(const sh_marks *m, int64_t i) {
  if (sh_marks_has(m, i)) return; /* most are there already: no write, no shared line */
  __atomic_fetch_or(m->bits + (i >> 6), (uint64_t)1 << (i & 63), __ATOMIC_RELAXED);
  uint8_t *page = m->page + (i >> 12);
  if (!__atomic_load_n(page, __ATOMIC_RELAXED)) __atomic_store_n(page, 1, __ATOMIC_RELAXED);
}

int64_t sh_marks_count(sh_marks *m);               /* members; call it before take */
void sh_marks_take(sh_marks *m, int64_t *members); /* all members, ascending; the set is empty afterwards */

#endif
