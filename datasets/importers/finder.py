"""Search for the images that an annotation file names, in whatever form a tool writes their
names."""

import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.picture_paths import spellings
from utils.errors import UserError
from utils.sources import PICTURE, VIDEO, walk

HASH = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
Parts = tuple[str, ...]
# The name of an image in an annotation file, with the names of folders that may contain the image.
Named = tuple[str, Collection[str]]


@dataclass(frozen=True)
class Candidate:
    """An image that a name may denote.

    Attributes:
        rank: how well the two agree; the highest is best.
        base: the folder to which the name is relative.
    """

    rank: tuple[bool, int, int]
    base: Path
    path: Path


class Finder:
    """The images and videos in some folders, which can be found by the last parts of their
    paths."""

    def __init__(self, roots: Sequence[Path]):
        files, _ = walk(roots, "--images", (PICTURE, VIDEO))
        self.roots = roots
        self.images = [file.path for file in files if file.kind == PICTURE]
        self.videos = [file.path for file in files if file.kind == VIDEO]
        self.named: dict[str, list[Path]] = {}
        self.stems: dict[str, list[Path]] = {}
        for path in self.images:
            self.named.setdefault(path.name, []).append(path)
            self.stems.setdefault(path.stem, []).append(path)

    def find(self, files: Sequence[Sequence[Named]]) -> list[list[Path | None]]:
        """Find the images of all annotation files of a source.

        If several images fit a name, those that share the most folders with it are kept; of these,
        those in a folder among the hints; of these, those in the folder in which most names of the
        file have an image. An image belongs to the names that agree best with it, so that a name
        whose image is missing does not get that of another one.

        Args:
            files: the names in each annotation file.

        Returns:
            For each file the images of its names; None if there is none.

        Raises:
            UserError: if several different images remain.
        """
        found = [self._candidates(names) for names in files]
        most: dict[Path, tuple[bool, int, int]] = {}
        for one in (one for names in found for some in names for one in some):
            most[one.path] = max(one.rank, most.get(one.path, one.rank))
        own = [
            [[one for one in some if one.rank == most[one.path]] for some in names]
            for names in found
        ]
        return [_choose(names, some) for names, some in zip(files, own)]

    def _candidates(self, names: Sequence[Named]) -> list[list[Candidate]]:
        """Return the images that each name of one annotation file may denote.

        The folders of a path and a name are compared from the end. Where they first differ, the
        path must not have a folder that another name has there: cam2/1.jpg is not the image of
        "cam1/1.jpg" if "cam2/7.jpg" is a name too.
        """
        folders: dict[int, set[str]] = defaultdict(set)
        ends = [ends_of(name) for name, _ in names]
        for parts in (parts for some in ends for parts in some):
            for level, folder in enumerate(reversed(parts[:-1])):
                folders[level].add(folder)
        found: list[list[Candidate]] = []
        for some, (_, hints) in zip(ends, names):
            found.append([])
            for order, parts in enumerate(some):
                same, stems = self.named.get(parts[-1], []), self.stems
                for path in same or stems.get(parts[-1]) or stems.get(Path(parts[-1]).stem, []):
                    agree = agreement(path.parts[:-1], parts[:-1])
                    differing = path.parts[:-1][::-1][agree : agree + 1]
                    if agree < len(parts) - 1 and folders[agree].intersection(differing):
                        continue
                    hinted = any(hint in path.parts for hint in hints)
                    rank = bool(same), 2 * agree + hinted, -order
                    found[-1].append(Candidate(rank, path.parents[agree], path))
        return found

    def videos_named(self, name: str, hints: Collection[str]) -> Sequence[Path]:
        """Return the videos with this name; if some of them are in a folder among the hints, only
        these."""
        wanted = PurePosixPath(name.replace("\\", "/")).name
        return _hinted([video for video in self.videos if video.name == wanted], hints)

    def video(self, name: str, hints: Collection[str]) -> Path | None:
        """Return the video with this name, with or without its suffix, or the only video if there
        is just one.

        Raises:
            UserError: if there are several different videos with this name.
        """
        found = self.videos_named(name, hints)
        stem = PurePosixPath(name.replace("\\", "/")).stem
        found = found or [video for video in self.videos if name and video.stem == stem]
        found = found or (self.videos if len(self.videos) == 1 else [])
        return only(_hinted(found, hints), f"{name}: expected one video of this name")


def _hinted(paths: Sequence[Path], hints: Collection[str]) -> Sequence[Path]:
    """Return the files in a folder among the hints; all of them if there is none."""
    return [path for path in paths if any(hint in path.parts for hint in hints)] or paths


def _choose(names: Sequence[Named], found: Sequence[Sequence[Candidate]]) -> list[Path | None]:
    """Return the image of each name of one annotation file; None if there is none."""
    ranks = [max((one.rank for one in some), default=None) for some in found]
    best = [[one for one in some if one.rank == rank] for some, rank in zip(found, ranks)]
    bases = Counter(base for some in best for base in {one.base for one in some})
    chosen = []
    for (name, _), some in zip(names, best):
        most = max((bases[one.base] for one in some), default=0)
        paths = list(dict.fromkeys(one.path for one in some if bases[one.base] == most))
        chosen.append(only(paths, f"{name}: expected one image of this name"))
    return chosen


def only(paths: Sequence[Path], expected: str) -> Path | None:
    """Return the first of files with equal content; None if there is no file.

    Raises:
        UserError: if the files differ; the message begins with `expected`.
    """
    if other := next((path for path in paths[1:] if not filecmp.cmp(paths[0], path, False)), None):
        raise UserError(f"{expected}, found {paths[0]} and {other}; give its folder with --images")
    return paths[0] if paths else None


def agreement(path: Parts, name: Parts) -> int:
    """Return how many folders at the end of the two paths are equal."""
    count = 0
    for one, other in zip(reversed(path), reversed(name)):
        if one != other:
            break
        count += 1
    return count


def ends_of(name: str) -> list[Parts]:
    """Return the paths that a name may denote.

    For an address these are its path, or the file that Label Studio serves (`?d=`). "%20" is
    decoded, and the prefix of an uploaded file is removed.
    """
    address = name.partition("?d=")[2] or (name.partition("?")[0] if "://" in name else name)
    ends = []
    for spelling in spellings(address):
        parts = [part for part in PurePosixPath(spelling).parts if part not in ("/", ".", "..")]
        if parts:
            ends.append((*parts,))
            ends.append((*parts[:-1], HASH.sub("", parts[-1])))
    return list(dict.fromkeys(ends))
