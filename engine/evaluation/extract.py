"""Extraction of the features of gallery and queries in one pass. The results are written
immediately."""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.base import SearchDataset
from datasets.loaders import Loader, SceneDataset
from datasets.types import Scene
from engine.evaluation.cache import Cache
from models.network import Network
from models.outputs import Detections
from utils.errors import UserError, reason_of
from utils.files import open_file
from utils.limits import MAX_PIXELS
from utils.media import picture_size

KINDS = ("gallery", "query")  # of the records in a part


def extract(
    net: Network,
    dataset: SearchDataset,
    device: torch.device,
    path: Path,
    batch_size: int,
    workers: int,
    amp: torch.dtype | None = None,
    use_gt: bool = False,
    context: bool = False,
    part: tuple[int, int] = (0, 1),
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write the features of a part of the gallery, and of the queries in it, to `path`.

    Each query image is also a gallery image, so the network processes it once.

    Args:
        path: of the file; `collect` joins the files of all parts.
        amp: precision of the backbone; None: float32.
        use_gt: use the annotated boxes instead of detections.
        context: add the people around each query. As in the release, they are detected even with
            `use_gt`.
        part: (r, n) selects the gallery images r, r + n, r + 2n, …
    """
    net.eval()
    scenes, asked = dataset.gallery, queries_of(dataset)
    numbers = range(part[0], len(scenes), part[1])
    batches = batches_of_one_size(dataset, asked, numbers, batch_size, max_pixels)
    keys = [[(0, i) for i in batch] for batch in batches]
    data = SceneDataset(scenes, max_pixels=max_pixels)
    loader = Loader(data, keys, workers, pin=device.type == "cuda")
    bar = tqdm(loader, "gallery", unit="batch", mininterval=1, disable=part[0] > 0)
    with _writing(path) as write:
        for batch, (images, targets) in zip(batches, bar):
            people = [t["boxes"] if use_gt else t["boxes"][:0] for t in targets]
            given = [torch.cat([p, query_boxes(dataset, asked[i])]) for p, i in zip(people, batch)]
            given = [boxes.to(device) for boxes in given]
            found, embeddings = net.detect_and_embed(
                [image.to(device) for image in images], given, amp
            )
            for i, seen, boxes, vectors in zip(batch, found, given, embeddings):
                first = len(boxes) - len(asked[i])
                truth = Detections(boxes, boxes.new_ones(len(boxes)), vectors)
                everyone = truth[:first] if use_gt else seen
                write("gallery", i, everyone, everyone.weighted_embeddings)
                for row, query in enumerate(asked[i], first):
                    own = truth[row : row + 1]
                    own = net.put_first(own, seen) if context else own
                    write("query", query, own, own.embeddings)


def collect(paths: Iterable[Path], dataset: SearchDataset) -> Cache:
    """Join the files of all parts to a cache, in the order of the dataset."""
    sizes = {"gallery": len(dataset.gallery), "query": len(dataset.queries)}
    cache = {f"{kind}_{name}": [None] * sizes[kind] for kind in KINDS for name in ("dets", "feats")}
    for path in paths:
        for kind, index, rows in _read(path):
            cache[f"{kind}_dets"][index] = rows[:, :5].clone()  # a view would keep all of `rows`
            cache[f"{kind}_feats"][index] = rows[:, 5:].clone()
    return cache | {"query_box_feats": [feats[0].clone() for feats in cache["query_feats"]]}


def queries_of(dataset: SearchDataset) -> dict[int, list[int]]:
    """Return the numbers of the queries in each gallery image."""
    asked = defaultdict(list)
    for number, query in enumerate(dataset.queries):
        asked[query.scene].append(number)
    return asked


def query_boxes(dataset: SearchDataset, queries: list[int]) -> Tensor:
    """Return the boxes of queries, [m, 4] x1 y1 x2 y2."""
    boxes = [dataset.queries[query].box for query in queries]
    return torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4))


def batches_of_one_size(
    dataset: SearchDataset,
    asked: dict[int, list[int]],
    indices: Iterable[int],
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
) -> list[list[int]]:
    """Divide gallery images into batches of images of one size.

    Padding to a common size would change the features at an image's border.

    Raises:
        UserError: if a query box lies outside its image.
    """
    groups = defaultdict(list)
    for i in indices:
        scene = dataset.gallery[i]
        width, height = picture_size(scene.path, scene.upright, max_pixels)
        groups[width, height].append(i)
        check_queries(dataset.gallery[i], query_boxes(dataset, asked.get(i, [])), width, height)
    return [
        some[k : k + batch_size]
        for some in groups.values()
        for k in range(0, len(some), batch_size)
    ]


def check_queries(scene: Scene, boxes: Tensor, width: float, height: float) -> None:
    """Check that the query boxes [m, 4] overlap their image.

    Raises:
        UserError: if a box does not.
    """
    for x1, y1, x2, y2 in boxes.tolist():
        if not (x1 < min(x2, width) and y1 < min(y2, height)):
            raise UserError(
                f"{scene.path}: query box {x1:g} {y1:g} {x2:g} {y2:g}: expected one within the "
                f"image, which is {width:g} x {height:g} pixels"
            )


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[str, int, Detections, Tensor], None]]:
    """Yield a function that appends a record to the file at `path`.

    The file is removed after an error or a signal.
    """
    try:
        with _naming_file(path):
            file = open(path, "wb")  # noqa: SIM115, closed below

        def write(kind: str, index: int, found: Detections, embeddings: Tensor) -> None:
            with _naming_file(path):
                file.write(_record(kind, index, found, embeddings))
                file.flush()  # a full disk raises here

        try:
            yield write
        finally:
            with _naming_file(path):  # closing writes the buffer again
                file.close()
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


@contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)})") from None


def _record(kind: str, index: int, found: Detections, embeddings: Tensor) -> bytes:
    """Encode the kind and index, followed by [n, 5 + D]: x1 y1 x2 y2 score embedding."""
    rows = torch.cat([found.boxes, found.scores[:, None], embeddings], 1)
    record = io.BytesIO()
    np.save(record, np.array([KINDS.index(kind), index]))
    np.save(record, rows.float().cpu().numpy())
    return record.getvalue()


def _read(path: Path) -> Iterator[tuple[str, int, Tensor]]:
    with open_file(path, "OUTPUT_DIR, which all ranks must share:") as file:
        size = path.stat().st_size
        while file.tell() < size:
            kind, index = np.load(file).tolist()
            yield KINDS[kind], index, torch.from_numpy(np.load(file))
