#!/bin/sh
# Fetches the real Valkey for comparison tests and benchmarks:   get-valkey.sh FOLDER
#
# Takes the newest valkey packages of Debian (suite sid) together with the libraries they name, unpacks them under
# FOLDER/root without installing anything, and leaves FOLDER/valkey-server, valkey-cli, valkey-benchmark and the
# check programs, which run with those libraries. A complete folder is left as it is. Needs Debian's apt-get and
# its package source; the last line on stderr says why when it cannot be done.
set -eu

fail() { echo "get-valkey.sh: $*" >&2; exit 1; }

[ $# -eq 1 ] || fail "usage: get-valkey.sh FOLDER"
mkdir -p "$1" || fail "cannot make $1"
folder=$(cd "$1" && pwd)
[ -e "$folder/complete" ] && exit 0
for tool in apt-get apt-cache dpkg-deb; do
  command -v "$tool" >/dev/null || fail "no $tool on this machine"
done

# Several test programs may come here at once: the first one fetches, the others wait for it.
exec 9>"$folder/lock"
flock 9
[ -e "$folder/complete" ] && exit 0

work=$folder/apt
rm -rf "$work" "$folder/root"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder/root"

# The mirror and the key that this machine already trusts, but for the suite sid alone.
known=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | grep -v '^ *#') || true
mirror=$(printf '%s\n' "$known" | grep -oE '(https?|file)://[^ ]+' | grep -v security | head -n 1) || true
[ -n "$mirror" ] || fail "no Debian package source is configured"
keyring=$(printf '%s\n' "$known" | grep -oE '/[^] ]*keyrings/[^] ]+' | head -n 1) || true
echo "deb [signed-by=${keyring:-/usr/share/keyrings/debian-archive-keyring.gpg}] $mirror sid main" > "$work/sources"

cat > "$work/conf" <<CONF
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
Quiet "2";
CONF
export APT_CONFIG="$work/conf"
apt-get update >&2 || fail "the package source $mirror does not answer"

# The programs' packages and all libraries that they depend on, directly or not.
packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
  --no-enhances --no-pre-depends valkey-server valkey-tools 2>/dev/null |
  grep -E '^(lib|valkey)[a-z0-9.+-]*$' | sort -u) || fail "the package source has no valkey-server"
cd "$work/cache/archives"
# shellcheck disable=SC2086  # a list of names
apt-get download $packages libc6 libgcc-s1 >&2 || fail "the packages cannot be downloaded"
for package in ./*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
cd "$folder"

loader=$(find root -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || fail "the packages hold no program loader"
library_path=$(find "$folder/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd :)
for link in root/usr/bin/valkey-*; do
  name=${link##*/}
  cat > "$name" <<RUN
#!/bin/sh
exec "$folder/$loader" --argv0 "$name" --library-path "$library_path" "$(readlink -f "$link")" "\$@"
RUN
  chmod +x "$name"
done
./valkey-server --version >&2 || fail "the unpacked valkey-server does not run"
rm -rf "$work"
touch complete
