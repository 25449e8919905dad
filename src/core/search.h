/* core/search.h: places in ascending lists. */
#ifndef SH_CORE_SEARCH_H
#define SH_CORE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

/* First index of an ascending list whose entry is not below x; n when there is none. */
static inline int64_t sh_lower_bound(const int64_t *list, int64_t n, int64_t x) {
  int64_t low = 0;
  while (low < n) {
    int64_t mid = low + (n - low) / 2;
    if (list[mid] < x)
      low = mid + 1;
    else
      n = mid;
  }
  return low;
}

/* The index of x in an ascending list, or -1. */
static inline int64_t sh_index_of(const int64_t *list, int64_t n, int64_t x) {
  int64_t at = sh_lower_bound(list, n, x);
  return at < n && list[at] == x ? at : -1;
}

#endif
