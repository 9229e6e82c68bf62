"""Worker processes: if the machine lacks a resource, the run ends with one error line."""

import errno
import os
import resource
import signal

import pytest
import torch

from datasets import load_dataset
from datasets.loaders import Loader, SceneDataset
from tests.training import Run, children, differences, make_whole_run
from utils.errors import UserError

pytestmark = pytest.mark.slow
WORKERS = ("INPUT.NUM_WORKERS", "2")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config, and an uninterrupted run."""
    return make_whole_run(tmp_path_factory.mktemp("workers"))


def fails(run: Run, *said: str) -> None:
    assert run.wait() == 2, run.text
    lines = [line for line in run.text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: INPUT.NUM_WORKERS 2: "), run.text
    assert all(part in lines[0] for part in said), lines
    assert "OUTPUT_DIR" not in lines[0] and "Traceback" not in run.text


class Kill:
    """Kill the process that reads the fifth image."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self) -> None:
        read, calls = SceneDataset.__getitem__, iter(range(1, 1000))

        def killed(data, key):
            if next(calls) == 5:
                os.kill(os.getpid(), self.number)
            return read(data, key)

        SceneDataset.__getitem__ = killed


@pytest.mark.parametrize(
    "number, said",
    [
        (signal.SIGKILL, "memory"),
        (signal.SIGBUS, "--shm-size"),
        (signal.SIGSEGV, "SIGSEGV"),
    ],
)
def test_a_worker_that_dies(base, tmp_path, number, said):
    fails(Run(base, tmp_path, *WORKERS, sabotage=Kill(number)), said)


def second_fork_fails() -> None:
    fork, calls = os.fork, iter(range(1, 1000))

    def refused():
        if next(calls) == 2:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = refused


def no_memory_for_images() -> None:
    def read(data, key):
        raise MemoryError

    SceneDataset.__getitem__ = read


def test_workers_that_cannot_be_started_or_read(base, tmp_path):
    fails(Run(base, tmp_path, *WORKERS, sabotage=second_fork_fails), "temporarily unavailable")
    fails(Run(base, tmp_path, *WORKERS, sabotage=no_memory_for_images), "not enough memory")


class FewFiles:
    def __init__(self, number: int):
        self.number = number

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.number, self.number))


@pytest.mark.parametrize("number", [20, 40, 60, 100])
def test_few_file_descriptors(base, tmp_path, number):
    """The run trains, or its message names the limit and no folder."""
    run = Run(base, tmp_path, "INPUT.NUM_WORKERS", "5", sabotage=FewFiles(number))
    assert run.wait() in (0, 2), run.text
    assert "Traceback" not in run.text and "cannot be written" not in run.text
    if run.wait() == 2:
        assert "Too many open files" in run.text and run.text.count("error: ") == 1


def no_room() -> None:
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    torch.Tensor.share_memory_ = full


def test_without_shared_memory_images_go_through_pipes(base, tmp_path):
    """In Docker, /dev/shm has 64 MB by default."""
    run = Run(base, tmp_path, *WORKERS, sabotage=no_room)
    assert run.wait() == 0, run.text
    assert "--shm-size" in run.text and "INPUT.NUM_WORKERS" in run.text
    assert differences(tmp_path, base / "whole") == []


def a_gpu_is_there() -> None:
    """Simulate a GPU that cannot be used."""
    torch.cuda.is_available = lambda: True


def test_a_gpu_that_is_not_asked_for_is_left_alone(base, tmp_path):
    """The GPU may be full, so a run on the CPU does not pin memory."""
    run = Run(base, tmp_path, *WORKERS, sabotage=a_gpu_is_there)
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


def test_no_worker_outlives_the_iteration(base):
    scenes = load_dataset("CUHK-SYSU", str(base / "data" / "CUHK-SYSU")).train
    before = children(os.getpid())
    batches = iter(Loader(SceneDataset(scenes), [[(0, 0)], [(0, 1)], [(0, 2)]], 2))
    next(batches)
    assert len(children(os.getpid())) == len(before) + 2
    batches.close()
    assert children(os.getpid()) == before


def test_overlapping_loaders_leave_each_others_workers(base):
    scenes = load_dataset("CUHK-SYSU", str(base / "data" / "CUHK-SYSU")).train
    keys = [[(0, i % 3)] for i in range(9)]
    outer = iter(Loader(SceneDataset(scenes), keys, 2))
    next(outer)
    second = iter(Loader(SceneDataset(scenes), keys, 2))
    next(second)
    assert len(list(outer)) == 8
    assert len(list(second)) == 8


def test_a_defect_in_a_worker_keeps_its_traceback(base, monkeypatch):
    def defect(data, key):
        raise RuntimeError("a defect")

    scenes = load_dataset("CUHK-SYSU", str(base / "data" / "CUHK-SYSU")).train
    monkeypatch.setattr(SceneDataset, "__getitem__", defect)
    with pytest.raises(RuntimeError, match="a defect") as error:
        list(Loader(SceneDataset(scenes), [[(0, 0)]], 1))
    assert not isinstance(error.value, UserError)
