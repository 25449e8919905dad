#include "train/recommend.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/outfile.h"
#include "core/phase.h"
#include "nn/linear.h"
#include "train/scorer.h"

typedef struct hit {
  float score;
  int64_t id; /* -1: none */
} hit;

static bool before(hit a, hit b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

/* list[top] is a heap whose root is the worst hit kept. */
static void sift(hit *list, int64_t n, int64_t i) {
  for (;;) {
    int64_t worst = i, a = 2 * i + 1, b = a + 1;
    if (a < n && before(list[worst], list[a])) worst = a;
    if (b < n && before(list[worst], list[b])) worst = b;
    if (worst == i) return;
    hit keep = list[i];
    list[i] = list[worst];
    list[worst] = keep;
    i = worst;
  }
}

typedef struct tops {
  const sh_scorer *s;
  int64_t top;
  hit *list; /* [n x top] */
} tops;

static bool any_above(int64_t n, const float *score, float least) {
  int32_t above = 0;
#pragma omp simd reduction(+ : above)
  for (int32_t i = 0; i < (int32_t)n; i++) above += score[i] > least;
  return above > 0;
}

/* Ids ascend, so of equal scores the one kept stays. A list that is not full yet has a root of -infinity, which also
 * keeps filtered candidates out. Soon few are above the worst hit kept: most are passed over CHUNK at a time. */
static void keep_tile(void *arg, int64_t q, int64_t first, int64_t count, const float *score) {
  enum { CHUNK = 32 };
  tops *t = arg;
  hit *list = t->list + q * t->top;
  for (int64_t c = 0; c < count; c += CHUNK) {
    int64_t end = c + CHUNK < count ? c + CHUNK : count;
    if (!any_above(end - c, score + c, list[0].score)) continue;
    for (int64_t i = c; i < end; i++) {
      if (!(score[i] > list[0].score)) continue;
      list[0] = (hit){score[i], t->s->id[first + i]};
      sift(list, t->top, 0);
    }
  }
}

static int best_first(const void *a, const void *b) {
  const hit *x = a, *y = b;
  if ((x->id < 0) != (y->id < 0)) return x->id < 0 ? 1 : -1;
  return before(*x, *y) ? -1 : before(*y, *x);
}

/* Every rank's lists for all queries -> rank 0's merged list of each. */
static hit *merge(sh_scorer *s, const sh_round *r, tops *t) {
  const sh_axis *world = &s->t->grid->world;
  int64_t size = world->size, top = t->top;
  hit *all = SH_ARENA_NEW(&s->step, hit, size * r->n * top);
  hit *ones = SH_ARENA_NEW(&s->step, hit, size * top * sh_max_threads());
  sh_allgather(world, t->list, sizeof(hit) * (size_t)(r->n * top), all);
#pragma omp parallel for schedule(static)
  for (int64_t q = 0; q < r->n; q++) {
    hit *one = ones + size * top * sh_thread();
    for (int64_t k = 0; k < size; k++) memcpy(one + k * top, all + (k * r->n + q) * top, sizeof(hit) * (size_t)top);
    qsort(one, (size_t)(size * top), sizeof(hit), best_first);
    memcpy(t->list + q * top, one, sizeof(hit) * (size_t)top);
  }
  return t->list;
}

/* A key stays in its column: tab, line ends and backslash are written as \\t \\n \\r \\\\. */
static void put_key(FILE *f, const char *key) {
  for (; *key; key++) {
    if (*key == '\t')
      fputs("\\t", f);
    else if (*key == '\n')
      fputs("\\n", f);
    else if (*key == '\r')
      fputs("\\r", f);
    else if (*key == '\\')
      fputs("\\\\", f);
    else
      fputc(*key, f);
  }
}

static sh_status write_user(const sh_dataset *d, FILE *f, int64_t user, const hit *list, int64_t top) {
  char user_key[1024], item_key[1024];
  SH_TRY(sh_dataset_user_key(d, user, user_key, sizeof user_key));
  for (int64_t k = 0; k < top && list[k].id >= 0; k++) {
    SH_TRY(sh_dataset_item_key(d, list[k].id, item_key, sizeof item_key));
    put_key(f, user_key);
    fprintf(f, "\t%lld\t", (long long)k + 1);
    put_key(f, item_key);
    if (fprintf(f, "\t%.6f\n", (double)list[k].score) < 0)
      return sh_fail(SH_ERR_INTERNAL, "recommendations: %s", strerror(errno));
  }
  return SH_OK;
}

/* Users user .. of one round: as many as all ranks take, consecutive over ranks. *served counts those with a line. */
static sh_status one_round(sh_trainer *t, sh_scorer *s, int64_t top, int64_t *user, FILE *f, int64_t *served) {
  const sh_axis *world = &t->grid->world, *data = &t->grid->data;
  const sh_dataset *d = &t->data;
  int64_t each = t->conf.eval.users / world->size, mine = 0; /* every rank sees the hits of all for a whole round */
  if (each < 1) each = 1;
  int64_t *users = SH_ARENA_NEW(&s->memory, int64_t, each * data->size), n = 0;
  sh_sample *query = SH_ARENA_NEW(&s->memory, sh_sample, each);
  int64_t *seen = SH_ARENA_NEW(&s->memory, int64_t, each);
  for (; *user < d->users && n < each * data->size; ++*user) {
    int64_t end = d->offsets[*user + 1], start = d->offsets[*user];
    if (end == start) continue;
    int64_t first = end - start > t->samples.max_len ? end - t->samples.max_len : start;
    if (n / each == data->index) {
      seen[mine] = start;
      query[mine++] = (sh_sample){.user = *user, .first = first, .length = (int32_t)(end - first), .id = *user};
    }
    users[n++] = *user;
  }
  sh_round r;
  SH_TRY(sh_scorer_round(s, query, seen, mine, false, &r));
  tops keep = {.s = s, .top = top, .list = SH_ARENA_NEW(&s->step, hit, r.n * top)};
  for (int64_t i = 0; i < r.n * top; i++) keep.list[i] = (hit){-INFINITY, -1};
  sh_scorer_tiles(s, &r, keep_tile, &keep);
  hit *list = merge(s, &r, &keep);
  sh_status status = SH_OK;
  for (int64_t q = 0; q < r.n && f && status == SH_OK; q++) {
    status = write_user(d, f, users[q], list + q * top, top);
    *served += list[q * top].id >= 0;
  }
  return sh_agree(world, status);
}

sh_status sh_recommend_all(sh_trainer *t, int64_t top, const char *path) {
  bool writer = t->grid->world.index == 0;
  sh_outfile out = {.f = NULL};
  sh_status status = writer && path ? sh_outfile_open(&out, path) : SH_OK;
  SH_TRY(sh_agree(&t->grid->world, status));
  FILE *f = !writer ? NULL : path ? out.f : stdout;
  sh_scorer s;
  sh_scorer_create(&s, t);
  int64_t served = 0;
  for (int64_t user = 0; user < t->data.users && status == SH_OK;) {
    sh_arena_mark mark = sh_arena_save(&s.memory);
    sh_phase_moved();
    status = one_round(t, &s, top, &user, f, &served);
    sh_arena_release(&s.memory, mark);
  }
  sh_scorer_destroy(&s);
  if (writer && path && status == SH_OK && served < t->data.users)
    sh_info("%lld of %lld users have recommendations; the others have no events, or eval.filter = %s leaves them none",
            (long long)served, (long long)t->data.users, t->conf.eval.filter);
  sh_status written = sh_outfile_close(&out, status == SH_OK);
  return sh_agree(&t->grid->world, status == SH_OK ? written : status);
}
