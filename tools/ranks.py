"""torchrun with the exit code of the rank that failed first, and no traceback over its one line:
python -m tools.ranks --standalone --nproc_per_node=4 train_base.py --cfg FILE
"""

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from utils.errors import reason_of


def run() -> int:
    """As a shell tells it: 128 + signal where one ended the rank, or this program."""
    logging.disable(logging.ERROR)  # ranks tell why they end
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        print(f"error: rank {rank} was ended by {name}", file=sys.stderr)
        return 128 - failure.exitcode
    except (ValueError, AssertionError) as error:  # of torchrun's own arguments
        print(f"error: torchrun: {reason_of(error)}; see --help", file=sys.stderr)
        return 2
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


if __name__ == "__main__":
    sys.exit(run())
