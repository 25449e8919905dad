#!/bin/sh
# tests/cli/test_prepare.sh SHOAL: exit codes and what the user sees.
. "$(dirname "$0")/common.sh"

printf 'user,item,time\nann,x,20\nann,y,10\nbob,x,5\n' >"$dir/log.csv"
printf 'user,item,time\nann,x\nbob,x,5\n' >"$dir/broken.csv"
says 0 "  events         3" "$shoal" prepare --format csv "$dir/log.csv" -o "$dir/log.h5"
says 0 "1 users have one event" "$shoal" prepare --format csv "$dir/log.csv" --out "$dir/log.h5"
says 3 "broken.csv:2: 2 fields, expected 3" "$shoal" prepare --format csv "$dir/broken.csv" -o "$dir/broken.h5"
says 0 "warning: 1 malformed lines skipped" "$shoal" prepare --format csv "$dir/broken.csv" -o "$dir/b.h5" --skip-bad 1
says 2 "nearest is csv" "$shoal" prepare --format cvs "$dir/log.csv" -o "$dir/log.h5"
says 2 "--out is missing" "$shoal" prepare --format csv "$dir/log.csv"
says 2 "expected file or shuffle" "$shoal" prepare --format csv "$dir/log.csv" -o "$dir/log.h5" --ties random
says 3 "cannot be opened" "$shoal" prepare --format csv "$dir/none.csv" -o "$dir/log.h5"
says 0 "movielens" "$shoal" prepare --help
[ ! -e "$dir/broken.h5" ] && [ ! -e "$dir/broken.h5.partial" ] || complain "a failure left a file"
exit $failed
