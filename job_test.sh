#!/usr/bin/env bash
# The tests, in the same environment as everything else; arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/tools/environment.sh"
exec python -m pytest "$@"
