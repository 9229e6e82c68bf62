#!/usr/bin/env bash
# The whole method on synthetic scenes: data, teacher, student alone, student with DDPS, demo, table.
# An interrupted quickstart continues when the script is run again.
#   bash job_quickstart.sh [KEY VALUE ...]     # config values of all three trainings
set -euo pipefail
source "$(dirname "$0")/tools/jobs/environment.sh"
configs=configs/synthetic
teacher=runs/synthetic_resnet18_base
student=runs/synthetic_resnet18_x05_base
ddps=runs/synthetic_resnet18_x05_ddps

echo "== 1/5 synthetic dataset"
python -m tools.make_synthetic --out data/synthetic --frames 300 --queries 80 --difficulty 0.2
echo "== 2/5 teacher: ResNet-18"
python train_base.py --cfg $configs/resnet18_base.yaml --resume "$@"
echo "== 3/5 student alone: ResNet-18(x0.5)"
python train_base.py --cfg $configs/resnet18_x05_base.yaml --resume "$@"
echo "== 4/5 student with DDPS"
python train_ddps.py --cfg $configs/resnet18_x05_ddps.yaml --resume "$@"
echo "== 5/5 demo with the distilled student"
python demo.py --cfg $configs/resnet18_x05_ddps.yaml --ckpt $ddps/best.pth --out $ddps/demo "$@"
echo
python -m tools.summarize "teacher=$teacher" "student=$student" "student with DDPS=$ddps"
