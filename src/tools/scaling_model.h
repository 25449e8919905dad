/* tools/scaling_model.h: the cost model of a step, arithmetic only: machine and work in, seconds out. docs/SCALING.md
 * derives it. All times in seconds, sizes in bytes unless said otherwise.
 *
 * Messages cost as in LogGP (Alexandrov et al., 1995): parts x latency + messages x gap + bytes / bandwidth. Of that, a
 * core is busy for messages x gap + bytes x cpu, which nothing hides; the rest passes while layers compute, if somebody
 * moves messages meanwhile (comm.progress).
 */
#ifndef SH_TOOLS_SCALING_MODEL_H
#define SH_TOOLS_SCALING_MODEL_H

#include <stdbool.h>

typedef struct sh_link {
  double latency;   /* of a short message, until it is there */
  double gap;       /* of a short message among many */
  double bandwidth; /* bytes/s one way, the other way busy too; of a node for `far`, of a rank for `near` */
  double cpu;       /* of a core, a byte sent and another received */
} sh_link;

typedef struct sh_machine {
  double cores;                  /* of a node; may be a fraction where virtual nodes share one */
  double gemm_one, gemm_all;     /* FLOP/s of a core in fp32: of one that works alone, of one of all */
  double memory_one, memory_all; /* bytes/s of a core (triad), likewise */
  sh_link near, far;             /* between ranks of a node; between nodes */
} sh_machine;

/* Parts of a rank's own work. */
enum {
  SH_WORK_LOAD,
  SH_WORK_EXCHANGE,
  SH_WORK_FORWARD,
  SH_WORK_LOSS,
  SH_WORK_BACKWARD,
  SH_WORK_DENSE,
  SH_WORK_TABLE,
  SH_WORKS
};

/* The mean step of one rank alone. */
typedef struct sh_work_sample {
  double tokens, users;
  double inputs, rows; /* distinct table rows: of inputs; of everything */
  double seconds[SH_WORKS];
} sh_work_sample;

typedef struct sh_work {
  double threads, items, longest; /* longest: tokens of the longest sequence */
  double busy;                    /* step beside steps on all cores, the slowest of them / step alone, >= 1 */
  double turns;                   /* the same with several ranks a core / (ranks a core x busy), >= 1 */
  sh_work_sample sample[2];       /* the whole batch; a part of it */
} sh_work;

/* A grid and what the configuration does on it. */
typedef struct sh_scaling_case {
  double nodes, per_node, threads, tensor;
  double tokens, users;            /* of the global batch */
  double block, block_alone;       /* floats of a rank's dense parameters; without tensor parallelism */
  double buckets, last_bucket;     /* number; floats of the one that leaves last */
  double width;                    /* of a table row */
  double tensor_floats;            /* a rank sends for a token of its group in a step */
  double tensor_calls;             /* collectives of a step over the tensor axis */
  double partial;                  /* floats of gradients that a tensor group sums */
  double tile_tokens;              /* full softmax; else 0 */
  bool zero, half, sweep, overlap; /* ZeRO-1; bf16 on the wire; all table rows are updated; progress is not `none` */
} sh_scaling_case;

typedef enum sh_kind {
  SH_KIND_DENSE,
  SH_KIND_IDS,
  SH_KIND_ROWS,
  SH_KIND_ROW_GRADS,
  SH_KIND_TENSOR,
  SH_KIND_LOSS,
  SH_KINDS
} sh_kind;
extern const char *const sh_kind_name[SH_KINDS];

typedef struct sh_prediction {
  double work[SH_WORKS], compute; /* of the rank with most work, as if nobody communicated */
  struct {
    double bytes; /* that a rank sends */
    double exposed, hidden;
  } kind[SH_KINDS];
  double step, tokens_per_second;
  double efficiency; /* one rank with the same batch / (ranks x this) */
  const char *limit; /* what takes most of the step */
} sh_prediction;

sh_prediction sh_scaling_predict(const sh_machine *m, const sh_work *w, const sh_scaling_case *c);

/* Distinct rows that a rank with so many tokens asks for, and those of its inputs. */
double sh_scaling_rows(const sh_work *w, double tokens);
double sh_scaling_inputs(const sh_work *w, double tokens);

/* Tokens of the largest share among `data` ranks: the longest sequence is never cut. */
double sh_scaling_share(const sh_work *w, double tokens, double data);

#endif
