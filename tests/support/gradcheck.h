/* support/gradcheck.h: gradients against finite differences.
 *
 * f is a scalar function of arrays a test may change (a random projection of a layer's outputs, a loss). Some elements
 * of one array are moved, the one with the largest gradient among them, and then all elements at once along a random
 * direction. The derivative is the five-point central difference
 *   (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12 h,   h = step * root mean square of the array.
 * Errors are relative to the largest gradient of the array; along the direction, to the gradient's length.
 */
#ifndef SH_TESTS_GRADCHECK_H
#define SH_TESTS_GRADCHECK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sh_gradcheck {
  double (*f)(void *arg);
  void *arg;
  double step, tolerance;
  int samples;     /* elements of an array that are moved, at least; arrays that small are checked whole */
  double worst;    /* largest error so far */
  char where[160]; /* and where */
  int failed;      /* arrays beyond the tolerance; each is printed */
} sh_gradcheck;

/* Check grad[n], the gradient of f by x[n]; x is the same afterwards. Returns whether it passed. */
bool sh_gradcheck_array(sh_gradcheck *g, const char *name, float *x, int64_t n, const float *grad);

#endif
