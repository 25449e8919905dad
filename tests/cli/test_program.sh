#!/bin/sh
# What every user of the program relies on: help, version, exit codes, one clear line for a mistake.
shoal=$1
failed=0
out=$(mktemp) || exit 1
err=$(mktemp) || exit 1
trap 'rm -f "$out" "$err"' EXIT

expect() { # exit code, words in the output, words on standard error ("" for none at all), command...
  code=$1 stdout=$2 stderr=$3
  shift 3
  "$@" >"$out" 2>"$err"
  got=$?
  problem=
  [ $got = "$code" ] || problem="exit code $got, expected $code"
  [ -z "$stdout" ] || grep -qF -- "$stdout" "$out" || problem="$problem; '$stdout' not on standard output"
  if [ -n "$stderr" ]; then
    grep -qF -- "$stderr" "$err" || problem="$problem; '$stderr' not on standard error"
    [ "$(wc -l <"$err")" = 1 ] || problem="$problem; more than one line on standard error"
  else
    [ ! -s "$err" ] || problem="$problem; something on standard error"
  fi
  [ -z "$problem" ] && return
  echo "$*: $problem"
  cat "$out" "$err"
  failed=1
}

expect 0 "usage: shoal COMMAND" "" "$shoal" --help
expect 0 "75           stopped on request" "" "$shoal" help
expect 0 "blas: BLIS" "" "$shoal" --version
expect 0 "blas under scalapack: the same" "" "$shoal" --version
expect 2 "" "no command given" "$shoal"
expect 2 "" "unknown command 'docter'; nearest is doctor" "$shoal" docter
expect 2 "" "unknown command 'xyzzy'" "$shoal" xyzzy
expect 2 "" "doctor: unknown option --foldre=x; nearest is --folder" "$shoal" doctor --foldre=x
expect 2 "" "doctor: --folder needs a value" "$shoal" doctor --folder
expect 2 "" "doctor: unexpected argument 'here'" "$shoal" doctor here
expect 0 "its dgemm_ is answered by" "" "$shoal" doctor
expect 1 "bad  folder" "doctor: 1 check failed" "$shoal" doctor --folder /nonexistent
[ ! -w /dev/full ] || expect 1 "" "standard output could not be written" sh -c '"$1" --help >/dev/full' sh "$shoal"

# Every command explains itself, with an example.
for command in $("$shoal" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
  expect 0 "example:" "" "$shoal" "$command" --help
  expect 0 "usage: shoal $command" "" "$shoal" "$command" --help
  expect 2 "" "$command: unknown option --no-such-thing" "$shoal" "$command" --no-such-thing
done
exit $failed
