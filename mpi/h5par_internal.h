/* mpi/h5par_internal.h: what the files of h5par share. Included by h5par*.c only. */
#ifndef SH_MPI_H5PAR_INTERNAL_H
#define SH_MPI_H5PAR_INTERNAL_H

#include <hdf5.h>

#include "mpi/h5par.h"

/* HDF5's own bytes (headers, attributes, links) of a file being written: kept in memory until the file is closed. */
typedef struct sh_h5_page {
  int64_t at;          /* offset / SH_H5_PAGE */
  unsigned char *data; /* [SH_H5_PAGE] bytes, then [SH_H5_PAGE] marks: 1 where HDF5 has written */
} sh_h5_page;
typedef struct sh_h5_pages {
  sh_h5_page *page;
  int n, capacity, last;
  int64_t end; /* bytes of the file that HDF5 has given out */
} sh_h5_pages;
enum { SH_H5_PAGE = 4096 };

/* Make `access` use the driver over `store`. */
bool sh_h5_pages_driver(hid_t access, sh_h5_pages *store);
/* Write the pages to a file and set its length. 0 or errno. */
int sh_h5_pages_flush(const sh_h5_pages *store, int fd);
void sh_h5_pages_free(sh_h5_pages *store);

struct sh_h5 {
  char *path;
  sh_axis axis;
  bool root;  /* index 0: the one rank that holds HDF5's handle */
  hid_t file; /* root only */
  int fd;     /* every rank: array bytes go through here */
  bool writing;
  sh_status failed; /* first failure of a file being written */
  char *message;    /* its text */
  sh_h5_pages pages;
};

/* Where an array lies. */
typedef struct sh_h5_place {
  sh_h5_type type;
  int ndim; /* 0 (a single value), 1, 2 */
  int64_t dim[2];
  int64_t offset; /* in the file; -1: not contiguous */
  bool as_memory; /* stored in this machine's byte order */
} sh_h5_place;
sh_status sh_h5_place_of(sh_h5 *f, const char *name, sh_h5_place *out); /* [C] */

hid_t sh_h5_native(sh_h5_type t);

/* Create the groups on the way to `name`, and `name` itself when it is missing and `whole`. Root only. */
sh_status sh_h5_groups(sh_h5 *f, const char *name, bool whole);

/* Record "path: object: what: innermost HDF5 message" with the code that fits the file's direction. */
sh_status sh_h5_fail(const sh_h5 *f, const char *object, const char *what);

/* Root's outcome and result for all ranks. */
sh_status sh_h5_from_root(sh_h5 *f, sh_status status, void *result, size_t bytes);

/* A step of writing is over on this rank: one rank returns the outcome as it is, several keep a failure for
 * sh_h5_reserve and sh_h5_close, so that creating hundreds of arrays costs no message. */
sh_status sh_h5_step(sh_h5 *f, sh_status status);

#endif
