#!/usr/bin/env bash
# A Keyward cluster on this machine, for development and for a first look.
usage() {
  cat <<'USAGE'
usage: local/cluster.sh COMMAND

  start [--mode cluster|sentinel] [--shards N] [--replicas M]
                        build what is not built, start three sentinels s1-s3 and N*(1+M) nodes n1, n2 ...
                        (one shard with two replicas, if not told otherwise) and wait until they serve
  stop                  end all processes in order; the data stays
  status                processes, shards, roles and in-sync sets
  logs [-f] [NAME ...]  the end of the logs; -f follows them
  cli [NAME] [COMMAND ...]
                        redis-cli or valkey-cli on the cluster, or on the one process NAME
  kill NAME             end one process as a crash would (SIGKILL)
  restart NAME          end one process in order if it runs, start it, and wait until all serve
  destroy [--keep-data] stop, and delete the data unless told to keep it

Environment:
  VALKEY_PASSWORD               password of the nodes              (dev-valkey-password)
  KEYWARD_LOCAL_DATA            where data, logs and PIDs are      (local/data)
  KEYWARD_LOCAL_PORT            port of n1; n2, n3 ... follow      (6379)
  KEYWARD_LOCAL_SENTINEL_PORT   port of s1; s2 and s3 follow       (26379)
  KEYWARD_LOCAL_NODE_ARGS       more flags for every keyward-node, such as "--io-threads 1"
  KEYWARD_BIN_DIR               ready programs, instead of building them
Every process also uses its port + 10000, for the others of the cluster.
USAGE
}
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
host=127.0.0.1
stop_seconds=15     # for an orderly end; then SIGKILL
serve_seconds=90    # for all to serve after a start

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

# --- What was started: kept in $data/cluster.conf, so that later commands need no options ---

data=${KEYWARD_LOCAL_DATA:-$repository/local/data}
case $data in /*) ;; *) data=$PWD/$data ;; esac
state=$data/cluster.conf

# Prints a value of the state file.
stored() {
  if [[ -f $state ]]; then sed -n "s/^$1=//p" "$state"; fi
}

# settle NAME GIVEN DEFAULT: the value for this cluster. What the data was made with cannot be changed.
settle() {
  local old
  old=$(stored "$1")
  [[ -z $old || -z $2 || $old == "$2" ]] ||
    die "the cluster in $data has $1 $old, not $2 (local/cluster.sh destroy removes it)"
  echo "${2:-${old:-$3}}"
}

settings() {
  mode=$(settle mode "${1:-}" cluster)
  shards=$(settle shards "${2:-}" 1)
  replicas=$(settle replicas "${3:-}" 2)
  port=$(settle port "${KEYWARD_LOCAL_PORT:-}" 6379)
  sentinel_port=$(settle sentinel-port "${KEYWARD_LOCAL_SENTINEL_PORT:-}" 26379)
  [[ $mode == cluster || $mode == sentinel ]] || die "--mode is cluster or sentinel, not '$mode'"
  local number
  for number in "$shards" "$replicas" "$port" "$sentinel_port"; do
    [[ $number =~ ^[0-9]{1,5}$ ]] || die "'$number' is not a number in range"
  done
  ((0 < shards)) || die "--shards is at least 1"
  [[ $mode == cluster || $shards == 1 ]] || die "--mode sentinel has one shard"
  nodes=$((shards * (1 + replicas)))
  ((port + nodes <= 55536 && sentinel_port + 3 <= 55536)) || die "a port + 10000 would be above 65535"
  names=(s1 s2 s3)
  for ((number = 1; number <= nodes; number++)); do names+=("n$number"); done
  # A running cluster has the password that it was started with.
  password=${VALKEY_PASSWORD:-}
  if [[ -z $password ]] || any_running; then password=$(stored password); fi
  password=${password:-dev-valkey-password}
  [[ $password != *$'\n'* ]] || die "VALKEY_PASSWORD must be one line"
}

save_settings() {
  mkdir -p "$data"
  (
    umask 077
    printf '%s=%s\n' mode "$mode" shards "$shards" replicas "$replicas" port "$port" \
      sentinel-port "$sentinel_port" password "$password" >"$state"
  )
}

known_name() {
  local name
  for name in "${names[@]}"; do [[ $name != "${1:-}" ]] || return 0; done
  return 1
}

# The port of s2, n3 ...
port_of() {
  case $1 in
    s*) echo $((sentinel_port + ${1#s} - 1)) ;;
    n*) echo $((port + ${1#n} - 1)) ;;
  esac
}

# --- Processes ---

# Prints the PID of NAME if it runs. A PID file alone proves nothing: the PID may be another program's by now.
pid_of() {
  local pid command
  pid=$(cat "$data/$1.pid" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] || return 1
  if [[ -d /proc/self ]]; then
    command=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 1
  else
    command=$(ps -p "$pid" -o command= 2>/dev/null) || return 1
  fi
  [[ $command == *keyward-*" $data/$1/"* ]] && echo "$pid"
}

runs() { pid_of "$1" >/dev/null; }

any_running() {
  local file
  for file in "$data"/*.pid; do
    file=${file##*/}
    if runs "${file%.pid}"; then return 0; fi
  done
  return 1
}

is_taken() { (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; }

# A value for a conf file: the quotes protect blanks and '#'.
quoted() {
  local value=${1//\\/\\\\}
  echo "\"${value//\"/\\\"}\""
}

# The sentinels' bus addresses, each behind the given format's name.
sentinel_list() {
  local number list=
  # shellcheck disable=SC2059  # the argument is the format
  for number in 1 2 3; do
    list+=,$(printf "$1" "$number")$host:$((sentinel_port + 9999 + number))
  done
  echo "${list#,}"
}

# Writes NAME's conf file. The password is not given as a flag: flags can be read by every user.
configure() {
  local name=$1 dir=$data/$1
  mkdir -p "$dir"
  (
    umask 077
    {
      echo "# Written by local/cluster.sh at each start."
      echo "port $(port_of "$name")"
      echo "bind $host"
      echo "dir $(quoted "$dir")"
      if [[ $name == s* ]]; then
        printf '%s\n' "name $name" "initial $(sentinel_list 's%d=')" "shards $shards" "replicas $replicas"
      else
        printf '%s\n' "sentinels $(sentinel_list '')" "cluster-announce-ip $host" "appendonly yes"
        printf '%s %s\n' cluster-enabled "$([[ $mode == cluster ]] && echo yes || echo no)" \
          requirepass "$(quoted "$password")" primaryauth "$(quoted "$password")"
      fi
    } >"$dir/keyward.conf"
  )
}

launch() {
  local name=$1 program=keyward-node extra=${KEYWARD_LOCAL_NODE_ARGS:-} number tick
  if [[ $name == s* ]]; then program=keyward-sentinel extra=; fi
  for number in $(($(port_of "$name"))) $(($(port_of "$name") + 10000)); do
    if is_taken "$number"; then die "port $number, needed by $name, is taken by another program"; fi
  done
  configure "$name"
  # Job control gives it a process group of its own: Ctrl-C in this terminal is not meant for it.
  set -m
  # shellcheck disable=SC2086  # the extra flags are words
  (trap '' HUP && exec "$bin/$program" "$data/$name/keyward.conf" $extra) \
    >>"$data/$name.log" 2>&1 </dev/null &
  echo $! >"$data/$name.pid"
  disown
  set +m
  # Until the shell has become the program, its PID does not look like ours.
  for ((tick = 0; tick < 20; tick++)); do
    if runs "$name"; then return; fi
    sleep 0.05
  done
  die "$name does not start: $(tail -n 1 "$data/$name.log")"
}

# Asks the named processes to end, waits, and kills what is still there.
end() {
  local name tick pid left=()
  for name in "$@"; do
    if pid=$(pid_of "$name"); then
      kill -TERM "$pid" 2>/dev/null || true
      left+=("$name")
    fi
  done
  for ((tick = 0; tick < stop_seconds * 10; tick++)); do
    all_ended "${left[@]+"${left[@]}"}" && break
    sleep 0.1
  done
  for name in "${left[@]+"${left[@]}"}"; do
    if pid=$(pid_of "$name"); then
      echo "$name does not end within $stop_seconds seconds: killed"
      crash "$name"
    fi
    rm -f "$data/$name.pid"
  done
}

all_ended() {
  local name
  for name in "$@"; do if runs "$name"; then return 1; fi; done
}

crash() {
  local tick pid
  pid=$(pid_of "$1") || return 0
  kill -KILL "$pid" 2>/dev/null || true
  for ((tick = 0; tick < 50; tick++)); do
    runs "$1" || break
    sleep 0.1
  done
  rm -f "$data/$1.pid"
}

# --- Questions in RESP, so that no client program is needed ---

# ask NAME WORD ...: prints the replies to AUTH, the command, and QUIT.
ask() {
  local LC_ALL=C reply=
  (
    exec 3<>"/dev/tcp/$host/$(port_of "$1")" || exit 0
    if [[ $1 == n* ]]; then request AUTH "$password" >&3; fi
    shift
    request "$@" >&3
    request QUIT >&3
    IFS= read -r -t 2 -d '' reply <&3 || true
    printf '%s' "$reply"
  ) 2>/dev/null || true
}

request() {
  local word
  printf '*%d\r\n' $#
  for word in "$@"; do printf '$%d\r\n%s\r\n' ${#word} "$word"; done
}

# Sets $progress, and succeeds when every primary serves with all its replicas.
all_serve() {
  local name info answering=0 primaries=0 in_sync=0 sentinels=0 ok=0
  for name in "${names[@]}"; do
    if [[ $name == s* ]]; then
      if [[ $(ask "$name" PING) == +PONG* ]]; then sentinels=$((sentinels + 1)); fi
      continue
    fi
    info=$(ask "$name" INFO replication)
    [[ $info == *role:* ]] || continue
    answering=$((answering + 1))
    if [[ $info == *role:master* ]]; then
      primaries=$((primaries + 1))
      in_sync=$((in_sync + $(grep -c '^slave[0-9]*:.*state=online' <<<"$info" || true)))
    fi
    [[ $mode == sentinel || $(ask "$name" CLUSTER INFO) == *cluster_state:ok* ]] || continue
    ok=$((ok + 1))
  done
  progress="sentinels $sentinels/3, nodes $answering/$nodes, primaries $primaries/$shards"
  progress+=", replicas in sync $in_sync/$((shards * replicas))"
  ((sentinels == 3 && primaries == shards && in_sync == shards * replicas && ok == nodes))
}

wait_until_all_serve() {
  local end=$((SECONDS + serve_seconds)) last='' name
  until all_serve; do
    if [[ $progress != "$last" ]]; then echo "  $progress"; fi
    last=$progress
    for name in "${names[@]}"; do
      runs "$name" || die "$name has ended: $(tail -n 1 "$data/$name.log")"
    done
    ((SECONDS < end)) || die "not all serve after $serve_seconds seconds ($progress); see local/cluster.sh logs"
    sleep 0.2
  done
  echo "  $progress"
}

# --- Commands ---

build() {
  bin=${KEYWARD_BIN_DIR:-}
  if [[ -z $bin ]]; then
    bin=${CARGO_TARGET_DIR:-$repository/target}/release
    if command -v cargo >/dev/null; then
      echo "building (release; the first time takes some minutes)"
      (cd "$repository" && cargo build --release --quiet -p keyward-node -p keyward-sentinel) ||
        die "the build failed"
    fi
  fi
  bin=$(cd "$bin" 2>/dev/null && pwd) || bin=
  [[ -x $bin/keyward-node && -x $bin/keyward-sentinel ]] ||
    die "cargo is needed to build the programs: see https://rustup.rs"
}

start() {
  local wanted_mode='' wanted_shards='' wanted_replicas='' name started=()
  while (($#)); do
    [[ $1 == --mode || $1 == --shards || $1 == --replicas ]] || die "start has no option '$1'"
    (($# > 1)) || die "$1 needs a value"
    case $1 in
      --mode) wanted_mode=$2 ;;
      --shards) wanted_shards=$2 ;;
      --replicas) wanted_replicas=$2 ;;
    esac
    shift 2
  done
  settings "$wanted_mode" "$wanted_shards" "$wanted_replicas"
  if all_run; then
    echo "already running"
  else
    build
    save_settings
    for name in "${names[@]}"; do
      if ! runs "$name"; then
        launch "$name"
        started+=("$name")
      fi
    done
    echo "started ${started[*]}"
  fi
  wait_until_all_serve
  how_to_connect
}

all_run() {
  local name
  for name in "${names[@]}"; do runs "$name" || return 1; done
}

how_to_connect() {
  local nodes_list sentinels_list
  nodes_list=$(seq -f "$host:%.0f" -s ' ' "$port" $((port + nodes - 1)))
  sentinels_list=$(seq -f "$host:%.0f" -s ' ' "$sentinel_port" $((sentinel_port + 2)))
  echo
  if [[ $mode == cluster ]]; then
    echo "Cluster clients:   any of $nodes_list"
    echo "                   redis-cli -c -p $port"
  else
    echo "Sentinel clients:  primary name mymaster, sentinels $sentinels_list"
    echo "The nodes:         $nodes_list"
  fi
  if [[ $password == dev-valkey-password ]]; then
    echo "Password:          $password   (REDISCLI_AUTH=$password)"
  else
    echo "Password:          the one in VALKEY_PASSWORD"
  fi
  echo "More:              local/cluster.sh status | cli | kill n1 | logs | stop"
}

stop() {
  settings
  if ! any_running; then
    echo "not running"
    return
  fi
  # All nodes at once, while there are sentinels to be told.
  end "${names[@]:3}"
  end s1 s2 s3
  echo "stopped; the data is in $data"
}

status() {
  settings
  local name pid address='' running=0
  printf '%-8s %-7s %s\n' PROCESS PORT PID
  for name in "${names[@]}"; do
    if pid=$(pid_of "$name"); then
      running=$((running + 1))
      if [[ $name == s* ]]; then address=$host:$(($(port_of "$name") + 10000)); fi
    fi
    printf '%-8s %-7s %s\n' "$name" "$(port_of "$name")" "${pid:-not running}"
  done
  if [[ -n $address ]]; then
    bin=${KEYWARD_BIN_DIR:-${CARGO_TARGET_DIR:-$repository/target}/release}
    echo
    "$bin/keyward-sentinel" status --sentinel "$address"
  fi
  ((running == ${#names[@]}))
}

logs() {
  local follow=() name files=()
  if [[ ${1:-} == -f ]]; then
    follow=(-f)
    shift
  fi
  settings
  if (($# == 0)); then set -- "${names[@]}"; fi
  for name in "$@"; do
    known_name "$name" || die "no process '$name'; there are ${names[*]}"
    if [[ -f $data/$name.log ]]; then files+=("$data/$name.log"); fi
  done
  ((${#files[@]})) || die "no logs in $data"
  tail -n 40 "${follow[@]+"${follow[@]}"}" "${files[@]}"
}

cli() {
  settings
  local program='' tool name=n1 number found=0 options=()
  for tool in redis-cli valkey-cli; do
    if [[ -z $program ]] && command -v "$tool" >/dev/null; then program=$tool; fi
  done
  [[ -n $program ]] || die "redis-cli or valkey-cli is needed, from a package such as redis-tools or valkey-tools"
  if known_name "${1:-}"; then
    name=$1
    shift
    runs "$name" || die "$name is not running"
  else
    # Any node will do for a cluster; without cluster mode it has to be the primary.
    if [[ $mode == cluster ]]; then options=(-c); fi
    for ((number = 1; number <= nodes && found == 0; number++)); do
      name=n$number
      if runs "$name" && { [[ $mode == cluster ]] || [[ $(ask "$name" INFO replication) == *role:master* ]]; }; then
        found=1
      fi
    done
    ((found)) || die "no node runs that could answer; try local/cluster.sh status"
  fi
  if [[ $name == n* ]]; then export REDISCLI_AUTH=$password; fi
  exec "$program" "${options[@]+"${options[@]}"}" -h "$host" -p "$(port_of "$name")" "$@"
}

one() {
  local action=$1 name=${2:-}
  settings
  known_name "$name" || die "$action needs one of ${names[*]}"
  if [[ $action == kill ]]; then
    runs "$name" || die "$name is not running"
    crash "$name"
    echo "$name killed"
  else
    [[ -f $state ]] || die "there is no cluster in $data; start one first"
    build
    end "$name"
    launch "$name"
    echo "$name started again"
    wait_until_all_serve
  fi
}

destroy() {
  [[ $# -eq 0 || $1 == --keep-data ]] || die "destroy has no option '$1'"
  settings
  stop
  [[ $# -eq 0 ]] || return 0
  # Only what this script made, should KEYWARD_LOCAL_DATA name a folder that holds more.
  local name
  for name in "${names[@]}"; do rm -rf "${data:?}/$name" "$data/$name.log" "$data/$name.pid"; done
  rm -f "$state"
  rmdir "$data" 2>/dev/null || true
  echo "data removed"
}

command=${1:-}
if (($#)); then shift; fi
case $command in
  start | stop | status | logs | cli | destroy) "$command" "$@" ;;
  kill | restart) one "$command" "$@" ;;
  -h | --help | help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
