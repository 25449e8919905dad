#!/bin/sh
# tests/cli/test_train_memory.sh SHOAL [USERS]: no process holds the data set: training runs under a limit of private memory
# below the size of the file, and its resident memory stays below it too. 10,000 users have 16 million events (258 MB).
. "$(dirname "$0")/common.sh"
users=${2:-5000}

"$shoal" synth "$dir/data.h5" --preset toy --users "$users" --items 3000 --min-length 1000 --mean-length 1600 \
  --max-length 2500 >/dev/null || exit 1
bytes=$(wc -c <"$dir/data.h5")
limit=$((bytes * 4 / 5 / 1024)) # KB
recipe "$dir/run.yaml" model.layers=1 model.max_len=30 batch.users=64 train.steps=20 train.log_every=5 \
  train.out="$dir/run"
# Each rank runs under the limit and keeps the largest resident size the system has seen of it.
cat >"$dir/limited.sh" <<END
#!/bin/sh
ulimit -d $limit
"$shoal" "\$@" &
pid=\$!
while kill -0 \$pid 2>/dev/null; do
  sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' /proc/\$pid/status >"$dir/now.\$\$" 2>/dev/null
  [ ! -s "$dir/now.\$\$" ] || mv "$dir/now.\$\$" "$dir/top.\${OMPI_COMM_WORLD_RANK:-0}"
  sleep 0.05
done
wait \$pid
END
chmod +x "$dir/limited.sh"
for n in 1 2; do
  rm -f "$dir"/top.*
  run $n "$dir/limited.sh" train "$dir/run.yaml" train.out="$dir/run.$n"
  [ $code = 0 ] || complain "$n ranks: exit code $code under a limit of $limit KB"
  for top in "$dir"/top.*; do
    [ "$(cat "$top")" -lt $((bytes / 1024)) ] || complain "$n ranks: $(cat "$top") KB resident, the data set has $((bytes / 1024))"
  done
  echo "$n ranks: data set $((bytes / 1024)) KB, limit $limit KB, resident at most $(cat "$dir"/top.* | sort -n | tail -n 1) KB"
done
exit $failed
