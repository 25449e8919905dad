/* support/folder.h: the folder of a test's files, below $TMPDIR or /tmp.
 *
 *   folder_make(NULL);                          or both as a set-up and a tear-down of CMocka's
 *   sh_dataset_write(&c, in_folder("data.h5"));
 *   folder_remove(NULL);
 *
 * With MPI up both are collective over MPI_COMM_WORLD, and the folder is one for all ranks.
 */
#ifndef SH_TESTS_FOLDER_H
#define SH_TESTS_FOLDER_H

#include <stdbool.h>

/* 0, or -1 with a message: CMocka then fails the test. */
int folder_make(void **state);
int folder_remove(void **state); /* and all that is in it */

const char *folder_name(void);
const char *in_folder(const char *name); /* the full name of a file of it; there until folder_remove */

/* What one process does for all: the first rank, or the only process; then folder_wait, for all to see it. */
bool folder_mine(void);
void folder_wait(void);

#endif
