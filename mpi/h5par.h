/* mpi/h5par.h: HDF5 files, serial or parallel, behind a small interface: arrays of one or two dimensions, attributes,
 * slabs. The only place that knows <hdf5.h>.
 *
 * A file is opened over an axis; if that has several ranks, every call is collective over it, with the same arguments
 * except where a slab differs by rank ([C] marks calls whose work is shared). Rank 0 alone holds HDF5's handle; array
 * bytes go straight between every rank and the file (h5par.c says why not through MPI-IO). An axis of size 1 needs no
 * MPI. Paths are absolute ("/features/item"); missing groups are created. Files use format bounds V110 (metadata
 * carries checksums), layout is contiguous with early allocation and no fill, so an array's bytes stand at one offset
 * of the file. A file's bytes are the same for every number of ranks. Until sh_h5_close returns it is no valid HDF5
 * file. Failures return SH_ERR_DATA when reading and SH_ERR_INTERNAL when writing, with file and path in the message;
 * HDF5's own stack is silenced and its innermost message quoted. Failures agree on all ranks. Writing on several ranks,
 * a failure is kept and returned by the next sh_h5_reserve or sh_h5_close: the calls between return SH_OK everywhere.
 */
#ifndef SH_MPI_H5PAR_H
#define SH_MPI_H5PAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/grid.h"

typedef struct sh_h5 sh_h5;
typedef enum sh_h5_type { SH_H5_U8, SH_H5_I32, SH_H5_I64, SH_H5_U64, SH_H5_F32, SH_H5_F64 } sh_h5_type; /* native LE */
size_t sh_h5_type_size(sh_h5_type t);

sh_status sh_h5_create(sh_h5 **out, const char *path, const sh_axis *axis); /* [C] truncates */
sh_status sh_h5_open(sh_h5 **out, const char *path, const sh_axis *axis);   /* [C] read only */
/* Ask the file system for the space of all arrays created so far, so that a full disk shows here, on one rank, and not
 * in the middle of collective transfers. Where it cannot reserve (NFS 3), nothing happens. */
sh_status sh_h5_reserve(sh_h5 *f);          /* [C] */
sh_status sh_h5_close(sh_h5 *f, bool sync); /* [C] sync: flush and fsync before it returns; frees f in any case */

/* Arrays: ndim 1 or 2, row major. */
sh_status sh_h5_array_create(sh_h5 *f, const char *name, sh_h5_type type, int ndim, const int64_t dim[2]); /* [C] */
sh_status sh_h5_array_info(sh_h5 *f, const char *name, sh_h5_type *type, int *ndim, int64_t dim[2]);
bool sh_h5_exists(sh_h5 *f, const char *name);

/* A rectangle: start[ndim], count[ndim]; data is tight with row length ld elements (0: count[1]). A rank with nothing
 * passes count {0, 0}. Type conversion between numeric types is HDF5's. */
sh_status sh_h5_write(sh_h5 *f, const char *name, sh_h5_type type, const int64_t start[2], const int64_t count[2],
                      int64_t ld, const void *data); /* [C] */
sh_status sh_h5_read(sh_h5 *f, const char *name, sh_h5_type type, const int64_t start[2], const int64_t count[2],
                     int64_t ld, void *data); /* [C] on a file opened over an axis of size > 1 */

/* Byte offset of an array in the file (contiguous layout), for pread. SH_ERR_DATA when it has none. */
sh_status sh_h5_offset(sh_h5 *f, const char *name, int64_t *offset);

/* Attributes of a group or array ("/" is the file). Strings are fixed-length byte attributes. */
sh_status sh_h5_attr_write_text(sh_h5 *f, const char *object, const char *name, const char *text); /* [C] */
sh_status sh_h5_attr_write_i64(sh_h5 *f, const char *object, const char *name, int64_t v);         /* [C] */
sh_status sh_h5_attr_write_f64(sh_h5 *f, const char *object, const char *name, double v);          /* [C] */
sh_status sh_h5_attr_read_text(sh_h5 *f, const char *object, const char *name, char *out, size_t size);
sh_status sh_h5_attr_read_i64(sh_h5 *f, const char *object, const char *name, int64_t *v);
sh_status sh_h5_attr_read_f64(sh_h5 *f, const char *object, const char *name, double *v);
/* 't' text, 'i' integer, 'f' real number, '?' anything else. */
sh_status sh_h5_attr_kind(sh_h5 *f, const char *object, const char *name, char *kind);
bool sh_h5_attr_exists(sh_h5 *f, const char *object, const char *name);

/* Calls visit for every child of a group ("/" too), in name order: full path, whether it is a group. */
sh_status sh_h5_each(sh_h5 *f, const char *group, sh_status (*visit)(sh_h5 *f, const char *path, bool group, void *arg),
                     void *arg);
/* Calls visit for every attribute name of an object, in name order. */
sh_status sh_h5_each_attr(sh_h5 *f, const char *object,
                          sh_status (*visit)(sh_h5 *f, const char *object, const char *name, void *arg), void *arg);

const char *sh_h5_path(const sh_h5 *f);
const char *sh_h5_library_version(void); /* "1.10.8, parallel" */

#endif
