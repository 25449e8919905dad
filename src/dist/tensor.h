/* dist/tensor.h: communication over the tensor axis in the shape of layers, so that backward is the list reversed
 * (Shoeybi et al., "Megatron-LM", 2019; Korthikanti et al., "Reducing Activation Recomputation", 2022).
 *
 * T rows of a slot are whole on every rank, or sliced: rank r of n holds rows [T r / n, T (r+1) / n). Split layers read
 * whole rows and leave partial sums. Between them stands, by parallel.sequence,
 *
 *              sliced rows (true)                            whole rows (false)
 *   enter      gather   x sliced -> whole | dx summed, sliced    copy     x | dx summed
 *   leave      scatter  sum, sliced | dx gathered                sum      sum | dx
 *   begin      nothing: the input layer makes slices             spread   sliced -> whole | own slice of dx
 *   end        nothing                                           take     own slice | dx gathered
 *
 * and span: statistics that span all heads, summed forward and backward. Each call is collective over the tensor axis;
 * slots of enter, leave, begin and end have one reader.
 */
#ifndef SH_DIST_TENSOR_H
#define SH_DIST_TENSOR_H

#include "mpi/grid.h"
#include "nn/layer.h"

typedef struct sh_tensor_conf {
  const sh_axis *axis; /* outlives the model */
  int width;           /* floats of a row; span: numbers of a row */
  bool doubles;        /* span: numbers are doubles, else floats */
} sh_tensor_conf;

extern const sh_layer_ops sh_tensor_gather_ops, sh_tensor_scatter_ops, sh_tensor_copy_ops, sh_tensor_sum_ops,
    sh_tensor_spread_ops, sh_tensor_take_ops, sh_tensor_span_ops;

#endif
