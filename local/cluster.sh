#!/usr/bin/env bash
# A Keyward cluster on this machine, for development and for a first look.
usage() {
  cat <<'USAGE'
usage: local/cluster.sh COMMAND          local/cluster.sh COMMAND --help tells more

  start [--mode cluster|sentinel] [--shards N] [--replicas M]
                          build what is not built, start sentinels and nodes, wait until they serve
  stop                    end all processes in order; the data stays
  status [--json|--watch] processes, shards, roles, in-sync sets, and what is wrong
  logs [-f] [NAME ...]    the end of the logs
  cli [NAME] [COMMAND ...]
                          redis-cli or valkey-cli on the cluster, or on one process
  kill NAME|primary       end one process as a crash would
  restart NAME|primary    end one process in order if it runs, and start it again
  destroy [--yes|--keep-data]
                          stop, and delete the data if you say so

Environment:
  VALKEY_PASSWORD               password of the nodes              (dev-valkey-password)
  KEYWARD_LOCAL_DATA            where data, logs and PIDs are      (local/data)
  KEYWARD_LOCAL_PORT            port of n1; n2, n3 ... follow      (6379)
  KEYWARD_LOCAL_SENTINEL_PORT   port of s1; s2 and s3 follow       (26379)
  KEYWARD_LOCAL_NODE_ARGS       more flags for every keyward-node, such as "--io-threads 1"
  KEYWARD_BIN_DIR               ready programs, instead of building them
Every process also uses its port + 10000, for the others of the cluster, and a sentinel its port + 100 for a page that
shows the cluster in a browser: http://127.0.0.1:26479.
USAGE
}

usage_of() {
  case $1 in
    start)
      cat <<'USAGE'
usage: local/cluster.sh start [--mode cluster|sentinel] [--shards N] [--replicas M]

Builds the two programs if they are not built, starts three sentinels s1-s3 and N*(1+M) nodes n1, n2 ... (one shard with
two replicas, if not told otherwise), and waits until they serve. What runs already is left alone.

  --mode cluster    for clients with Cluster support (the default). With one shard, plain clients can use n1 as well.
  --mode sentinel   for clients with Sentinel support; one shard, 16 databases, any keys in one command. It also suits
                    plain clients, such as redis.Redis(port=6379): after a start n1 is the primary. They do not follow
                    it when it moves.

The mode and the numbers are remembered, and belong to the data.
USAGE
      ;;
    stop) echo "usage: local/cluster.sh stop          ends all processes in order; the data stays" ;;
    status)
      cat <<'USAGE'
usage: local/cluster.sh status [--json|--watch]

The processes, and what the sentinels say of shards, roles and in-sync sets; the nodes, if no sentinel answers.
Exit code: 0 if all is well, 1 if something is wrong. --json prints what the sentinels say as JSON; --watch shows it
again and again, until Ctrl-C.
USAGE
      ;;
    logs) echo "usage: local/cluster.sh logs [-f] [NAME ...]          the end of the logs; -f follows them" ;;
    cli)
      cat <<'USAGE'
usage: local/cluster.sh cli [NAME|primary] [COMMAND ...]

redis-cli or valkey-cli, with the password: on the cluster, or on one process (n1, s2 ...).
USAGE
      ;;
    kill)
      cat <<'USAGE'
usage: local/cluster.sh kill NAME|primary

Ends one process (n1, s2 ...) as a crash would (SIGKILL). If it was a primary, waits until another node serves, and says
how long that took by their logs.
USAGE
      ;;
    restart)
      cat <<'USAGE'
usage: local/cluster.sh restart NAME|primary

Ends one process in order if it runs, starts it, and waits until all serve. A primary hands over before it ends.
USAGE
      ;;
    destroy)
      cat <<'USAGE'
usage: local/cluster.sh destroy [--yes|--keep-data]

Stops the cluster. On a terminal it asks whether to delete the data, elsewhere the data stays.

  --yes         delete the data without asking
  --keep-data   keep it without asking
USAGE
      ;;
  esac
}

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
host=127.0.0.1
stop_seconds=15     # for an orderly end; then SIGKILL
serve_seconds=90    # for all to serve after a start

# What this start has started, and has to end again if it fails.
started=()

die() {
  echo "cluster.sh: $*" >&2
  if ((${#started[@]})); then
    end "${started[@]}" >/dev/null
    echo "cluster.sh: ended again: ${started[*]}" >&2
    if [[ -n ${new_state:-} ]]; then rm -f "$state"; fi
  fi
  exit 1
}

# Words that COMMAND does not know: says so, with its usage.
misused() {
  echo "cluster.sh: $2" >&2
  usage_of "$1" | head -n 1 >&2
  exit 2
}

no_words() {
  local command=$1
  shift
  if (($#)); then misused "$command" "$command does not know '$1'"; fi
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
    die "the cluster in $data has $1 $old, not $2 (local/cluster.sh destroy --yes deletes it)"
  echo "${2:-${old:-$3}}"
}

# The same for a port, which may change as long as nothing runs: everybody finds everybody again.
settle_port() {
  local old
  old=$(stored "$1")
  [[ -z $old || -z $2 || $old == "$2" ]] || ! any_running ||
    die "the cluster in $data runs with $1 $old, not $2; local/cluster.sh stop comes first"
  echo "${2:-${old:-$3}}"
}

settings() {
  mode=$(settle mode "${1:-}" cluster)
  shards=$(settle shards "${2:-}" 1)
  replicas=$(settle replicas "${3:-}" 2)
  port=$(settle_port port "${KEYWARD_LOCAL_PORT:-}" 6379)
  sentinel_port=$(settle_port sentinel-port "${KEYWARD_LOCAL_SENTINEL_PORT:-}" 26379)
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

# named COMMAND NAME: prints the process that is meant; `primary` is the first that leads a shard.
named() {
  local name
  if [[ ${2:-} == primary ]]; then
    for name in "${names[@]:3}"; do
      if is_primary "$name"; then
        echo "$name"
        return
      fi
    done
    die "no node says that it is a primary; try local/cluster.sh status"
  fi
  known_name "${2:-}" || misused "$1" "$1 needs one of ${names[*]}, or primary"
  echo "$2"
}

is_primary() { runs "$1" && [[ $(ask "$1" INFO replication) == *role:master* ]]; }

# The port of s2, n3 ...
port_of() {
  case $1 in
    s*) echo $((sentinel_port + ${1#s} - 1)) ;;
    n*) echo $((port + ${1#n} - 1)) ;;
  esac
}

# The port of a sentinel's page.
page_port_of() { echo $(($(port_of "$1") + 100)); }

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
        printf '%s\n' "name $name" "initial $(sentinel_list 's%d=')" "shards $shards" "replicas $replicas" \
          "http-port $(page_port_of "$name")"
      else
        printf '%s\n' "sentinels $(sentinel_list '')" "cluster-announce-ip $host" "appendonly yes"
        printf '%s %s\n' cluster-enabled "$([[ $mode == cluster ]] && echo yes || echo no)" \
          requirepass "$(quoted "$password")" primaryauth "$(quoted "$password")"
      fi
    } >"$dir/keyward.conf"
  )
}

# Before anything is started: every port that is needed is free.
check_ports() {
  local name number variable moved ports
  for name in "$@"; do
    ports=("$(port_of "$name")" $(($(port_of "$name") + 10000)))
    if [[ $name == s* ]]; then ports+=("$(page_port_of "$name")"); fi
    for number in "${ports[@]}"; do
      if is_taken "$number"; then
        variable=KEYWARD_LOCAL_PORT moved=$((port + 1000))
        if [[ $name == s* ]]; then variable=KEYWARD_LOCAL_SENTINEL_PORT moved=$((sentinel_port + 1000)); fi
        die "port $number, needed by $name, is taken by another program; $variable moves it: $variable=$moved local/cluster.sh ..."
      fi
    done
  done
}

launch() {
  local name=$1 program=keyward-node extra=${KEYWARD_LOCAL_NODE_ARGS:-} tick
  if [[ $name == s* ]]; then program=keyward-sentinel extra=; fi
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
  done
  # Also of those that had ended before.
  for name in "$@"; do rm -f "$data/$name.pid"; done
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

# Sets $progress, and succeeds when what runs serves: every primary with all its replicas that run.
all_serve() {
  local name info answering=0 primaries=0 in_sync=0 sentinels=0 ok=0 wanted_sentinels=0 wanted_nodes=0
  for name in "$@"; do
    case $name in
      s*) wanted_sentinels=$((wanted_sentinels + 1)) ;;
      n*) wanted_nodes=$((wanted_nodes + 1)) ;;
    esac
  done
  for name in "$@"; do
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
  progress="sentinels $sentinels/$wanted_sentinels, nodes $answering/$wanted_nodes, primaries $primaries/$shards"
  progress+=", replicas in sync $in_sync/$((wanted_nodes - shards))"
  ((sentinels == wanted_sentinels && primaries == shards && in_sync == wanted_nodes - shards && ok == wanted_nodes))
}

wait_until_all_serve() {
  local end=$((SECONDS + serve_seconds)) last='' name there=() absent=()
  for name in "${names[@]}"; do
    if runs "$name"; then there+=("$name"); else absent+=("$name"); fi
  done
  until all_serve "${there[@]}"; do
    if [[ $progress != "$last" ]]; then echo "  $progress"; fi
    last=$progress
    for name in "${there[@]}"; do
      runs "$name" || die "$name has ended: $(tail -n 1 "$data/$name.log")"
    done
    # Not ended again: somebody will want to look at them.
    ((SECONDS < end)) || started=()
    ((SECONDS < end)) || die "not all serve after $serve_seconds seconds ($progress); see local/cluster.sh logs"
    sleep 0.2
  done
  echo "  $progress"
  ((${#absent[@]} == 0)) || echo "  not running: ${absent[*]}"
}

# --- Commands ---

build() {
  bin=${KEYWARD_BIN_DIR:-}
  if [[ -z $bin ]]; then
    bin=${CARGO_TARGET_DIR:-$repository/target}/release
    if command -v cargo >/dev/null; then
      [[ -x $bin/keyward-node ]] || command -v make >/dev/null ||
        die "make is needed to build the memory allocator (Debian: make)"
      echo "building keyward-node and keyward-sentinel (release; the first time takes some minutes)"
      (cd "$repository" && cargo build --release --locked -p keyward-node -p keyward-sentinel) ||
        die "the build failed"
    fi
  fi
  bin=$(cd "$bin" 2>/dev/null && pwd) || bin=
  [[ -x $bin/keyward-node && -x $bin/keyward-sentinel ]] ||
    die "cargo is needed to build the programs: see https://rustup.rs"
}

start() {
  local wanted_mode='' wanted_shards='' wanted_replicas='' name missing=()
  while (($#)); do
    [[ $1 == --mode || $1 == --shards || $1 == --replicas ]] || misused start "start has no option '$1'"
    (($# > 1)) || misused start "$1 needs a value"
    case $1 in
      --mode) wanted_mode=$2 ;;
      --shards) wanted_shards=$2 ;;
      --replicas) wanted_replicas=$2 ;;
    esac
    shift 2
  done
  settings "$wanted_mode" "$wanted_shards" "$wanted_replicas"
  for name in "${names[@]}"; do
    if ! runs "$name"; then missing+=("$name"); fi
  done
  if ((${#missing[@]} == 0)); then
    echo "already running"
    wait_until_all_serve
  else
    check_ports "${missing[@]}"
    build
    [[ -f $state ]] || new_state=yes
    save_settings
    launch_all "${missing[@]}"
    echo "started ${missing[*]}"
    wait_until_all_serve
    started=()
    first_node_leads
  fi
  how_to_connect
}

# The shards form around the nodes that come first: n1 leads the first, n2 the second ...
launch_all() {
  local name end is_new=yes
  for name in "${names[@]:3}"; do
    if [[ -d $data/$name ]]; then is_new=; fi
  done
  for name in "$@"; do
    started+=("$name")
    launch "$name"
    if [[ -z $is_new || $name == s* ]] || ((shards < ${name#n})); then continue; fi
    end=$((SECONDS + serve_seconds))
    # A node answers PING when it has joined.
    until [[ $(ask "$name" PING) == *+PONG* ]]; do
      runs "$name" || die "$name has ended: $(tail -n 1 "$data/$name.log")"
      ((SECONDS < end)) || die "$name has not joined after $serve_seconds seconds: $(tail -n 1 "$data/$name.log")"
      sleep 0.05
    done
  done
}

# With one shard n1 leads after a start, for clients that know one address only.
first_node_leads() {
  if ((shards > 1)) || is_primary n1; then return 0; fi
  "$bin/keyward-sentinel" failover mymaster --to "$host:$port" --sentinel "$(sentinel_list '')" >/dev/null || return 0
  wait_until_all_serve >/dev/null
}

how_to_connect() {
  local nodes_list sentinels_list
  nodes_list=$(seq -f "$host:%.0f" -s ' ' "$port" $((port + nodes - 1)))
  sentinels_list=$(seq -f "$host:%.0f" -s ' ' "$sentinel_port" $((sentinel_port + 2)))
  echo
  if [[ $mode == cluster ]]; then
    echo "Cluster clients:   any of $nodes_list"
    echo "                   redis-cli -c -p $port"
    if ((shards == 1)); then
      echo "Plain clients:     $host:$port, as long as n1 is the primary (--mode sentinel suits them better)"
    fi
  else
    echo "Sentinel clients:  primary name mymaster, sentinels $sentinels_list"
    echo "Plain clients:     $host:$port, as long as n1 is the primary"
    echo "The nodes:         $nodes_list"
  fi
  if [[ $password == dev-valkey-password ]]; then
    echo "Password:          $password   (REDISCLI_AUTH=$password)"
  else
    echo "Password:          the one in VALKEY_PASSWORD"
  fi
  echo "In a browser:      http://$host:$(page_port_of s1)"
  echo "More:              local/cluster.sh status | cli | kill primary | logs | stop"
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
  local json='' name pid running=0 node_list='' well=0
  if [[ ${1:-} == --json || ${1:-} == --watch ]]; then
    json=$1
    shift
  fi
  no_words status "$@"
  settings
  for name in "${names[@]:3}"; do node_list+=",$name=$host:$(($(port_of "$name") + 10000))"; done
  if [[ -z $json ]]; then printf '%-8s %-7s %s\n' PROCESS PORT PID; fi
  for name in "${names[@]}"; do
    pid=$(pid_of "$name") && running=$((running + 1))
    [[ -n $json ]] || printf '%-8s %-7s %s\n' "$name" "$(port_of "$name")" "${pid:-not running}"
  done
  [[ -n $json ]] || echo
  if ((running)); then
    bin=${KEYWARD_BIN_DIR:-${CARGO_TARGET_DIR:-$repository/target}/release}
    "$bin/keyward-sentinel" status ${json:+"$json"} --sentinel "$(sentinel_list '')" --nodes "${node_list#,}" || well=1
  elif [[ -f $state ]]; then
    echo "nothing runs; local/cluster.sh start starts it" >&2
  else
    echo "there is no cluster in $data; local/cluster.sh start makes one" >&2
  fi
  ((running == ${#names[@]} && well == 0))
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
    known_name "$name" || misused logs "logs does not know '$name'; there are ${names[*]}"
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
  if [[ ${1:-} == primary ]] || known_name "${1:-}"; then
    name=$(named cli "$1")
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

# --- Failovers, as the logs tell them ---

# Microseconds since midnight, UTC.
now_micros() {
  local now=${EPOCHREALTIME:-$(date +%s).000000}
  echo $((${now/[.,]/} % 86400000000))
}

# The time in a line of a log, in the same way: 2026-01-02T03:04:05.678901Z
micros_of() {
  [[ $1 =~ T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{6})Z ]] || return 1
  echo $((((10#${BASH_REMATCH[1]} * 60 + 10#${BASH_REMATCH[2]}) * 60 + 10#${BASH_REMATCH[3]}) * 1000000 + 10#${BASH_REMATCH[4]}))
}

# milliseconds FROM TO: also over midnight.
milliseconds() { echo $((($2 - $1 + 86400000000) % 86400000000 / 1000)); }

# mark_logs: what is in the logs now is old.
mark_logs() {
  local name
  marks=()
  for name in "${names[@]}"; do marks+=("$(wc -c <"$data/$name.log" 2>/dev/null || echo 0)"); done
}

# new_line TEXT [NAME]: the first new line with TEXT in the log of a node, as "NAME LINE".
new_line() {
  local index line
  for ((index = 3; index < ${#names[@]}; index++)); do
    [[ -z ${2:-} || ${names[index]} == "$2" ]] || continue
    line=$(tail -c "+$((marks[index] + 1))" "$data/${names[index]}.log" 2>/dev/null | grep -m 1 -F "$1") || continue
    echo "${names[index]} $line"
    return 0
  done
  return 1
}

# wait_for_line TEXT: the same, once it is there.
wait_for_line() {
  local end=$((SECONDS + 15))
  until new_line "$1"; do
    ((SECONDS < end)) || return 1
    sleep 0.02
  done
}

kill_one() {
  local name role='' killed_at found successor
  settings
  (($# > 0)) || misused kill "kill needs one of ${names[*]}, or primary"
  name=$(named kill "$1")
  shift
  no_words kill "$@"
  runs "$name" || die "$name is not running"
  if [[ $name == n* ]] && is_primary "$name"; then role=primary; fi
  mark_logs
  killed_at=$(now_micros)
  crash "$name"
  if [[ $role != primary ]]; then
    echo "$name killed"
    return
  fi
  echo "$name killed, which was $([[ $shards == 1 ]] && echo the primary || echo a primary)"
  if ((replicas == 0)); then
    echo "it has no replica: its slots are not served until it is back (local/cluster.sh restart $name)"
  elif found=$(wait_for_line "this node serves as the primary"); then
    successor=${found%% *}
    echo "$successor is the primary now: it served $(milliseconds "$killed_at" "$(micros_of "$found")") ms after the kill"
  else
    echo "no other node serves yet; see local/cluster.sh status"
  fi
}

restart_one() {
  local name was_primary='' found begun
  settings
  (($# > 0)) || misused restart "restart needs one of ${names[*]}, or primary"
  name=$(named restart "$1")
  shift
  no_words restart "$@"
  [[ -f $state ]] || die "there is no cluster in $data; start one first"
  build
  if [[ $name == n* ]] && is_primary "$name"; then was_primary=yes; fi
  mark_logs
  end "$name"
  check_ports "$name"
  launch "$name"
  echo "$name started again"
  if [[ -n $was_primary ]] && begun=$(new_line "commands wait for the hand-off" "$name") &&
    found=$(new_line "this node serves as the primary"); then
    echo "it was the primary; ${found%% *} is now: the hand-off took $(milliseconds "$(micros_of "$begun")" "$(micros_of "$found")") ms"
  fi
  wait_until_all_serve
}

destroy() {
  local answer='' delete='' name
  case ${1:-} in
    --yes) delete=yes ;;
    --keep-data) delete=no ;;
    '') ;;
    *) misused destroy "destroy does not know '$1'" ;;
  esac
  if (($#)); then
    shift
    no_words destroy "$@"
  fi
  settings
  stop
  [[ -f $state ]] || return 0
  if [[ -z $delete && -t 0 && -t 1 ]]; then
    read -r -p "delete the data in $data? [y/N] " answer || true
    if [[ $answer == [yY] || $answer == [yY][eE][sS] ]]; then delete=yes; fi
  fi
  if [[ $delete != yes ]]; then
    [[ $delete == no ]] || echo "local/cluster.sh destroy --yes deletes it"
    return 0
  fi
  # Only what this script made, should KEYWARD_LOCAL_DATA name a folder that holds more.
  for name in "${names[@]}"; do rm -rf "${data:?}/$name" "$data/$name.log" "$data/$name.pid"; done
  rm -f "$state"
  rmdir "$data" 2>/dev/null || true
  echo "data removed"
}

command=${1:-}
if (($#)); then shift; fi
case $command in
  start | stop | status | logs | cli | kill | restart | destroy)
    # For `cli`, what follows a command or a process is redis-cli's.
    if [[ ${1:-} == --help || ${1:-} == -h ]] || { [[ $command != cli ]] && [[ " $* " == *" --help "* ]]; }; then
      usage_of "$command"
      exit 0
    fi
    case $command in
      stop) no_words stop "$@" && stop ;;
      kill) kill_one "$@" ;;
      restart) restart_one "$@" ;;
      *) "$command" "$@" ;;
    esac
    ;;
  -h | --help | help) usage ;;
  *)
    [[ -z $command ]] || echo "cluster.sh: there is no command '$command'" >&2
    usage >&2
    exit 2
    ;;
esac
