#!/usr/bin/env bash
# All tests, in two processes. Arguments are passed to pytest:
#   bash job_test.sh -m "not slow"      # only the quick tests, about a minute
set -euo pipefail
requirements=requirements-dev.txt
source "$(dirname "$0")/tools/jobs/environment.sh"
export OMP_NUM_THREADS=1 # threads of each process
exec python -m pytest -n 2 --dist loadfile "$@"
