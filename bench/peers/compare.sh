#!/bin/sh
# Times the CPU kernels and PyTorch side by side and prints torch's time divided by ours, per shape.
#
#   bench/peers/compare.sh [--quick] [--networks] [--adapters [--only]] [--threads N] [--runs N] [--cpu-time] [--filter TEXT] [--json FILE]
#
# --networks adds the whole networks of a full-size SD1.5 (makes a checkpoint of 4.3 GB in the target folder).
# --adapters adds a LoRA on the weights of SDXL's UNet (10 GB of files in the target folder); with --only nothing else is timed.
# PyTorch is installed into bench/peers/.venv at the first run. Set PEERS_PYTHON to use another Python that has it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python=${PEERS_PYTHON:-"$here/.venv/bin/python"}
if [ -z "${PEERS_PYTHON:-}" ] && [ ! -x "$python" ]; then
    python3 -m venv "$here/.venv"
    "$python" -m pip install --quiet -r "$here/requirements.txt"
fi
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release -p lattice-kernels --example shapes
case " $* " in *" --adapters "*) cargo build --quiet --release -p lattice-weights --example adapters ;; esac
case " $* " in *" --networks "*)
    cargo build --quiet --release -p lattice-models --example networks
    checkpoint=$target/peers-sd15.safetensors
    if [ ! -e "$checkpoint" ]; then
        cargo run --quiet --release -p lattice-goldens -- make sd15 "$checkpoint.part" --dtype F32
        mv "$checkpoint.part" "$checkpoint"
    fi
    set -- --checkpoint "$checkpoint" "$@"
    ;;
esac
exec "$python" "$here/compare.py" --ours "$target/release/examples" --json "$target/peers.json" "$@"
