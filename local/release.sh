#!/usr/bin/env bash
# The two programs as they are given to others: the same source and compiler give the same bytes, wherever they are built.
usage() {
  cat <<'USAGE'
usage: local/release.sh [--static] [FOLDER]

Builds keyward-node and keyward-sentinel, optimized, and puts them into FOLDER (target/dist) with their SHA-256 sums. Paths
of this machine are not in them, so that anybody can build them again and compare the sums.

  --static    linked with nothing but the kernel, for images without anything else
USAGE
}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

static=
folder=target/dist
for word in "$@"; do
  case $word in
    --static) static=yes ;;
    -h | --help)
      usage
      exit
      ;;
    -*)
      usage >&2
      exit 2
      ;;
    *) folder=$word ;;
  esac
done

cargo_home=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
sysroot=$(rustc --print sysroot)
triple=$(rustc -vV | sed -n 's/^host: //p')
# Rust names the sources in its messages, C in its assertions.
export RUSTFLAGS="--remap-path-prefix=$PWD=keyward --remap-path-prefix=$cargo_home=cargo --remap-path-prefix=$target=target --remap-path-prefix=$sysroot=rust"
[[ -z $static ]] || RUSTFLAGS+=" -C target-feature=+crt-static"
export CFLAGS="-ffile-prefix-map=$cargo_home=cargo -ffile-prefix-map=$target=target"
export CXXFLAGS=$CFLAGS SOURCE_DATE_EPOCH=0 CARGO_INCREMENTAL=0
# With a target of its own, so that these flags are not those of the programs that only run while this is built.
cargo build --release --locked --target "$triple" -p keyward-node -p keyward-sentinel

mkdir -p "$folder"
install -m 755 "$target/$triple/release/keyward-node" "$target/$triple/release/keyward-sentinel" "$folder"
(cd "$folder" && sha256sum keyward-node keyward-sentinel | tee SHA256SUMS)
