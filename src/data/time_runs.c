#include "data/time_runs.h"

#include <string.h>

const int64_t sh_time_bucket_bound[128] = {
    2,
    2,
    3,
    4,
    5,
    7,
    9,
    12,
    16,
    21,
    28,
    38,
    51,
    68,
    92,
    124,
    167,
    226,
    305,
    412,
    557,
    752,
    1016,
    1372,
    1854,
    2505,
    3385,
    4574,
    6180,
    8350,
    11283,
    15245,
    20600,
    27834,
    37610,
    50818,
    68666,
    92782,
    125367,
    169397,
    228891,
    309280,
    417901,
    564672,
    762990,
    1030959,
    1393042,
    1882290,
    2543367,
    3436623,
    4643595,
    6274467,
    8478123,
    11455709,
    15479071,
    20915478,
    28261151,
    38186755,
    51598326,
    69720053,
    94206444,
    127292700,
    171999192,
    232406601,
    314030161,
    424319920,
    573345376,
    774710112,
    1046794145,
    1414438848,
    1911204161,
    2582433664LL,
    3489410432LL,
    4714926848LL,
    6370844929LL,
    8608349696LL,
    11631690241LL,
    15716857344LL,
    21236737025LL,
    28695292928LL,
    38773372928LL,
    52390873089LL,
    70791081984LL,
    95653629953LL,
    129247899648LL,
    174641078272LL,
    235976794113LL,
    318853627905LL,
    430838267905LL,
    582153043969LL,
    786609569792LL,
    1062874873856LL,
    1436167241729LL,
    1940563755009LL,
    2622104403969LL,
    3543014178817LL,
    4787356827649LL,
    6468712792065LL,
    8740590059521LL,
    11810374156289LL,
    15958267133952LL,
    21562972438529LL,
    29136107077633LL,
    39368926429184LL,
    53195697029121LL,
    71878563594241LL,
    97122946908160LL,
    131233266794497LL,
    177324058214400LL,
    239601604100097LL,
    323751497433089LL,
    437457166270464LL,
    591095444537345LL,
    798692621680640LL,
    1079203646668800LL,
    1458228034535424LL,
    1970368793280512LL,
    2662387547111425LL,
    3597438166237184LL,
    4860885340258305LL,
    6568090280132608LL,
    8874853327175681LL,
    11991769344376832LL,
    16203431454703616LL,
    21894198160523265LL,
    29583720776204288LL,
    39973748102660096LL,
    54012827962179584LL,
};

/* Distances of e bits, e > 0, lie in buckets first .. first+4, first = floor(2.3018 (e - 1)) and at most 124: an octave
 * is 2.3028 buckets wide. Four bounds decide, without a branch. */
int sh_time_bucket(int64_t dt) {
  uint64_t distance = dt < 0 ? 0 - (uint64_t)dt : (uint64_t)dt;
  int octave = 63 - __builtin_clzll(distance | 1), first = octave * 2357 >> 10, b = first < 124 ? first : 124;
  const int64_t *bound = sh_time_bucket_bound + b;
  for (int k = 0; k < 4; k++) b += (uint64_t)bound[k] <= distance;
  return b;
}

/* Runs of one query, or of one sequence: one past the last key, and bucket. */
typedef struct run_list {
  int32_t *end;
  uint8_t *bucket;
} run_list;

static bool ascends(const int64_t *time, const int64_t *from, int32_t L) {
  bool ok = L == 0 || from[0] >= time[0];
  for (int32_t i = 1; i < L; i++) ok &= time[i] >= time[i - 1] && from[i] >= from[i - 1] && from[i] >= time[i];
  return ok;
}

/* Runs of query i over keys 0 .. i, whatever the times; returns how many. */
static int32_t runs_of_any(const int64_t *time, int64_t from, int32_t i, run_list out) {
  int32_t n = 0;
  for (int32_t j = 0; j <= i; j++) {
    uint8_t b = (uint8_t)sh_time_bucket(from - time[j]);
    if (n > 0 && out.bucket[n - 1] == b) n--;
    out.end[n] = j + 1, out.bucket[n++] = b;
  }
  return n;
}

/* The same when times ascend: a bucket's last key does not go back from one query to the next, so its search begins
 * where the last one ended: reached[b] = keys 0 .. that are as far as bucket b or farther. */
static int32_t runs_of(const int64_t *time, int64_t from, int32_t i, int32_t *reached, run_list out) {
  int32_t n = 0, j = 0;
  while (j <= i) {
    int b = sh_time_bucket(from - time[j]);
    int32_t next = b == 0 || reached[b] <= j ? j + 1 : reached[b];
    if (b == 0) {
      next = i + 1;
    } else {
      int64_t latest = from - sh_time_bucket_bound[b - 1]; /* of this bucket */
      while (next <= i && time[next] <= latest) next++;
      reached[b] = next;
    }
    out.end[n] = next, out.bucket[n++] = (uint8_t)b;
    j = next;
  }
  return n;
}

/* The runs before, and key i: what query i sees when it is made at the same time as the one before. */
static int32_t runs_again(const int64_t *time, int64_t from, int32_t i, int32_t n, run_list out) {
  memcpy(out.end, out.end - n, sizeof *out.end * (size_t)n);
  memcpy(out.bucket, out.bucket - n, (size_t)n);
  uint8_t b = (uint8_t)sh_time_bucket(from - time[i]);
  if (out.bucket[n - 1] == b) n--;
  out.end[n] = i + 1, out.bucket[n] = b;
  return n + 1;
}

/* Runs of a sequence, query after query; start[i + 1] = how many queries 0 .. i have. */
static void sequence_runs(const int64_t *time, const int64_t *from, int32_t L, bool in_order, run_list out,
                          int32_t *start) {
  int32_t reached[129] = {0};
  start[0] = 0;
  for (int32_t i = 0; i < L; i++) {
    run_list here = {out.end + start[i], out.bucket + start[i]};
    int32_t n;
    if (!in_order)
      n = runs_of_any(time, from[i], i, here);
    else if (i > 0 && from[i] == from[i - 1]) /* common: many events of one session bear one time */
      n = runs_again(time, from[i], i, start[i] - start[i - 1], here);
    else
      n = runs_of(time, from[i], i, reached, here);
    start[i + 1] = start[i] + n;
  }
}

/* Runs a sequence has at most: one a key; and in order, one a bucket that its longest distance leaves possible. */
static int64_t most_runs(const int64_t *time, const int64_t *from, int64_t L, bool in_order) {
  int64_t pairs = L * (L + 1) / 2, buckets = in_order && L > 0 ? 1 + sh_time_bucket(from[L - 1] - time[0]) : L;
  return pairs < L * buckets ? pairs : L * buckets;
}

/* Every sequence writes where it has room for the most it could need; then all move together. */
void sh_time_runs_build(sh_batch *b, sh_arena *arena) {
  int64_t B = b->B, *room = SH_ARENA_NEW(arena, int64_t, B + 1), *first = SH_ARENA_NEW(arena, int64_t, B + 1);
  bool *in_order = SH_ARENA_NEW(arena, bool, B);
  int32_t *start = SH_ARENA_NEW(arena, int32_t, b->T + 1), *own = SH_ARENA_NEW(arena, int32_t, b->T + B);
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < B; s++) {
    int32_t at = b->offsets[s], L = b->offsets[s + 1] - at;
    in_order[s] = ascends(b->time + at, b->next_time + at, L);
    room[s + 1] = most_runs(b->time + at, b->next_time + at, L, in_order[s]);
  }
  room[0] = first[0] = 0;
  for (int64_t s = 0; s < B; s++) room[s + 1] += room[s];
  run_list wide = {SH_ARENA_NEW(arena, int32_t, room[B]), SH_ARENA_NEW(arena, uint8_t, room[B])};
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t s = 0; s < B; s++) {
    int32_t at = b->offsets[s], L = b->offsets[s + 1] - at;
    run_list here = {wide.end + room[s], wide.bucket + room[s]};
    sequence_runs(b->time + at, b->next_time + at, L, in_order[s], here, own + at + s);
    first[s + 1] = own[at + s + L];
  }
  for (int64_t s = 0; s < B; s++) first[s + 1] += first[s];
  run_list all = {SH_ARENA_NEW(arena, int32_t, first[B]), SH_ARENA_NEW(arena, uint8_t, first[B])};
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < B; s++) {
    int32_t at = b->offsets[s], L = b->offsets[s + 1] - at, n = own[at + s + L];
    for (int32_t i = 0; i < L; i++) start[at + i] = (int32_t)first[s] + own[at + s + i];
    memcpy(all.end + first[s], wide.end + room[s], sizeof *all.end * (size_t)n);
    memcpy(all.bucket + first[s], wide.bucket + room[s], (size_t)n);
  }
  start[b->T] = (int32_t)first[B];
  b->runs = (sh_time_runs){.start = start, .end = all.end, .bucket = all.bucket};
}
