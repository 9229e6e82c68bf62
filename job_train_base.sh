#!/usr/bin/env bash
# Train the CUHK-SYSU teacher (ResNet-50) as published, or any other network without a teacher:
#   [NPROC=N] bash job_train_base.sh [CONFIG] [--resume] [KEY VALUE ...]
# NPROC=N divides each batch among N GPUs of this machine (with DEVICE cpu: N processes).
set -euo pipefail
program=train_base.py
config=configs/cuhk_sysu/resnet50_base.yaml
source "$(dirname "$0")/tools/jobs/launch.sh"
