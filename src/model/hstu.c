/* HSTU: x = sqrt(D) E[item] + P, blocks of hstu_in -> hstu_out; no final norm (the loss normalises to length 1). */
#include <math.h>
#include <stdio.h>

#include "dist/build.h"
#include "nn/embed_input.h"
#include "nn/hstu.h"

sh_status sh_build_hstu(sh_model *m, const sh_conf_model *conf);

sh_status sh_build_hstu(sh_model *m, const sh_conf_model *conf) {
  int D = (int)conf->width, H = (int)conf->heads, N = (int)(conf->max_len + conf->extra_positions);
  sh_hstu_conf block = {.D = D,
                        .H = H,
                        .dqk = (int)(conf->dqk ? conf->dqk : conf->width / conf->heads),
                        .dv = (int)(conf->dv ? conf->dv : conf->width / conf->heads),
                        .N = N,
                        .eps = (float)(conf->norm_eps > 0 ? conf->norm_eps : 1e-6),
                        .dropout = conf->linear_dropout,
                        .time_bias = conf->time_bias,
                        .concat_ua = conf->concat_ua};
  sh_embed_input_conf input = {
      .D = D, .N = N, .dropout = conf->dropout, .pos_init = {.kind = SH_INIT_NORMAL, .a = sqrt(2.0 / (N + D))}};
  if (H % m->params.parts)
    return sh_fail(SH_ERR_USAGE, "model.heads = %d cannot be dealt to parallel.tensor = %d", H, m->params.parts);
  int local = H / m->params.parts * block.dv;
  int x = sh_build_input(m, &sh_embed_input_ops, "input", &input);
  for (int i = 0; i < conf->layers; i++) {
    char name[SH_PARAM_NAME];
    snprintf(name, sizeof name, "block.%d", i);
    int u = sh_build_slot(m, local, "%s.u", name), o = sh_build_slot(m, local, "%s.o", name);
    int stats = sh_build_slot(m, SH_HSTU_STATS, "%s.stats", name), next = sh_build_slot(m, D, "%s.out", name);
    x = sh_build_enter(m, name, x);
    sh_build_call(m, &sh_hstu_in_ops, name, &block, 1, &x, 3, (int[]){u, o, stats});
    stats = sh_build_span(m, name, stats, true);
    sh_build_call(m, &sh_hstu_out_ops, name, &block, 4, (int[]){x, u, o, stats}, 1, &next);
    x = sh_build_leave(m, name, next);
  }
  sh_build_output(m, x);
  return SH_OK;
}
