#include "dist/marks.h"

#include <stdlib.h>

#include "core/arena.h"

enum { PAGE_WORDS = 64, FEW_PAGES = 8 }; /* few: not worth waking threads for */

void sh_marks_create(sh_marks *m, int64_t n) {
  int64_t pages = (n + 4095) / 4096;
  *m = (sh_marks){.n = n,
                  .pages = pages,
                  .bits = sh_calloc((size_t)pages * PAGE_WORDS, sizeof *m->bits),
                  .page = sh_calloc((size_t)pages, sizeof *m->page),
                  .touched = sh_malloc(sizeof *m->touched * (size_t)pages),
                  .first = sh_malloc(sizeof *m->first * (size_t)(pages + 1))};
}

void sh_marks_destroy(sh_marks *m) {
  free(m->bits);
  free(m->page);
  free(m->touched);
  free(m->first);
  *m = (sh_marks){0};
}

int64_t sh_marks_count(sh_marks *m) {
  int64_t n = 0;
  for (int64_t i = 0; i < m->pages; i++)
    if (m->page[i]) m->touched[n++] = i;
  m->ntouched = n;
#pragma omp parallel for schedule(static) if (n > FEW_PAGES)
  for (int64_t k = 0; k < n; k++) {
    const uint64_t *word = m->bits + m->touched[k] * PAGE_WORDS;
    int64_t members = 0;
    for (int w = 0; w < PAGE_WORDS; w++) members += __builtin_popcountll(word[w]);
    m->first[k + 1] = members;
  }
  m->first[0] = 0;
  for (int64_t k = 0; k < n; k++) m->first[k + 1] += m->first[k];
  return m->first[n];
}

void sh_marks_take(sh_marks *m, int64_t *members) {
  int64_t n = m->ntouched;
#pragma omp parallel for schedule(static) if (n > FEW_PAGES)
  for (int64_t k = 0; k < n; k++) {
    uint64_t *word = m->bits + m->touched[k] * PAGE_WORDS;
    int64_t *out = members + m->first[k], base = m->touched[k] * PAGE_WORDS * 64;
    for (int w = 0; w < PAGE_WORDS; w++) {
      for (uint64_t rest = word[w]; rest; rest &= rest - 1) *out++ = base + w * 64 + __builtin_ctzll(rest);
      word[w] = 0;
    }
    m->page[m->touched[k]] = 0;
  }
}
