#!/usr/bin/env bash
# A SuperLink and N SuperNodes on this machine, then one run on them:
#
#   configs/deployment/one_machine.sh N [settings for Flower's run config]
#   configs/deployment/one_machine.sh 3 'rounds=5 clients-per-round=2 distribution="dirichlet"'
#
# SuperNode i holds partition i. Everything ends with the run; logs and Flower's own files are in $FLWR_HOME.
# With FEDSPARSE_APP=PATH it is a run of the Flower app in that folder.
set -euo pipefail
nodes=${1:?how many SuperNodes}
settings=${2:-}
here=$(cd "$(dirname "$0")/../.." && pwd)
app=${FEDSPARSE_APP:-$here}
port=${FEDSPARSE_PORT:-9291}

export FLWR_HOME=${FLWR_HOME:-$(mktemp -d)}
# No downloads and no telemetry; set before anything of Flower starts.
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
[ -d "$here/.venv/bin" ] && PATH="$here/.venv/bin:$PATH"
mkdir -p "$FLWR_HOME"
cat > "$FLWR_HOME/config.toml" <<TOML
[superlink]
default = "here"

[superlink.here]
address = "127.0.0.1:$port"
insecure = true
TOML

set -m  # each a process group: Flower's processes have children, which end with them
trap 'trap - EXIT; { for job in $(jobs -p); do kill -- "-$job"; done; wait; } 2>/dev/null' EXIT
echo "logs: $FLWR_HOME"
python -m fedsparse.engine.guarded_superlink --insecure --port "$port" > "$FLWR_HOME/superlink.log" 2>&1 &
superlink=$!
for _ in $(seq 100); do
    python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null && break
    sleep 0.3
done
kill -0 $superlink 2>/dev/null || { echo "no SuperLink on port $port: see $FLWR_HOME/superlink.log" >&2; exit 1; }
for i in $(seq 0 $((nodes - 1))); do
    flower-supernode --insecure --superlink "127.0.0.1:$port" --port $((port + 1 + i)) \
        --node-config "partition-id=$i num-partitions=$nodes" > "$FLWR_HOME/supernode-$i.log" 2>&1 &
    echo "SuperNode $i: process $!"
done

config=()
[ "$app" = "$here" ] && config=(--run-config "clients=$nodes clients-per-round=$nodes logdir=\"$here/runs\"")
flwr run "$app" here --stream "${config[@]}" --run-config "$settings"
# `flwr run` exits 0 even when the run has failed
flwr list here --format json | grep -q '"finished:completed"'
