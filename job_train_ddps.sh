#!/usr/bin/env bash
# Train the CUHK-SYSU student (ResNet-18) with DDPS as published, or any other student:
#   [NPROC=N] bash job_train_ddps.sh [CONFIG] [--resume] [KEY VALUE ...]
# NPROC=N shares each batch between N GPUs (DEVICE cpu: N processes) of this machine.
set -euo pipefail
source "$(dirname "$0")/tools/environment.sh"
config=configs/cuhk_sysu/resnet18_ddps.yaml
if [[ "${1:-}" == *.yaml ]]; then config=$1; shift; fi
launch=(python)
if [ -n "${NPROC:-}" ]; then
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120 # seconds that a stopped run has for its checkpoint
    launch=(torchrun --standalone --nproc_per_node="$NPROC")
fi
exec "${launch[@]}" train_ddps.py --cfg "$config" "$@"
