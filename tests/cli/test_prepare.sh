#!/bin/sh
# tests/cli/test_prepare.sh SHOAL: exit codes and what the user sees.
set -u
shoal=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0
expect() { # code text command...
  code=$1 text=$2
  shift 2
  "$@" >"$dir/out" 2>&1
  got=$?
  if [ $got != "$code" ] || ! grep -qF -- "$text" "$dir/out"; then
    echo "expected exit $code and '$text', got $got:" "$@"
    sed 's/^/  /' "$dir/out"
    bad=1
  fi
}
printf 'user,item,time\nann,x,20\nann,y,10\nbob,x,5\n' >"$dir/log.csv"
printf 'user,item,time\nann,x\nbob,x,5\n' >"$dir/broken.csv"
expect 0 "  events         3" "$shoal" prepare --format csv "$dir/log.csv" -o "$dir/log.h5"
expect 0 "1 users have one event" "$shoal" prepare --format csv "$dir/log.csv" --out "$dir/log.h5"
expect 3 "broken.csv:2: 2 fields, expected 3" "$shoal" prepare --format csv "$dir/broken.csv" -o "$dir/broken.h5"
expect 0 "warning: 1 malformed lines skipped" "$shoal" prepare --format csv "$dir/broken.csv" -o "$dir/b.h5" --skip-bad 1
expect 2 "nearest is csv" "$shoal" prepare --format cvs "$dir/log.csv" -o "$dir/log.h5"
expect 2 "--out is missing" "$shoal" prepare --format csv "$dir/log.csv"
expect 2 "expected file or shuffle" "$shoal" prepare --format csv "$dir/log.csv" -o "$dir/log.h5" --ties random
expect 3 "cannot be opened" "$shoal" prepare --format csv "$dir/none.csv" -o "$dir/log.h5"
expect 0 "movielens" "$shoal" prepare --help
[ ! -e "$dir/broken.h5" ] && [ ! -e "$dir/broken.h5.partial" ] || { echo "a failure left a file"; bad=1; }
exit $bad
