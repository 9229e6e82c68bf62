"""Tiny datasets in the layouts of the published ones, with annotation files."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from datasets.coco_files import write_annotations

Box = tuple[float, float, float, float]  # x y w h


def struct(rows: list[dict]) -> np.ndarray:
    """Return a [1, n] MATLAB struct array. Without rows it is a [0, 0] number array, as MATLAB
    writes it."""
    if not rows:
        return np.zeros((0, 0))
    array = np.empty((1, len(rows)), [(key, "O") for key in rows[0]])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row.values())
    return array


def cell(values: list) -> np.ndarray:
    """Return an [n, 1] MATLAB cell array."""
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def located(box: Box | None) -> np.ndarray:
    """Return an `idlocate` matrix of the smallest unsigned type that can hold the box; [1, 0]
    without a box."""
    if box is None:
        return np.zeros((1, 0))
    return np.array([box], np.uint8 if max(box) < 256 else np.uint16)


def write_image(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).normal(128, 50, size[::-1])
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB").save(path)


def write_protocol(
    path: Path, variable: str, queries: list[tuple[str, Box, list[tuple[str, Box | None]]]]
) -> None:
    """Write a protocol.

    Args:
        queries: (image, box, [(gallery image, box or None), ...]) for each query.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def place(name, box, **more):
        return {"imname": name, "idlocate": located(box), "ishard": np.zeros((1, 1))} | more

    savemat(
        path,
        {
            variable: struct(
                [
                    {
                        "Query": struct([place(name, box, idname="p")]),
                        "Gallery": struct([place(*listing) for listing in gallery]),
                    }
                    for name, box, gallery in queries
                ]
            )
        },
        do_compression=True,
    )


def write_cuhk(
    root: Path,
    images: dict[str, list[Box]],
    pool: list[str],
    people: list[list[tuple[str, Box]]],
    protocols: dict[int, list],
) -> None:
    """Write a dataset in the layout of CUHK-SYSU.

    Args:
        people: the (image, box) pairs of each training identity.
        protocols: gallery size -> queries, see `write_protocol`.
    """
    folder = root / "annotation"
    (folder / "test/train_test").mkdir(parents=True)
    for name in images:
        write_image(root / "Image/SSM" / name)
    savemat(
        folder / "Images.mat",
        {
            "Img": struct(
                [
                    {
                        "imname": name,
                        "nAppear": len(boxes),
                        "box": struct([{"idlocate": located(b), "ishard": 0} for b in boxes]),
                    }
                    for name, boxes in images.items()
                ]
            )
        },
    )
    savemat(folder / "pool.mat", {"pool": cell(pool)})
    savemat(
        folder / "test/train_test/Train.mat",
        {
            "Train": cell(
                [
                    struct(
                        [
                            {
                                "idname": f"p{i}",
                                "nAppear": len(places),
                                "scene": struct(
                                    [
                                        {"imname": name, "idlocate": located(box), "ishard": 0}
                                        for name, box in places
                                    ]
                                ),
                            }
                        ]
                    )
                    for i, places in enumerate(people)
                ]
            )
        },
    )
    for size, queries in protocols.items():
        write_protocol(folder / f"test/train_test/TestG{size}.mat", f"TestG{size}", queries)


def write_prw(
    root: Path, train: dict[str, list], test: dict[str, list], queries: list, newline: str = "\r\n"
) -> None:
    """Write a dataset in the layout of PRW.

    Args:
        train, test: name of a frame, without .jpg -> list of (id, x, y, w, h).
        queries: (id, x, y, w, h, name of the frame).
    """
    (root / "annotations").mkdir(parents=True)
    variables = ("box_new", "anno_file", "anno_previous")
    for i, (name, rows) in enumerate((train | test).items()):
        write_image(root / "frames" / f"{name}.jpg")
        boxes = np.array(rows, np.float64).reshape(-1, 5)
        savemat(root / "annotations" / f"{name}.jpg.mat", {variables[i % 3]: boxes})
    for split, frames in (("train", train), ("test", test)):
        savemat(root / f"frame_{split}.mat", {f"img_index_{split}": cell(list(frames))})
    lines = (" ".join(map(str, query)) + newline for query in queries)
    (root / "query_info.txt").write_bytes("".join(lines).encode())


def write_own(root: Path, train: dict[str, list], test: dict[str, list], camera=None) -> None:
    """Write custom data.

    Args:
        train, test: name of an image -> list of (person_id, x, y, w, h).
        camera: function from the name of an image to its camera.
    """
    for split, images in (("train", train), ("test", test)):
        for name in images:
            write_image(root / name)
        scenes = [
            (
                {"file_name": name} | ({"camera": camera(name)} if camera else {}),
                [(list(xywh), pid) for pid, *xywh in rows],
            )
            for name, rows in images.items()
        ]
        write_annotations(root / f"{split}.json", scenes)
