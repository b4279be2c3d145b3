#!/usr/bin/env bash
# docker/engine.sh start|stop DIR: a docker engine of one's own under DIR, where none runs; as root, on Linux.
#
# start prints the DOCKER_HOST to use. stop ends it by its process id, with its containers, and puts back what it changed on
# this machine: iptables chains and policies, bridges, IP forwarding; then it removes DIR. It takes the chains of any engine
# with it: use it only where no other one runs.
set -euo pipefail
command=${1:?start or stop}
mkdir -p "${2:?directory}"
dir=$(readlink -f "$2")
export DOCKER_HOST=unix://$dir/docker.sock

start() {
    if [ -S "$dir/docker.sock" ] && docker version >/dev/null 2>&1; then
        echo "$DOCKER_HOST"
        return
    fi
    for needed in dockerd docker iptables ip; do
        command -v $needed >/dev/null || { echo "docker/engine.sh: $needed is not installed" >&2; exit 1; }
    done
    cat /proc/sys/net/ipv4/ip_forward >"$dir/ip_forward"
    setsid dockerd --host="$DOCKER_HOST" --data-root="$dir/data" --exec-root="$dir/exec" --pidfile="$dir/pid" \
        >"$dir/log" 2>&1 </dev/null &
    for _ in $(seq 600); do
        if docker version >/dev/null 2>&1; then
            echo "$DOCKER_HOST"
            return
        fi
        sleep 0.1
    done
    echo "docker/engine.sh: the engine does not answer; the end of $dir/log:" >&2
    tail -5 "$dir/log" >&2
    exit 1
}

stop() {
    if docker version >/dev/null 2>&1; then
        docker ps -q | xargs -r docker kill >/dev/null || true
        docker ps -aq | xargs -r docker rm -f -v >/dev/null || true
        docker network prune -f >/dev/null || true
    fi
    if [ -s "$dir/pid" ]; then
        pid=$(cat "$dir/pid")
        # A pid that the system has given to somebody else is not signalled.
        if grep -qa dockerd "/proc/$pid/comm" 2>/dev/null; then
            kill "$pid"
            for _ in $(seq 300); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
            if [ -d "/proc/$pid" ]; then echo "docker/engine.sh: engine $pid does not end" >&2; exit 1; fi
        fi
    fi
    put_back
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
        umount "$mount"
    done
    rm -rf "$dir"
}

put_back() {
    chains="DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2"
    iptables -P FORWARD ACCEPT
    # Rules are words as iptables wants them: each line is split on purpose.
    # shellcheck disable=SC2086
    iptables -S FORWARD | grep -E -- '-j DOCKER|-[io] docker0|-[io] br-' | sed 's/^-A/-D/' |
        while read -r rule; do iptables $rule; done || true
    # shellcheck disable=SC2086
    iptables -t nat -S | grep -E '^-A .*(-j DOCKER|! -o docker0|! -o br-)' | sed 's/^-A/-D/' |
        while read -r rule; do iptables -t nat $rule; done || true
    for action in -F -X; do
        for table in filter nat; do
            for chain in $chains; do iptables -t $table $action "$chain" 2>/dev/null || true; done
        done
    done
    ip link del docker0 2>/dev/null || true
    if [ -s "$dir/ip_forward" ]; then cat "$dir/ip_forward" >/proc/sys/net/ipv4/ip_forward; fi
}

case $command in
start) start ;;
stop) stop ;;
*) echo "docker/engine.sh: start or stop" >&2; exit 2 ;;
esac
