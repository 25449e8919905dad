/* shoal/version.h: what this build is and which libraries answer at run time. */
#ifndef SHOAL_VERSION_H
#define SHOAL_VERSION_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

const char *sh_version(void); /* "0.1.0" */
const char *sh_commit(void);  /* "9337742b1c0d", "9337742b1c0d-dirty", or "unknown" outside a git checkout */

/* Everything `shoal --version` prints, as lines "name: value"; the text stays valid. Needs no MPI_Init. The first call
 * is not thread-safe. */
const char *sh_build_info(void);

/* The file that the loader binds the BLAS routine `symbol` ("dgemm_") to for this process, or "" when there is none. */
const char *sh_blas_file(const char *symbol);

/* The same for calls made inside ScaLAPACK: read from its own relocation table. */
const char *sh_blas_file_under_scalapack(const char *symbol);

/* Parts of the above that other folders know. */
const char *sh_mpi_library_version(void); /* "Open MPI v4.1.4" */
const char *sh_h5_library_version(void);  /* "1.10.8, parallel" */
const char *sh_kernels_isa(void);         /* "avx512" */
const char *sh_kernels_bf16_name(void);   /* what train.precision=bf16 runs: "avx512_bf16", "avx2, emulated" */

#ifdef __cplusplus
}
#endif
#endif
