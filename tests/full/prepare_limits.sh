#!/bin/sh
# tests/full/prepare_limits.sh SHOAL [EVENTS]: shoal prepare must read 20 million CSV events in less than 2 GiB of resident
# memory and 60 seconds on one core. Needs 1.2 GB of disk under ${TMPDIR:-/tmp}.
set -eu
shoal=$1
events=${2:-20000000}
limit_kb=2097152
limit_s=60
dir=$(mktemp -d "${TMPDIR:-/tmp}/shoal-limits.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cat >"$dir/make.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
int main(int argc, char **argv) { /* 1 M users, 500 k items, string keys, times out of order */
  long n = argc > 1 ? atol(argv[1]) : 0;
  uint64_t s = 88172645463325252u;
  puts("user_id,item_id,rating,timestamp");
  for (long i = 0; i < n; i++) {
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    uint64_t a = s % 1000000, b = (s >> 20) % 500000 * ((s >> 44) % 500000) / 500000;
    printf("u%llu,B0%llu,%llu,%llu\n", (unsigned long long)a, (unsigned long long)b, (unsigned long long)(s >> 60) % 5 + 1,
           (unsigned long long)(1500000000 + (s >> 30) % 50000000));
  }
}
C
cat >"$dir/measure.c" <<'C'
#include <stdio.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) { /* FILE COMMAND...: seconds (wall) and largest resident set in KiB to FILE */
  struct timeval a, b;
  struct rusage u;
  int status;
  if (argc < 3) return 125;
  gettimeofday(&a, NULL);
  pid_t child = fork();
  if (child == 0) {
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  if (wait4(child, &status, 0, &u) < 0) return 125;
  gettimeofday(&b, NULL);
  FILE *f = fopen(argv[1], "w");
  if (!f) return 125;
  fprintf(f, "%.1f %ld\n", (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_usec - a.tv_usec), u.ru_maxrss);
  fclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
C
cc -O2 -o "$dir/make" "$dir/make.c"
cc -O2 -o "$dir/measure" "$dir/measure.c"
"$dir/make" "$events" >"$dir/log.csv"
one_core=
command -v taskset >/dev/null && one_core="taskset -c $(taskset -cp $$ | sed 's/.*: //; s/[,-].*//')"
$one_core "$dir/measure" "$dir/used" "$shoal" prepare --format csv "$dir/log.csv" --out "$dir/log.h5" >"$dir/report"
cat "$dir/report"
read -r seconds kb <"$dir/used"
echo "prepare: $events events in $seconds s, $((kb / 1024)) MiB resident"
grep -q "^  events  *$events\$" "$dir/report" || { echo "FAILED: the report does not say $events events"; exit 1; }
[ "$kb" -lt $limit_kb ] || { echo "FAILED: more than 2 GiB resident"; exit 1; }
awk -v s="$seconds" -v l=$limit_s 'BEGIN { exit !(s < l) }' || { echo "FAILED: more than $limit_s s"; exit 1; }
