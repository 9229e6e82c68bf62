#!/usr/bin/env bash
# Train the CUHK-SYSU student (ResNet-18) with DDPS as published, or any other student:
#   bash job_train_ddps.sh [CONFIG] [--resume] [KEY VALUE ...]
set -euo pipefail
source "$(dirname "$0")/tools/environment.sh"
config=configs/cuhk_sysu/resnet18_ddps.yaml
if [[ "${1:-}" == *.yaml ]]; then config=$1; shift; fi
exec python train_ddps.py --cfg "$config" "$@"
