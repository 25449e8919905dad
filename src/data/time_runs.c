#include "data/time_runs.h"

#include <stddef.h>
#include <stdlib.h>

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

int sh_time_bucket(int64_t dt) {
  uint64_t distance = dt < 0 ? 0 - (uint64_t)dt : (uint64_t)dt;
  int lo = 0, hi = 128; /* number of bounds <= distance */
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    if ((uint64_t)sh_time_bucket_bound[mid] <= distance)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* Runs of query i over keys 0 .. i; writes them when `end` is given, returns how many. */
static int32_t runs_of(const int64_t *time, int64_t from, int32_t i, int32_t *end, uint8_t *bucket) {
  int32_t n = 0, j = 0;
  while (j <= i) {
    int b = sh_time_bucket(from - time[j]);
    int32_t next = j + 1;
    int64_t at_least = b > 0 ? sh_time_bucket_bound[b - 1] : 0;
    if (from >= time[j]) {
      /* The run goes on while from - time stays at or above the bucket's lower bound. */
      while (next <= i && time[next] >= time[j] && from - time[next] >= at_least) next++;
    } else {
      while (next <= i && sh_time_bucket(from - time[next]) == b) next++;
    }
    if (end) end[n] = next, bucket[n] = (uint8_t)b;
    n++;
    j = next;
  }
  return n;
}

void sh_time_runs_build(sh_batch *b, sh_arena *arena) {
  int32_t *start = SH_ARENA_NEW(arena, int32_t, b->T + 1);
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t s = 0; s < b->B; s++)
    for (int32_t t = b->offsets[s]; t < b->offsets[s + 1]; t++)
      start[t + 1] = runs_of(b->time + b->offsets[s], b->next_time[t], t - b->offsets[s], NULL, NULL);
  start[0] = 0;
  for (int64_t t = 0; t < b->T; t++) start[t + 1] += start[t];
  int32_t *end = SH_ARENA_NEW(arena, int32_t, start[b->T]);
  uint8_t *bucket = SH_ARENA_NEW(arena, uint8_t, start[b->T]);
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t s = 0; s < b->B; s++)
    for (int32_t t = b->offsets[s]; t < b->offsets[s + 1]; t++)
      runs_of(b->time + b->offsets[s], b->next_time[t], t - b->offsets[s], end + start[t], bucket + start[t]);
  b->runs = (sh_time_runs){.start = start, .end = end, .bucket = bucket};
}
