#!/usr/bin/env bash
# docker/build.sh [TARGET]: build the image clearing-ledger:dev, or clearing-ledger:TARGET (node, the default, or liar: the
# lying build of test networks).
#
# Needs a docker engine (DOCKER_HOST), Python 3.11, and the consensus engine on PATH or Go to build it. With a registry the
# base image is pulled, without one docker/base_image.py makes it. BASE names another one, such as a mirror's.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-node}
case $target in node) tag=dev ;; liar) tag=liar ;; *) echo "docker/build.sh: no target $target" >&2; exit 2 ;; esac
python=${PYTHON:-.venv/bin/python}

base=${BASE:-python:3.11-slim-bookworm}

python3 docker/base_image.py "$base"
engine=$("$python" -c 'from node.sequencer.cometbft.binary import find_or_build; import sys
print(find_or_build(report=lambda said: print(said, file=sys.stderr)))')

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
tar -c --exclude=__pycache__ requirements.lock pyproject.toml README.md LICENSE clearing node docker/lock.py \
    tests/__init__.py tests/network | tar -x -C "$context"
cp "$engine" "$context/cometbft"
# Times are of the copy: the builder's cache goes by content.
log=$(mktemp)
if ! DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} docker build -q --target "$target" -t "clearing-ledger:$tag" \
    --build-arg BASE="$base" -f docker/Dockerfile "$context" >"$log" 2>&1; then
    tail -40 "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
echo "built clearing-ledger:$tag"
