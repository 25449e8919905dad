/* core/arena.h: memory by lifetime.
 *
 *   run     parameters, optimiser state, tables      freed at the end
 *   batch   two, swapped: this batch and the next    reset when refilled
 *   step    activations, tapes, gradients of slots   reset at the start of a step
 *   scratch inside one call                          mark / release
 *
 * An arena is a list of huge-page-backed regions. Allocation is a pointer bump; a region is added when none fits, and
 * sh_alloc_count() counts those, so that a test can state "no allocation in a step after warm-up". On reset several
 * regions are replaced by one of their total size at the next allocation, so a warmed-up arena is one region.
 * An arena belongs to one thread at a time.
 */
#ifndef SH_CORE_ARENA_H
#define SH_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct sh_region sh_region;
typedef struct sh_arena {
  const char *name;
  sh_region *head; /* newest region */
  size_t used;     /* bytes handed out since reset */
  size_t peak;
  size_t want; /* size of the next region, at least */
} sh_arena;

void sh_arena_init(sh_arena *a, const char *name);

/* `bytes` aligned to 64, contents undefined. Aborts the process with a message when the system has no memory. */
void *sh_arena_alloc(sh_arena *a, size_t bytes);
void *sh_arena_zalloc(sh_arena *a, size_t bytes);
#define SH_ARENA_NEW(arena, type, n)  ((type *)sh_arena_alloc((arena), sizeof(type) * (size_t)(n)))
#define SH_ARENA_ZNEW(arena, type, n) ((type *)sh_arena_zalloc((arena), sizeof(type) * (size_t)(n)))

void sh_arena_reset(sh_arena *a); /* everything handed out dies */

/* An empty arena: make the next `bytes` come from one region. What was there goes back first, so that a larger batch
 * than ever never holds two regions. */
void sh_arena_reserve(sh_arena *a, size_t bytes);
void sh_arena_free(sh_arena *a);

/* Release everything handed out since the mark (last in, first out). */
typedef struct sh_arena_mark {
  sh_region *head;
  size_t head_used, used;
} sh_arena_mark;
sh_arena_mark sh_arena_save(const sh_arena *a);
void sh_arena_release(sh_arena *a, sh_arena_mark mark);

/* Number of memory requests to the system so far, by arenas and by sh_malloc. */
int64_t sh_alloc_count(void);

/* malloc/calloc/realloc that abort with a message when memory is out, and count. Free with free(). */
void *sh_malloc(size_t bytes);
void *sh_calloc(size_t n, size_t bytes);
void *sh_realloc(void *p, size_t bytes);
char *sh_strdup(const char *s);

/* A huge-page-backed block (2 MiB aligned, MADV_HUGEPAGE, untouched): tables. Free with sh_pages_free. */
void *sh_pages_alloc(size_t bytes);
void sh_pages_free(void *p, size_t bytes);

#endif
