#!/usr/bin/env bash
# The tests, two at a time, in the same environment as everything else; arguments go to pytest:
#   bash job_test.sh -m "not slow"      # in under a minute
set -euo pipefail
requirements=requirements-dev.txt
source "$(dirname "$0")/tools/environment.sh"
export OMP_NUM_THREADS=1 # of each of the two processes
exec python -m pytest -n 2 --dist loadfile "$@"
