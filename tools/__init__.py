"""Programs, each started by `python -m tools.NAME`; their shared code is in the folders here."""

import sys

from utils.early import leave_on_signals

if sys.argv[0] == "-m":  # Python is about to run one of the programs
    leave_on_signals()
