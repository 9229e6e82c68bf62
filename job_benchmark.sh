#!/usr/bin/env bash
# The benchmark: data, then the teachers and rows that docs/benchmark/runs/ lacks, then
# docs/benchmark.md. All rows take more than a day of two cores; run again, it continues where it
# stopped. JOBS=N (2): trainings at once, which share the cores.
set -euo pipefail
source "$(dirname "$0")/tools/environment.sh"

echo "== 1/2 synthetic dataset"
python -m tools.make_synthetic --out data/benchmark --layout cuhk \
    --identities 375 --frames 1250 --queries 250 --seed 7 --difficulty 0.3
echo "== 2/2 teachers, students, page"
python -m tools.benchmark --jobs "${JOBS:-2}"
