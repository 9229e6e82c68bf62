#!/usr/bin/env bash
# Train the CUHK-SYSU teacher (ResNet-50) as published, or any other network on its own:
#   [NPROC=N] bash job_train_base.sh [CONFIG] [--resume] [KEY VALUE ...]
# NPROC=N shares each batch between N GPUs (DEVICE cpu: N processes) of this machine.
set -euo pipefail
program=train_base.py
config=configs/cuhk_sysu/resnet50_base.yaml
source "$(dirname "$0")/tools/launch.sh"
