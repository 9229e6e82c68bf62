"""Watch live cameras: index the people who are seen, and raise alarms for wanted people.

    python -m tools.watch --index people SOURCE ...

A SOURCE is rtsp://…, http(s)://… (MJPEG or HLS), /dev/video0, or a video file, which is played at
the pace at which it was recorded. NAME=SOURCE names the camera. demo.py, tools.app and
tools.identities can read the index at the same time. Ctrl-C ends the program.

With --watch-for NAME=photo.jpg, each tracklet that matches is one line of JSON on stdout and in
alarms.jsonl in the index. docs/cameras.md states what the law requires, and what this program must
not be used for.
"""

import argparse
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from engine.cameras.alarms import Sender, Wanted
from engine.cameras.recorder import DAY, Limits, Recorder
from engine.cameras.sources import Camera, LiveCameras, name_cameras, recorded_rounds
from engine.cameras.times import local_time, seconds_of
from engine.cameras.watch import StatusLine, recording, watch, watched_for
from engine.cameras.watcher import Watcher
from engine.default_network import add_network_options, network_of, parse_sources
from engine.index.gallery_index import index_folder
from engine.index.local import LocalPeople, follow, writing
from engine.index.records import camera_path
from engine.index.vectors import EXACT
from engine.search.arguments import (
    QueryArgument,
    add_limits,
    check_min_similarity,
    min_similarity_of,
)
from engine.search.program import choose_person, read_query
from engine.search.searcher import Searcher
from utils.addresses import is_address
from utils.arguments import program_parser
from utils.errors import UserError, run_main
from utils.memory import keep_freed_memory
from utils.signals import Signals, Stopped
from utils.streams import is_stream
from utils.videos import video_seconds
from utils.wall_clock import WallClock

MARGIN = 2.0  # seconds


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add_network_options(parser)
    add("--index", required=True, type=index_folder, metavar="FOLDER", help="the index")
    add(
        "--name",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a camera and its name; may be repeated",
    )
    add(
        "--watch-for",
        action="append",
        default=[],
        metavar="NAME=PHOTO[:PERSON]",
        help="raise an alarm for this person: a photograph, and the number of the person in it if "
        "it shows several; may be repeated",
    )
    add_limits(parser, "minimum similarity of an alarm")
    add("--post", metavar="URL", help="post each alarm to this address")
    add(
        "--keep-days",
        type=float,
        default=math.inf,
        metavar="N",
        help="remove people and pictures of cameras after N days (default: never)",
    )
    add(
        "--max-gb",
        type=float,
        default=math.inf,
        metavar="N",
        help="maximum size of all pictures, beyond which the oldest are removed (default: none)",
    )
    add(
        "--recorded",
        metavar="TIME",
        help="the files are recordings that began at this time, as 2026-01-31T08:00:00: read every "
        "frame, as fast as the network allows",
    )
    add(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="SOURCE or NAME=SOURCE; also config values as KEY VALUE: DEVICE cpu",
    )
    return parse_sources(parser)


def check(args: argparse.Namespace, cameras: list[Camera]) -> None:
    """Check the options.

    Raises:
        UserError: if options are out of range or do not fit together.
    """
    if not cameras:
        raise UserError("SOURCE: expected at least one camera, found none")
    for option in ("keep_days", "max_gb"):
        if not (value := getattr(args, option)) > 0:
            raise UserError(f"--{option.replace('_', '-')}: expected more than 0, found {value:g}")
    threshold = args.min_similarity is not None or args.false_alarms is not None
    if args.watch_for and not threshold:
        raise UserError("--watch-for: expected --false-alarms or --min-similarity with it")
    for option in ("false_alarms", "min_similarity", "post"):
        if getattr(args, option) is not None and not args.watch_for:
            raise UserError(
                f"--{option.replace('_', '-')}: expected with --watch-for, found without"
            )
    check_min_similarity(args.min_similarity)
    if args.post is not None and not (
        is_address(args.post) and args.post.lower().startswith(("http://", "https://"))
    ):
        raise UserError("--post: expected an address that begins with http:// or https://")
    if args.recorded is not None:
        age = time.time() - seconds_of(args.recorded)
        if age < 0:
            raise UserError(f"--recorded {args.recorded}: expected a time in the past")
        if age > DAY * args.keep_days:
            raise UserError(
                f"--keep-days: expected at least the {age / DAY:.1f} days since --recorded, found "
                f"{args.keep_days:g}: everyone in the recordings would be removed at once"
            )
    live = [camera.name for camera in cameras if is_stream(camera.source)]
    if args.recorded and live:
        raise UserError(f"--recorded: expected files only, found the camera {live[0]}")


def wanted_people(args: argparse.Namespace, searcher: Searcher) -> list[Wanted]:
    """Embed the people of --watch-for. Several photographs of one name are averaged."""
    photos: dict[str, list[Tensor]] = {}
    for argument in args.watch_for:
        name, equals, photo = argument.partition("=")
        if not (name and equals and photo):
            raise UserError(f"--watch-for {argument}: expected NAME=PHOTO or NAME=PHOTO:PERSON")
        path, colon, number = photo.rpartition(":")
        person = int(number) if colon and number.isdecimal() else None
        query = QueryArgument(
            Path(photo if person is None else path),
            person=person,
            option=f"--watch-for {name}=",
            choice=":{}",
        )
        pixels = read_query(query, searcher.max_pixels)
        chosen = choose_person(query, pixels, searcher, args.index, "--index")
        photos.setdefault(name, []).append(searcher.embed(pixels, chosen.box[None]))
    return watched_for(photos)


def make_recorder(people: LocalPeople, args: argparse.Namespace, cameras: list[Camera]) -> Recorder:
    follow(args.index, people, people.fact("kind") or EXACT)
    limits = Limits(args.keep_days, args.max_gb * 1e9)
    names = [camera.name for camera in cameras]
    recorder = Recorder(people, args.index, names, limits, args.false_alarms)
    recorder.followed = people.last_given()
    return recorder


def check_new(people: LocalPeople, cameras: list[Camera], began: float, max_pixels: int) -> None:
    """Check that the index contains nobody of the time of these recordings, since the same people
    would be added again.

    Successive recordings may overlap by MARGIN, since TIME is often rounded.

    Raises:
        UserError: if it does.
    """
    for camera in cameras:
        length = video_seconds(Path(camera.source), max_pixels)
        length = math.inf if length is None else length
        margin = min(MARGIN, length / 4)
        span = began + margin, began + length - margin
        if seen := people.seen_between(camera_path(camera.name), *span):
            first, last = map(local_time, seen)
            raise UserError(
                f"{camera.name}: expected a recording that the index does not contain, found "
                f"people of this camera from {first} to {last}; to read it again, remove them with "
                f"tools.identities --forget --camera {camera.name} --after TIME --before TIME"
            )


def clock_of(people: LocalPeople, cameras: list[Camera]) -> WallClock:
    """Return a clock that begins after what the index already contains of these cameras."""
    until = {camera.name: people.read_until(camera_path(camera.name)) for camera in cameras}
    last = max(until, key=until.__getitem__)
    clock = WallClock(until[last])
    if (ahead := clock.ahead()) > 1:
        print(
            f"{last}: this machine's clock is {ahead:.0f} s behind the index; times of all cameras "
            "continue from its last one",
            file=sys.stderr,
        )
    return clock


def run_watch(args: argparse.Namespace, cameras: list[Camera], searcher: Searcher, signals) -> int:
    """Watch until the files have ended or a signal comes. Return the number of frames."""
    wanted = wanted_people(args, searcher)
    min_similarity = math.inf if args.min_similarity is None else args.min_similarity
    watchers = [Watcher(wanted, min_similarity) for _ in cameras]
    with ExitStack() as stack:
        people = stack.enter_context(writing(args.index, searcher.origin))
        recorder = make_recorder(people, args, cameras)
        sender = Sender(args.index, args.post) if args.post else None
        stopped = lambda: bool(signals.number)  # noqa: E731
        if args.recorded:
            began, limit = seconds_of(args.recorded), searcher.max_pixels
            check_new(people, cameras, began, limit)
            rounds = recorded_rounds(cameras, began, searcher.batch_size, limit)
            stack.enter_context(recording(recorder, sender))
            return watch(rounds, searcher, watchers, recorder, stopped)
        clock = clock_of(people, cameras)
        stack.enter_context(recording(recorder, sender))
        readers = stack.enter_context(LiveCameras(cameras, clock, searcher.max_pixels))
        status = StatusLine(readers.readers)
        return watch(readers.rounds(), searcher, watchers, recorder, stopped, clock.now, status)


def main() -> None:
    args = parse_args()
    cfg, checkpoint = network_of(args.cfg, args.ckpt, args.overrides)
    cameras = name_cameras([*args.name, *args.sources], cfg.INPUT.MAX_PIXELS)
    check(args, cameras)
    if args.watch_for:
        args.min_similarity = min_similarity_of(args, checkpoint)
    searcher = Searcher.load(cfg, checkpoint)
    del checkpoint  # the network has its own copy of the weights
    keep_freed_memory(searcher.device.type)
    signals = Signals()
    with signals.install(), signals.defer():
        frames = run_watch(args, cameras, searcher, signals)
    print(f"{frames} frames seen", file=sys.stderr)
    if signals.number:
        raise Stopped(signals.number, "what was seen is in the index")


if __name__ == "__main__":
    run_main(main)
