#!/usr/bin/env bash
# All tests of Keyward; CI runs the same command. On Debian and Ubuntu it installs what they need, by package name.
# The last line says how many tests passed and failed; the exit code is not 0 if one failed.
usage() {
  cat <<'USAGE'
usage: local/test.sh [PART ...]        all parts but image, if none is named

  checks    format and lints, warnings as errors
  rust      unit tests, the comparison with a real Valkey, failovers of real processes
  clients   real clients: redis-cli, redis-py, ioredis and node-redis, with the README's examples; and programs that
            do a job: RQ, Celery, BullMQ, Sidekiq, limiters, locks, a cache
  suites    the own tests of redis-py and redis-rs, against a node and a cluster; needs root
  chart     the Helm chart: what helm 3 and 4 make of it, and the pods that it describes, as processes; these need root
  image     only if it is named, as it builds static programs: the image, and a cluster of containers; needs root
  fuzz      a short fuzzing of what may come from anywhere; needs cargo-fuzz, which it installs if it can
  fuzz_node the same of what only the whole node reads, conf files, messages and certificates; not without being named,
            as another build of everything takes minutes
USAGE
}
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# For each part, so that nothing hangs for ever.
build_limit=40m
rust_limit=40m
clients_limit=15m
suites_limit=15m
chart_limit=10m
image_limit=40m

target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
passed=0 failed=0 skipped=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
# timeout hands the signal on to all that it has started.
trap '[[ -z ${child:-} ]] || kill -TERM "$child"; exit 130' INT TERM HUP

step() { printf '\n=== %s (%s)\n' "$*" "$(date +%T)"; }

fail() {
  echo "FAILED: $*"
  failed=$((failed + 1))
}

# as_root COMMAND ...: as this user, if that is root, else by sudo if it asks nothing.
as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# need PROGRAM PACKAGE ...: installs the packages if the program is missing.
need() {
  local program=$1
  shift
  command -v "$program" >/dev/null && return
  if command -v apt-get >/dev/null; then
    if [[ -z ${apt_updated:-} ]]; then
      as_root apt-get update -qq && apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  fi
  command -v "$program" >/dev/null || echo "test.sh: $program is missing; install it (Debian: $*)" >&2
}

# limited TIME COMMAND ...: shows the output and keeps it in $output. In the background, as a trap waits for what
# runs in the foreground.
limited() {
  local status
  timeout --kill-after=60s "$@" </dev/null >"$output" 2>&1 &
  child=$!
  tail -n +1 -s 0.3 -f --pid="$child" "$output" &
  wait "$child"
  status=$?
  child=
  wait $!
  return "$status"
}

# check NAME COMMAND ...: counts as one test.
check() {
  local name=$1
  shift
  step "$name"
  if limited "$build_limit" "$@"; then passed=$((passed + 1)); else fail "$name"; fi
}

checks() {
  need shellcheck shellcheck
  check "format" cargo fmt --all --check
  need promtool prometheus
  check "alert rules" promtool test rules local/monitoring/alerts_test.yml
  check "shell scripts" shellcheck local/*.sh cluster-tests/*.sh cluster-tests/suites/bin/* helm/*.sh helm/tests/*.sh helm/tests/bin/helm helm/keyward/files/*.sh .ci/run
  check "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
  # Optimized, it would take longer to build than it runs.
  if need_cargo deny cargo-deny@0.20.2 --debug; then
    check "what is linked" cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
  else
    skipped=$((skipped + 1))
  fi
}

# need_cargo SUBCOMMAND CRATE [FLAG ...]: installs the crate if cargo has no such subcommand; false if it cannot be.
need_cargo() {
  cargo "$1" --version >/dev/null 2>&1 && return
  cargo install --quiet --locked "${@:3}" "$2" </dev/null && return
  echo "test.sh: $2 cannot be installed, what needs it is left out" >&2
  return 1
}

# Adds up the closing lines of the test programs: "test result: ok. 3 passed; 0 failed; 1 ignored; ...".
count_cargo() {
  local p f i
  read -r p f i < <(awk '/^test result: / { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$output")
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + i))
  # It did not compile, or ended in another way than by a failed test.
  if (($1 != 0 && f == 0)); then fail "cargo test ended with $1"; fi
  if ((p + f == 0)); then fail "no test has run"; fi
}

# Everything at once: programs built apart from the tests would differ in features, and be built twice.
build() {
  [[ -z ${built:-} ]] || return 0
  built=yes
  check "build" cargo build --workspace --all-targets --locked
  export KEYWARD_BIN_DIR=$target/debug
}

rust() {
  need flock util-linux
  need redis-server redis-server
  need openssl openssl
  # For the network namespaces of the chaos tests; without them these stay on the loopback address.
  need ip iproute2
  need nft nftables
  need iptables iptables
  need strace strace
  need faketime faketime
  # For the page of the sentinels; without it that is not looked at.
  need chromium chromium
  build
  step "tests in Rust"
  # --show-output prints what was measured.
  limited "$rust_limit" cargo test --workspace --locked --no-fail-fast -- --show-output
  count_cargo $?
  need valgrind valgrind
  # The code that lays out memory by hand or goes to Lua's stack, under a memory checker. Tests have the system's allocator, which it knows.
  local checker='["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]'
  step "memory checker"
  limited "$build_limit" cargo --config "target.'cfg(all())'.runner = $checker" \
    test --workspace --locked --lib -- --test-threads=1 \
    entry::tests replies_of_each_kind replies_may_be_nested lengths_that_lie
  count_cargo $?
}

# Fixed so that a new one does not break old tests.
export KEYWARD_REDIS_PY=8.1.0

# A Python with redis-py, in a folder of its own.
python_with_redis() {
  local package=redis==$KEYWARD_REDIS_PY
  if ! .venv/bin/python -c "import redis, sys; sys.exit('redis==' + redis.__version__ != '$package')" 2>/dev/null; then
    rm -rf .venv
    need python3 python3 python3-venv
    if ! python3 -m venv .venv >/dev/null 2>&1; then
      as_root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
      python3 -m venv .venv || return 1
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$package" || return 1
  fi
}

# Programs that do a job on a node; what is missing is left out, and counted as skipped.
programs() {
  need sidekiq ruby-sidekiq
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    rq==3.0.0 celery==5.7.0 limits==5.8.0 python-redis-lock==4.0.1 django-redis==7.0.0
}

# ioredis, node-redis and BullMQ, where there is Node.js: Debian's npm would bring some hundred packages along.
javascript_clients() {
  command -v npm >/dev/null || return 0
  npm install --prefix cluster-tests/clients/javascript --no-audit --no-fund --no-package-lock --loglevel=error >/dev/null
}

clients() {
  need redis-cli redis-tools
  need openssl openssl
  build
  step "real clients"
  if ! python_with_redis </dev/null; then
    fail "redis-py cannot be installed"
    return
  fi
  programs </dev/null || fail "the Python programs cannot be installed"
  javascript_clients </dev/null || fail "the JavaScript clients cannot be installed"
  limited "$clients_limit" .venv/bin/python -u cluster-tests/clients/run.py
  count_python $? "the tests with real clients"
}

suites() {
  need unshare util-linux
  need ip iproute2
  need python3 python3 python3-venv
  # This sees to it that Python can make environments.
  python_with_redis </dev/null || fail "redis-py cannot be installed"
  build
  step "tests of client libraries"
  limited "$suites_limit" python3 -u cluster-tests/suites/run.py
  count_python $? "the tests of client libraries"
}

chart() {
  need unshare util-linux
  need ip iproute2
  need openssl openssl
  need redis-cli redis-tools
  need redis-server redis-server
  need curl curl
  need jq jq
  need python3 python3 python3-venv
  # This sees to it that Python can make environments.
  python_with_redis </dev/null || fail "redis-py cannot be installed"
  build
  step "the chart"
  if ! helm/tests/get-tools.sh </dev/null; then
    fail "helm cannot be installed"
    return
  fi
  limited "$chart_limit" .chart-tools/venv/bin/python -u helm/tests/run.py
  count_python $? "the tests of the chart"
}

image() {
  need dockerd docker.io
  need ip iproute2
  need python3 python3 python3-venv
  # This sees to it that Python can make environments.
  python_with_redis </dev/null || fail "redis-py cannot be installed"
  step "the image"
  if ! helm/tests/get-tools.sh </dev/null; then
    fail "the tools cannot be installed"
    return
  fi
  # The bills of materials are printed by a program that is built with all others.
  build
  export KEYWARD_SBOM=$target/debug/sbom
  limited "$image_limit" .chart-tools/venv/bin/python -u helm/tests/run.py image
  count_python $? "the tests of the image"
}

fuzz() { fuzz_targets "" restore rdb_file requests script_libraries bus_handshake peers; }
fuzz_node() { fuzz_targets node conf_file messages certificate; }

# fuzz_targets FEATURES TARGET ...: of each a quarter of a minute; what it finds lies in node/fuzz/artifacts. Without a
# sanitizer it needs no nightly compiler.
fuzz_targets() {
  local features=$1 targets=("${@:2}")
  need g++ g++
  if ! need_cargo fuzz cargo-fuzz@0.13.2; then
    skipped=$((skipped + ${#targets[@]}))
    return
  fi
  local name
  for name in "${targets[@]}"; do
    check "fuzz $name" cargo fuzz run --fuzz-dir node/fuzz -s none --features "$features" "$name" -- \
      -max_total_time=15 -max_len=400 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
  done
}

# Adds up the last line of a test program in Python: "3 passed, 0 failed, 1 skipped".
count_python() {
  local p f s status=$1
  read -r p f s < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$output" | tail -n 1) ||
    p=0 f=0 s=0
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if ((status != 0 && f == 0)); then fail "$2 ended with $status"; fi
}

for part in "$@"; do
  case $part in
    checks | rust | clients | suites | chart | image | fuzz | fuzz_node) ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done
command -v cargo >/dev/null || {
  echo "test.sh: cargo is missing; install Rust from https://rustup.rs" >&2
  exit 1
}
if (($# == 0)); then set -- checks rust clients suites chart fuzz; fi
for part in "$@"; do "$part"; done

echo
if ((skipped)); then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
((failed == 0))
