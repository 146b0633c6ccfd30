# shellcheck shell=sh disable=SC2086,SC2153  # $TLS is words; what is in capitals comes from the pod
# Of `helm test`: an acknowledged write outlives a change of the primary. In any image with valkey-cli or redis-cli.
cli=$(command -v valkey-cli || command -v redis-cli)
key=keyward-chart-test

sentinel() { REDISCLI_AUTH=${SENTINEL_AUTH-} VALKEYCLI_AUTH=${SENTINEL_AUTH-} "$cli" ${TLS-} -h "$SENTINEL_HOST" -p "$SENTINEL_PORT" SENTINEL "$@"; }

# Address of the primary that has the key, as "HOST PORT".
primary() {
  case $MODE in
    standalone) echo "$HOST $PORT" ;;
    replicated) sentinel GET-PRIMARY-ADDR-BY-NAME "$PRIMARY_SET" | tr '\n' ' ' ;;
    cluster) slot_owner ;;
  esac
}

# Of the node list: whoever is a primary with the slot of the key among its ranges.
slot_owner() {
  slot=$("$cli" ${TLS-} -h "$HOST" -p "$PORT" CLUSTER KEYSLOT $key)
  "$cli" ${TLS-} -h "$HOST" -p "$PORT" CLUSTER NODES | awk -v slot="$slot" '
    $3 ~ /master/ {
      for (i = 9; i <= NF; i++) {
        split($i, range, "-")
        if (range[1] <= slot && slot <= (range[2] == "" ? range[1] : range[2])) { print $2; exit }
      }
    }' | sed -E 's/@.*//; s/:([0-9]+)$/ \1/'
}

# ask ADDRESS COMMAND ...
ask() {
  host=${1% *} port=${1##* }
  shift
  "$cli" ${TLS-} -h "$host" -p "$port" "$@"
}

before=$(primary | sed 's/ *$//')
value=$(date +%s)-$$
[ "$(ask "$before" SET $key "$value" EX 600)" = OK ]
echo "written at $before"

case $MODE in
  standalone) ;;
  replicated) sentinel FAILOVER "$PRIMARY_SET" ;;
  cluster)
    replica=$(ask "$before" INFO replication | tr -d '\r' | sed -nE 's/^slave0:ip=([^,]*),port=([0-9]+),.*/\1 \2/p')
    ask "$replica" CLUSTER FAILOVER
    ;;
esac
for _ in 1 2 3 4 5 6 7 8 9 10; do
  after=$(primary | sed 's/ *$//')
  if [ "$MODE" = standalone ] || [ "$after" != "$before" ]; then break; fi
  sleep 1
done
read=$(ask "$after" GET $key)
echo "read at $after"
[ "$read" = "$value" ]
ask "$after" DEL $key
