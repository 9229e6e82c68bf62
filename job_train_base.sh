#!/usr/bin/env bash
# Train the CUHK-SYSU teacher (ResNet-50) as published, or any other network on its own:
#   bash job_train_base.sh [CONFIG] [--resume] [KEY VALUE ...]
set -euo pipefail
source "$(dirname "$0")/tools/environment.sh"
config=configs/cuhk_sysu/resnet50_base.yaml
if [[ "${1:-}" == *.yaml ]]; then config=$1; shift; fi
exec python train_base.py --cfg "$config" "$@"
