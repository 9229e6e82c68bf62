"""Small programs, each started by python -m tools.NAME."""

import sys

from utils.early import leave_on_signals

if sys.argv[0] == "-m":  # one of them starts
    leave_on_signals()
