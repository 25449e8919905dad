/* golden/golden_file.h: reading files of golden vectors (HDF5; layout in make_vectors.py). Numbers become doubles,
 * integers int64, whatever they are stored as. Paths are printf formats. Arrays live in the arena. What must be there
 * and is not ends the test (cmocka's fail).
 */
#ifndef SH_TESTS_GOLDEN_FILE_H
#define SH_TESTS_GOLDEN_FILE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"

typedef struct sh_golden_array {
  int ndim;
  int64_t dim[4], n;
  double *v;     /* sh_golden_read */
  int64_t *ints; /* sh_golden_ints */
} sh_golden_array;

enum { SH_GOLDEN_NAME = 128 };
typedef struct sh_golden_names {
  int n;
  char (*name)[SH_GOLDEN_NAME];
} sh_golden_names;

hid_t sh_golden_open(const char *path);
bool sh_golden_has(hid_t at, const char *path, ...) __attribute__((format(printf, 2, 3)));
sh_golden_array sh_golden_read(hid_t at, sh_arena *a, const char *path, ...) __attribute__((format(printf, 3, 4)));
sh_golden_array sh_golden_ints(hid_t at, sh_arena *a, const char *path, ...) __attribute__((format(printf, 3, 4)));

/* Members of a group in order of names: only groups, or only data sets. */
sh_golden_names sh_golden_list(hid_t at, sh_arena *a, bool groups, const char *path, ...)
    __attribute__((format(printf, 4, 5)));

/* Attributes of a group. */
double sh_golden_number(hid_t at, const char *name);
double sh_golden_number_or(hid_t at, const char *name, double otherwise);
void sh_golden_numbers(hid_t at, const char *name, int n, double *out);
void sh_golden_text(hid_t at, const char *name, char *out, size_t size); /* "" when absent */

#endif
