#!/usr/bin/env bash
usage() {
  cat <<'USAGE'
usage: helm/image.sh [--tag NAME:TAG] [--debug] [--programs FOLDER]

Builds both programs as static ones and an image of them with what is there of docker, podman and buildah; prints its
size. Push it to a registry of yours, and give the chart its name (image.registry, image.repository, image.tag).

  --tag NAME:TAG      name of the image (keyward:VERSION)
  --debug             a debug build: quicker to make, slow to run
  --programs FOLDER   ready static programs, instead of building them

The static programs are built in target/static. KEYWARD_SBOM may name a ready program that prints bills of materials
(cluster-tests --bin sbom), which is built otherwise.
USAGE
}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "image.sh: $*" >&2
  exit 1
}

debug='' programs=''
version=$(sed -nE '0,/^version = "(.*)"/s//\1/p' Cargo.toml)
tag=keyward:$version
while (($#)); do
  case $1 in
    --tag) tag=${2:?} && shift 2 ;;
    --debug) debug=yes && shift ;;
    --programs) programs=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done

# The first that answers: a docker without its daemon does not.
builder=
for name in docker podman buildah; do
  if "$name" version >/dev/null 2>&1; then
    builder=$name
    break
  fi
done
[[ -n $builder ]] || die "none of docker, podman and buildah answers"

if [[ -z $programs ]]; then
  export CARGO_TARGET_DIR=$PWD/target/static
  if [[ -z $debug ]]; then
    programs=target/static/dist
    local/release.sh --static "$programs"
  else
    architecture=$(rustc -vV | sed -n 's/^host: //p')
    # The name of the platform keeps the flags away from what runs while building.
    RUSTFLAGS="-C target-feature=+crt-static" \
      cargo build --locked --target "$architecture" -p keyward-node -p keyward-sentinel
    programs=target/static/$architecture/debug
  fi
  unset CARGO_TARGET_DIR
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/root
install -d -m 755 "$root" "$root/usr/share/sbom" "$root/licenses"
install -d -m 770 "$root/data"
install -m 644 LICENSE "$root/licenses/LICENSE"
for name in keyward-node keyward-sentinel; do
  # Without what a debugger wants, which is most of it; names of functions stay, for backtraces.
  strip --strip-debug -o "$root/$name" "$programs/$name"
  chmod 755 "$root/$name"
  ldd "$root/$name" 2>&1 | grep -qE 'statically linked|not a dynamic' || die "$programs/$name is not static"
  sbom() {
    if [[ -n ${KEYWARD_SBOM:-} ]]; then "$KEYWARD_SBOM" "$@"; else cargo run --quiet --locked -p cluster-tests --bin sbom -- "$@"; fi
  }
  sbom "$name" >"$root/usr/share/sbom/$name.cdx.json"
  chmod 644 "$root/usr/share/sbom/$name.cdx.json"
done

revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
command=(build)
if [[ $builder == buildah ]]; then command=(bud --isolation chroot); fi
"$builder" "${command[@]}" --file helm/Containerfile --tag "$tag" \
  --build-arg VERSION="$version" --build-arg REVISION="$revision" "$context" >"$context/log" 2>&1 || {
  cat "$context/log" >&2
  die "$builder cannot build the image"
}
echo "$tag: $(du -sb --apparent-size "$root" | awk '{ printf "%.1f MB", $1 / 1e6 }'), made by $builder"
