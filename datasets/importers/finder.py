"""Search for the images that an annotation file names, in whatever form a tool writes their
names."""

import filecmp
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from datasets.picture_paths import spellings
from utils.errors import UserError
from utils.sources import PICTURE, VIDEO, walk

HASH = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
Parts = tuple[str, ...]


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

    def find(self, names: Sequence[tuple[str, Collection[str]]]) -> list[Path | None]:
        """Find the image of each name; None if there is none.

        If several images fit, those that share the most folders with the name are kept; of these,
        those in a folder among the hints; of these, those in the folder in which most names have an
        image.

        Args:
            names: each with hints, the names of folders that may contain the image.

        Raises:
            UserError: if several different images remain.
        """
        found = [self._candidates(name, hints) for name, hints in names]
        bases = Counter(base for some in found for base in {base for base, _ in some})
        chosen: list[Path | None] = []
        for (name, _), some in zip(names, found):
            most = max((bases[base] for base, _ in some), default=0)
            best = list(dict.fromkeys(path for base, path in some if bases[base] == most))
            chosen.append(only(best, f"{name}: expected one image of this name"))
        return chosen

    def _candidates(self, name: str, hints: Collection[str]) -> list[tuple[Path, Path]]:
        """Return the best images for a name, each with the folder to which the name is relative."""
        ranked: list[tuple[tuple[bool, int, int], Path, Path]] = []
        for order, parts in enumerate(ends_of(name)):
            same, stems = self.named.get(parts[-1], []), self.stems
            for path in same or stems.get(parts[-1]) or stems.get(Path(parts[-1]).stem, []):
                agree = agreement(path.parts[:-1], parts[:-1])
                hinted = any(hint in path.parts for hint in hints)
                base = path.parents[agree]
                ranked.append(((bool(same), 2 * agree + hinted, -order), base, path))
        best = max((rank for rank, _, _ in ranked), default=None)
        return [(base, path) for rank, base, path in ranked if rank == best]

    def video(self, name: str, hints: Collection[str]) -> Path | None:
        """Return the video with this name, or the only video if there is just one.

        Of several videos with this name, those in a folder among the hints are kept.

        Raises:
            UserError: if several different videos remain.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        found = [video for video in self.videos if video.name == wanted.name]
        found = found or [video for video in self.videos if name and video.stem == wanted.stem]
        found = found or (self.videos if len(self.videos) == 1 else [])
        hinted = [video for video in found if any(hint in video.parts for hint in hints)]
        return only(hinted or found, f"{name}: expected one video of this name")


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
