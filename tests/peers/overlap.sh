#!/bin/sh
# tests/peers/overlap.sh SHOAL [NODES [MODE...]]: how much communication hides behind arithmetic (docs/SCALING.md). Makes
# NODES (2) virtual nodes of one core each, joined by links of RATE (1gbit), runs `shoal bench --only overlap` on them
# once for each MODE of comm.progress (thread poll none), and takes all down again. For root, with iproute2.
#
# Environment: RATE, MTU (9000), STEPS (measured steps of each variant), SET (more section.key=value), MPIRUN (more options of mpirun),
# ONLY (section of the bench), COMMAND (what shoal does instead of the bench: docs/SCALING.md predicts steps this way).
#
# All of it lives in namespaces of its own (processes, mounts, network, names): nothing outside changes, and the kernel
# ends every process and every device with the first one, however that ends.
set -eu

net=10.78.0
rate=${RATE:-1gbit}
mtu=${MTU:-9000}
steps=${STEPS:-12}

# HSTU, D = 256, 8 layers; 32 users with 200 inputs each and 4,096 shared negatives a step.
config="model.name=hstu model.width=256 model.layers=8 model.heads=4 model.max_len=200 bench.length=200
  bench.items=100000 bench.users=128 batch.users=32 loss.name=shared loss.negatives=4096 table.optim=adam_lazy"

wait_for() { # what command...
  what=$1 left=100
  shift
  until "$@"; do
    left=$((left - 1))
    [ $left -gt 0 ] || { echo "overlap: $what: not within 10 s" >&2; exit 1; }
    sleep 0.1
  done
}

# A node: its own network, name and shared memory (ranks of two nodes must not see each other's).
node() { # i dir
  hostname "n$1"
  ip link set lo up
  mount -t tmpfs none /dev/shm
  echo ready >"$2/ready$1"
  exec sleep infinity
}

shape() { tc qdisc add dev "$1" root tbf rate "$rate" burst 256kb latency 50ms; }

start_node() { # i dir
  unshare --net --mount --uts --ipc sh "$0" --node "$1" "$2" &
  echo $! >"$2/pid$1"
  wait_for "node n$1" test -e "$2/ready$1"
  pid=$(cat "$2/pid$1")
  ip link add "v$1" type veth peer name eth0 netns "$pid"
  ip link set "v$1" mtu "$mtu" master br0 up
  shape "v$1"
  nsenter --net="/proc/$pid/ns/net" sh -c "ip addr add $net.$1/24 dev eth0 && ip link set eth0 mtu $mtu up"
  nsenter --net="/proc/$pid/ns/net" sh "$0" --shape eth0
}

# What mpirun takes for ssh: HOST COMMAND...
agent() {
  i=${1#n}
  shift
  exec nsenter --net --mount --uts --ipc --target "$(cat "$OVERLAP_DIR/pid$i")" sh -c "$*"
}

# A rank: one core, that of its node.
rank() {
  cores=$(nproc --all) # plain nproc answers OMP_NUM_THREADS
  exec taskset -c $((OMPI_COMM_WORLD_RANK % cores)) "$@"
}

inside() { # dir shoal nodes mode...
  dir=$1 shoal=$2 nodes=$3
  shift 3
  mount -t tmpfs none "$dir"
  cp "$0" "$dir/overlap.sh"
  {
    echo "127.0.0.1 localhost"
    for i in $(seq "$nodes"); do echo "$net.$i n$i"; done
  } >"$dir/hosts"
  mount --bind "$dir/hosts" /etc/hosts
  ip link set lo up
  ip link add br0 type bridge
  ip link set br0 up
  hosts=
  for i in $(seq "$nodes"); do
    start_node "$i" "$dir"
    hosts=$hosts${hosts:+,}n$i:1
  done
  printf '#!/bin/sh\nexec sh "%s" --agent "$@"\n' "$0" >"$dir/agent"
  chmod +x "$dir/agent"
  export OVERLAP_DIR="$dir" TMPDIR="$dir" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive SHOAL_LOG=normal
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  for mode; do
    command=${COMMAND:-bench $config --only ${ONLY:-overlap} --steps $steps ${SET:-}}
    # shellcheck disable=SC2086 # lists of arguments
    nsenter --net --mount --uts --ipc --target "$(cat "$dir/pid1")" \
      mpirun --host "$hosts" -n "$nodes" --bind-to none --mca plm_rsh_agent "$dir/agent" --mca btl tcp,self \
      --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --mca plm_rsh_no_tree_spawn 1 ${MPIRUN:-} \
      sh "$0" --rank "$shoal" $command "comm.progress=$mode"
  done
}

case "${1:-}" in
--node | --agent | --rank | --inside | --shape)
  what=${1#--}
  shift
  "$what" "$@"
  ;;
"")
  echo "usage: tests/peers/overlap.sh SHOAL [NODES [MODE...]]" >&2
  exit 2
  ;;
*)
  shoal=$(realpath "$1") nodes=${2:-2}
  [ $# -gt 2 ] && shift 2 || set -- thread poll none
  dir=$(mktemp -d)
  trap 'rmdir "$dir"' EXIT # what was in it went with its mount
  self=$(realpath "$0")
  unshare --fork --pid --kill-child --mount-proc --mount --net --uts --ipc sh "$self" --inside "$dir" "$shoal" "$nodes" "$@"
  ;;
esac
