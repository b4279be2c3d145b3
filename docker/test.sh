#!/usr/bin/env bash
# docker/test.sh: run the scenarios on containers. Where no docker engine answers, one is started for the time of the run and
# removed with all that it changed; that takes root, on Debian or Ubuntu, and installs what is missing.
#
# A machine on which neither works fails here: nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! docker version >/dev/null 2>&1 || ! { command -v docker-compose || docker compose version; } >/dev/null 2>&1; then
    if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null || ! command -v docker-compose >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io docker-compose debootstrap iptables \
            iproute2 procps python3 python3-pip python3-venv >/dev/null
    fi
fi
if ! docker version >/dev/null 2>&1; then
    own=$(mktemp -d)
    trap 'docker/engine.sh stop "$own"' EXIT
    trap 'exit 130' INT TERM
    DOCKER_HOST=$(docker/engine.sh start "$own")
    export DOCKER_HOST
fi
# Those that share a network; licence and twin, which take one of their own, run as processes with the other tests, and here by hand.
.venv/bin/python -m tests.network one-killed one-paused one-cut-off lossy quorum-gone split kills all-restarted \
    follower-from-nothing liar-state liar-heads anchored --engine cometbft --docker
