#!/bin/sh
# tests/cli/test_train_disk.sh SHOAL: no space left while a checkpoint is written: exit code 5, one line, and the checkpoint
# before is whole and can be resumed from.
. "$(dirname "$0")/common.sh"

"$shoal" synth "$dir/data.h5" --preset toy --users 100 >/dev/null || exit 1
mkdir "$dir/disk"
recipe "$dir/run.yaml" model.width=256 model.layers=4 batch.users=32 train.out="$dir/disk/run" checkpoint.keep=1

# A limit of the size of files, as of a quota: large enough for the files that MPI makes for itself.
expect 1 0 "" train "$dir/run.yaml" train.epochs=1
kilobytes=$(($(wc -c <"$dir/disk/run/ckpt/latest.h5") / 1024))
cat >"$dir/limited.sh" <<END
#!/bin/sh
ulimit -f $((kilobytes * 3 / 2)) # of 512 bytes: three quarters of a checkpoint
exec "$shoal" "\$@"
END
chmod +x "$dir/limited.sh"
for n in 1 2; do
  before=$(cksum <"$dir/disk/run/ckpt/latest.h5")
  run $n "$dir/limited.sh" train "$dir/run.yaml" train.epochs=9 --resume
  if [ $code != 5 ] || [ "$(grep -c '^shoal: checkpoint not written' "$dir/err")" != 1 ]; then
    complain "file size limit, $n ranks: exit code $code, expected 5 and one line"
  fi
  [ "$before" = "$(cksum <"$dir/disk/run/ckpt/latest.h5")" ] || complain "file size limit: the checkpoint before has changed"
  [ -z "$(find "$dir/disk/run/ckpt" -name '*.partial')" ] || complain "file size limit: a .partial file is left"
  whole "$dir/disk/run" "file size limit"
  expect $n 0 "" resume "$dir/run.yaml" train.epochs=$((n + 2))
done

# A full disk, on 1 and 2 ranks: a file system with room for one checkpoint and a half.
unmount() { umount "$dir/disk" 2>/dev/null; }
trap 'unmount; rm -rf "$dir"' EXIT
room=$((kilobytes * 3 / 2 + 1024))
rm -rf "$dir/disk/run"
if mount -t tmpfs -o size=${room}k shoal-test "$dir/disk" 2>/dev/null; then
  for n in 1 2; do
    rm -rf "$dir/disk/run"
    expect $n 0 "" train "$dir/run.yaml" train.epochs=1 checkpoint.best=false
    before=$(cksum <"$dir/disk/run/ckpt/latest.h5")
    expect $n 5 "no space for a checkpoint" train "$dir/run.yaml" train.epochs=3 --resume
    [ "$before" = "$(cksum <"$dir/disk/run/ckpt/latest.h5")" ] || complain "full disk, $n ranks: the checkpoint before has changed"
    [ -z "$(find "$dir/disk/run/ckpt" -name '*.partial')" ] || complain "full disk, $n ranks: a .partial file is left"
    whole "$dir/disk/run" "full disk, $n ranks"
    mount -o remount,size=$((room * 4))k "$dir/disk"
    expect $n 0 "" resume "$dir/run.yaml" train.epochs=3
    mount -o remount,size=${room}k "$dir/disk" 2>/dev/null || {
      unmount
      mount -t tmpfs -o size=${room}k shoal-test "$dir/disk"
    }
  done
  unmount
else
  echo "a small file system cannot be mounted here: full disks are not tried, only the limit of file sizes"
fi

# A folder that cannot be written (root writes everywhere).
if [ "$(id -u)" != 0 ]; then
  mkdir "$dir/closed"
  chmod 555 "$dir/closed"
  expect 2 1 "closed" train "$dir/run.yaml" train.epochs=1 train.out="$dir/closed/run"
  chmod 755 "$dir/closed"
fi
exit $failed
