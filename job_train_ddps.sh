#!/usr/bin/env bash
# Train the CUHK-SYSU student (ResNet-18) with DDPS as published, or any other student:
#   [NPROC=N] bash job_train_ddps.sh [CONFIG] [--resume] [KEY VALUE ...]
# NPROC=N shares each batch between N GPUs (DEVICE cpu: N processes) of this machine.
set -euo pipefail
program=train_ddps.py
config=configs/cuhk_sysu/resnet18_ddps.yaml
source "$(dirname "$0")/tools/launch.sh"
