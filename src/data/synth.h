/* data/synth.h: the planted process behind shoal synth, its exact conditional, and simple baselines.
 *
 * Inside, items have an index: topic * topic_size + rank for the items of topics, then the evergreens, most popular
 * first. item[] scatters indices over the ids of the data set, so that an id tells nothing.
 */
#ifndef SH_DATA_SYNTH_H
#define SH_DATA_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include "shoal/synth.h"

enum { SH_SYNTH_SESSION = 3600, SH_SYNTH_ANCHOR_AGE = 64800 }; /* seconds; see sh_synth_condition */

typedef struct sh_synth_process {
  sh_synth_options o; /* with every "0: default" filled in */
  int64_t topics, topic_size, evergreens;
  int32_t *item;                            /* [items] id of an index */
  int32_t *index;                           /* [items] index of an id */
  int32_t *successor;                       /* [topics] one cycle through all topics */
  double *topic_weight;                     /* [topic_size] */
  double *evergreen_weight, *evergreen_sum; /* [evergreens], [evergreens+1]: running sum */
  double length_tail;
} sh_synth_process;

/* SH_ERR_USAGE names the option that does not fit. */
sh_status sh_synth_process_open(sh_synth_process *p, const sh_synth_options *o);
void sh_synth_process_close(sh_synth_process *p);

/* What a user has done so far. One belongs to one thread; reused from user to user. */
typedef struct sh_synth_history {
  const sh_synth_process *p;
  int64_t n;
  int32_t *index;     /* [max_length] */
  int64_t *time;      /* [max_length] */
  uint8_t *seen;      /* [items] by index */
  int32_t *taken;     /* [topics] items seen of each topic */
  int64_t exhausted;  /* topics seen whole */
  int64_t evergreens; /* evergreens seen, */
  double evergreen;   /* and their weight */
} sh_synth_history;
void sh_synth_history_open(sh_synth_history *h, const sh_synth_process *p);
void sh_synth_history_close(sh_synth_history *h);
void sh_synth_history_clear(sh_synth_history *h);
void sh_synth_history_push(sh_synth_history *h, int32_t index, int64_t time);

/* The distribution of the next event at time `t`: a mixture of a topic's unseen items and the unseen evergreens. */
typedef struct sh_synth_conditional {
  double topic_share; /* the evergreens have the rest */
  int64_t topic;      /* < 0: any topic that is not exhausted, all alike */
  double topic_left;  /* weight of the topic's unseen items */
} sh_synth_conditional;
sh_synth_conditional sh_synth_condition(const sh_synth_history *h, int64_t t);

/* P(index | history, t); 0 for seen items. */
double sh_synth_probability(const sh_synth_history *h, const sh_synth_conditional *c, int32_t index);

/* Indices among which are the `top` most probable ones (where equally probable ones may stand for each other), in
 * out[sh_synth_support_size(h, top)]; returns their number. */
int64_t sh_synth_support(const sh_synth_history *h, const sh_synth_conditional *c, int64_t top, int32_t *out);
int64_t sh_synth_support_size(const sh_synth_process *p, int64_t top);

/* One draw from the conditional; `event` numbers the event in the user's sequence. */
int32_t sh_synth_draw(const sh_synth_history *h, const sh_synth_conditional *c, int64_t user, int64_t event);

int64_t sh_synth_length(const sh_synth_process *p, int64_t user);
/* Time of the event behind the history. */
int64_t sh_synth_time(const sh_synth_history *h, int64_t user);

/* All sequences: offsets[users+1] (filled from sh_synth_length), item and time [offsets[users]]; adds up the optimum.
 */
void sh_synth_generate(const sh_synth_process *p, const int64_t *offsets, int32_t *item, int64_t *time,
                       double optimum[SH_SYNTH_METRICS]);

/* Expected metrics of the best ranker for the event behind the history at time `t`. */
typedef struct sh_synth_scratch {
  int32_t *index; /* two supports */
  double *p;
} sh_synth_scratch;
void sh_synth_scratch_open(sh_synth_scratch *s, const sh_synth_process *p);
void sh_synth_scratch_close(sh_synth_scratch *s);
void sh_synth_optimum(const sh_synth_history *h, int64_t t, sh_synth_scratch *s, double out[SH_SYNTH_METRICS]);

/* HR@10 on the last event of each user, seen items not ranked, of rankers counted on the other events: popularity, and
 * a first-order Markov table (successors by count, then popularity). Ties: the smaller item first. */
void sh_synth_baselines(int64_t users, int64_t items, const int64_t *offsets, const int32_t *item, double *popularity,
                        double *markov);

#endif
