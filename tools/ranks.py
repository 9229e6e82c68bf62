"""Run torchrun, exit with the code of the rank that failed first, and print no traceback.

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
    """Run torchrun with the arguments of this program.

    Returns:
        The exit code of the rank that failed first. If a signal ended that rank or this program,
        128 + the number of the signal, as in a shell.
    """
    logging.disable(logging.ERROR)  # the ranks print their own errors
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        print(f"error: rank {rank} was terminated by {name}", file=sys.stderr)
        return 128 - failure.exitcode
    except (ValueError, AssertionError) as error:  # wrong arguments of torchrun
        print(f"error: torchrun: {reason_of(error)}; see --help", file=sys.stderr)
        return 2
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


if __name__ == "__main__":
    sys.exit(run())
