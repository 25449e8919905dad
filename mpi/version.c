#include "shoal/version.h"

#include <mpi.h>
#include <string.h>

/* The first part of the library's own text: up to a comma or line end. */
const char *sh_mpi_library_version(void) {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (!*text && MPI_Get_library_version(text, &length) != MPI_SUCCESS) strcpy(text, "unknown");
  text[strcspn(text, ",\n")] = 0;
  return text;
}
