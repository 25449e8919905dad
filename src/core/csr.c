#include "core/csr.h"

#include <assert.h>
#include <string.h>

/* Counting sort in fixed chunks of the references: histograms per chunk, prefix over (row, chunk), placement. */
enum { CHUNK = 1 << 15, CHUNKS = 16, ROWS = 1024 };

void sh_csr_build(sh_csr *c, int64_t n, const int32_t *row, int64_t rows, sh_arena *arena) {
  assert(n < INT32_MAX);
  int64_t chunks = (n + CHUNK - 1) / CHUNK;
  if (chunks < 1) chunks = 1;
  if (chunks > CHUNKS) chunks = CHUNKS;
  if (chunks * rows > 4 * n + 65536) chunks = 1;
  *c = (sh_csr){.n = n, .rows = rows};
  c->start = SH_ARENA_NEW(arena, int32_t, rows + 1);
  c->item = SH_ARENA_NEW(arena, int32_t, n);
  int32_t *count = SH_ARENA_NEW(arena, int32_t, chunks * rows);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < chunks; k++) {
    int32_t *mine = count + k * rows;
    memset(mine, 0, sizeof(int32_t) * (size_t)rows);
    for (int64_t i = n * k / chunks; i < n * (k + 1) / chunks; i++) mine[row[i]]++;
  }
  int64_t blocks = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; b++) { /* references of each row, and before each chunk among them */
    int64_t first = b * ROWS, last = first + ROWS < rows ? first + ROWS : rows;
    memset(c->start + first, 0, sizeof(int32_t) * (size_t)(last - first));
    for (int64_t k = 0; k < chunks; k++)
      for (int64_t r = first; r < last; r++) {
        int32_t here = count[k * rows + r];
        count[k * rows + r] = c->start[r];
        c->start[r] += here;
      }
  }
  int32_t at = 0;
  for (int64_t r = 0; r < rows; r++) {
    int32_t here = c->start[r];
    c->start[r] = at;
    at += here;
  }
  c->start[rows] = at;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < chunks; k++) {
    int32_t *place = count + k * rows;
    for (int64_t r = 0; r < rows; r++) place[r] += c->start[r];
    for (int64_t i = n * k / chunks; i < n * (k + 1) / chunks; i++) c->item[place[row[i]]++] = (int32_t)i;
  }
}
