#!/bin/sh
# tests/slurm/cluster.sh NODES DIR COMMAND...: start a real Slurm of NODES nodes (n1, n2, ...; 2 CPUs each) on this
# machine, run COMMAND on its head, end everything; exit with COMMAND's status. For root. DIR, made by the caller, holds
# keys, state and logs. All of it lives in namespaces of its own (processes, mounts, network, names), so that nothing
# outside of DIR changes and the kernel ends every process with the first one, however that ends.
set -eu

net=10.77.0
wait_for() { # seconds what command...
  limit=$1 what=$2
  shift 2
  end=$(($(date +%s) + limit))
  until "$@"; do
    if [ "$(date +%s)" -ge $end ]; then
      echo "slurm cluster: $what: not within $limit s" >&2
      return 1
    fi
    sleep 0.5
  done
}

write_conf() { # nodes dir
  cat >"$2/slurm.conf" <<CONF
ClusterName=shoal
SlurmctldHost=head($net.254)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$2/munge.sock,cred_expire=5
StateSaveLocation=$2/state
SlurmdSpoolDir=$2/spool
SlurmctldPidFile=$2/slurmctld.pid
SlurmdPidFile=$2/%n.pid
SlurmctldLogFile=$2/slurmctld.log
SlurmdLogFile=$2/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
MessageTimeout=60
SlurmdTimeout=120
KillWait=5
NodeName=n[1-$1] CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
CONF
  echo "PMIxCliTmpDirBase=/var/tmp" >"$2/mpi.conf" # one /var/tmp per node, or the nodes' PMIx servers collide
  {
    echo "127.0.0.1 localhost"
    echo "$net.254 head"
    for i in $(seq "$1"); do echo "$net.$i n$i"; done
  } >"$2/hosts"
}

# A node: its own network, name, shared memory (ranks of two nodes must not see each other's) and temporary files.
node() { # i dir
  mount --bind "$2/n$1/shm" /dev/shm
  mount --bind "$2/n$1/spool" "$2/spool"
  mount -t tmpfs none /var/tmp
  hostname "n$1"
  ip link set lo up
  touch "$2/n$1/waiting"
  wait_for 60 "n$1's network" test -e "$2/n$1/connected"
  exec slurmd -D -N "n$1" >"$2/n$1.out" 2>&1
}

start_node() { # i dir
  mkdir -p "$2/n$1/shm" "$2/n$1/spool"
  unshare --net --mount --uts --ipc sh "$0" --node "$1" "$2" &
  pid=$!
  wait_for 60 "node n$1" test -e "$2/n$1/waiting"
  ip link add "v$1" type veth peer name eth0 netns "$pid"
  ip link set "v$1" master br0 up
  nsenter --net="/proc/$pid/ns/net" sh -c "ip addr add $net.$1/24 dev eth0 && ip link set eth0 up"
  touch "$2/n$1/connected"
}

all_idle() { [ "$(sinfo -h -p main -t idle -o %D 2>/dev/null)" = "$1" ]; }

head_node() { # nodes dir command...
  nodes=$1 dir=$2
  shift 2
  trap 'exit 130' INT
  trap 'exit 143' TERM
  export SLURM_CONF="$dir/slurm.conf"
  chmod 711 "$dir" # munge wants its socket to be reachable by all
  write_conf "$nodes" "$dir"
  mkdir -p "$dir/state" "$dir/spool"
  mount --bind "$dir/hosts" /etc/hosts
  hostname head
  ip link set lo up
  ip link add br0 type bridge
  ip addr add $net.254/24 dev br0
  ip link set br0 up
  dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 2>/dev/null
  chmod 400 "$dir/munge.key"
  munged --key-file="$dir/munge.key" --socket="$dir/munge.sock" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" --num-threads=2
  slurmctld -D >"$dir/slurmctld.out" 2>&1 &
  for i in $(seq "$nodes"); do start_node "$i" "$dir"; done
  if ! wait_for 120 "all nodes idle" all_idle "$nodes"; then
    sinfo || true
    tail -n 20 "$dir"/*.log "$dir"/*.out
    return 1
  fi
  sinfo
  status=0
  "$@" || status=$?
  scontrol shutdown >/dev/null 2>&1 || true
  return $status
}

case "$1" in
--node) shift && node "$@" ;;
--head) shift && head_node "$@" ;;
*) exec unshare --fork --pid --kill-child --mount-proc --mount --net --uts --ipc sh "$0" --head "$@" ;;
esac
