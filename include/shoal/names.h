/* shoal/names.h: "unknown x; nearest is y". */
#ifndef SHOAL_NAMES_H
#define SHOAL_NAMES_H

#ifdef __cplusplus
extern "C" {
#endif

/* The entry of names[n] nearest to `word` by edit distance, or NULL when none is near (distance > 1 + length / 3). */
const char *sh_nearest(const char *word, const char *const *names, int n);

#ifdef __cplusplus
}
#endif
#endif
