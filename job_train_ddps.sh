#!/usr/bin/env bash
# Train the CUHK-SYSU student (ResNet-18) with DDPS as published, or any other student:
#   [NPROC=N] bash job_train_ddps.sh [CONFIG] [--resume] [KEY VALUE ...]
# NPROC=N divides each batch among N GPUs of this machine (with DEVICE cpu: N processes).
set -euo pipefail
program=train_ddps.py
config=configs/cuhk_sysu/resnet18_ddps.yaml
source "$(dirname "$0")/tools/jobs/launch.sh"
