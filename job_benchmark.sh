#!/usr/bin/env bash
# The benchmark: generates the data, trains all teachers and rows that have no result in
# docs/benchmark/runs/, and writes docs/benchmark.md. All rows together take more than a day on two
# CPU cores. An interrupted benchmark continues when the script is run again.
#   JOBS=N bash job_benchmark.sh     # N simultaneous trainings, which share the cores (default: 2)
set -euo pipefail
source "$(dirname "$0")/tools/jobs/environment.sh"

echo "== 1/2 synthetic dataset"
python -m tools.make_synthetic --out data/benchmark --layout cuhk \
    --identities 375 --frames 1250 --queries 250 --seed 7 --difficulty 0.3
echo "== 2/2 teachers, students, page"
python -m tools.benchmark --jobs "${JOBS:-2}"
