#include "nn/pieces.h"

#include <math.h>
#include <string.h>

/* Pieces and heads that a batch should have, queries that a piece should have, and what its first query is a multiple
 * of: the attentions' tiles then lie as they do in a whole sequence. */
enum { UNITS = 16, QUERIES = 512, ALIGN = 256 };

/* Queries before piece k of n: pairs grow with the square. */
static int boundary(int L, int64_t k, int64_t n) {
  if (k == n) return L;
  return (int)((double)L * sqrt((double)k / (double)n)) / ALIGN * ALIGN;
}

static int64_t pieces_of(int64_t B, int64_t heads, int64_t L) {
  int64_t wanted = (UNITS + B * heads - 1) / (B * heads), most = L / QUERIES;
  if (wanted > most) wanted = most;
  return wanted < 1 ? 1 : wanted;
}

sh_pieces sh_pieces_of(const sh_ctx *c, int64_t heads, bool last_only) {
  const sh_batch *b = c->batch;
  int64_t room = 0;
  for (int64_t i = 0; i < b->B; i++) room += pieces_of(b->B, heads, b->offsets[i + 1] - b->offsets[i]);
  sh_pieces p = {.piece = SH_ARENA_NEW(c->scratch, sh_piece, room)};
  for (int64_t i = 0; i < b->B; i++) {
    int L = b->offsets[i + 1] - b->offsets[i];
    int64_t n = last_only ? 1 : pieces_of(b->B, heads, L);
    for (int64_t k = 0; k < n; k++) {
      sh_piece *x = &p.piece[p.n];
      *x = (sh_piece){.sequence = i, .first = boundary(L, k, n), .end = boundary(L, k + 1, n), .surplus = -1};
      if (last_only) x->first = L - 1;
      if (L == 0 || x->first == x->end) continue;
      x->skip = last_only ? 0 : x->first;
      if (x->skip > 0) x->surplus = p.surplus, p.surplus += x->end;
      p.n++;
    }
  }
  return p;
}

int64_t sh_pieces_surplus(int64_t B, int64_t heads, int64_t L) {
  int64_t n = B > 0 ? pieces_of(B, heads, L) : 1, rows = 0;
  for (int64_t k = 1; k < n; k++) rows += boundary((int)L, k + 1, n);
  return B * rows;
}

void sh_piece_io(const sh_piece *p, sh_heads_io *io) {
  io->query_first = p->first, io->L = p->end;
  if (p->skip == 0) return;
  if (io->q) io->q += (int64_t)p->skip * io->ldq;
  if (io->dq) io->dq += (int64_t)p->skip * io->ldq;
  if (io->out) io->out += (int64_t)p->skip * io->ldout;
  if (io->dout) io->dout += (int64_t)p->skip * io->ldout;
}

void sh_pieces_add(const sh_ctx *c, const sh_pieces *p, const float *surplus, int64_t ld, int64_t first, int64_t n,
                   float *d) {
  for (int64_t k = 0; k < p->n; k++) {
    const sh_piece *x = &p->piece[k];
    if (x->surplus < 0) continue;
    float *to = d + c->batch->offsets[x->sequence] * ld + first;
    const float *from = surplus + x->surplus * ld + first;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < x->end; j++)
      if (j < x->first) /* keys that earlier pieces saw */
        c->k->axpy(n, 1.f, from + j * ld, to + j * ld);
      else
        memcpy(to + j * ld, from + j * ld, sizeof(float) * (size_t)n);
  }
}
