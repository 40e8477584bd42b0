#!/bin/sh
# Times the CPU kernels and PyTorch side by side and prints torch's time divided by ours, per shape.
#
#   bench/peers/compare.sh [--quick] [--threads N] [--cpu-time] [--filter TEXT] [--json FILE]
#
# PyTorch is installed into bench/peers/.venv at the first run. Set PEERS_PYTHON to use another Python that has it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python=${PEERS_PYTHON:-"$here/.venv/bin/python"}
if [ -z "${PEERS_PYTHON:-}" ] && [ ! -x "$python" ]; then
    python3 -m venv "$here/.venv"
    "$python" -m pip install --quiet -r "$here/requirements.txt"
fi
cargo build --quiet --release -p lattice-kernels --example shapes
target=${CARGO_TARGET_DIR:-target}
exec "$python" "$here/compare.py" --ours "$target/release/examples/shapes" --json "$target/peers.json" "$@"
