"""The Searcher has the results of the network, with any kind of input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision.ops import MultiScaleRoIAlign

from configs.defaults import load_cfg
from engine.evaluation.metrics import SEARCH_SCORE
from engine.index.gallery_index import GalleryIndex
from engine.index.records import Sample, Source
from engine.search.searcher import Searcher, to_pixels
from models.build import build_net
from models.fast.roi_align import GatheredRoIAlign
from tests.tiny import TINY, pairs
from utils.errors import UserError

CPU = torch.device("cpu")
CFG = load_cfg(None, pairs(TINY))


def make_net(seed: int):
    """Return a network with detections in every image."""
    torch.manual_seed(seed)
    net = build_net(CFG, num_pids=3).eval()
    net.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([-5.0, 5.0])
    return net


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    return Searcher(make_net(0), CPU, batch_size=2)


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*size[::-1], 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def test_what_is_no_picture_is_refused(searcher: Searcher) -> None:
    array = np.zeros((64, 96, 3), np.uint8)
    pixels = to_pixels(picture(0))
    shapes = [pixels[0]], [pixels.permute(1, 2, 0)], [pixels[:1]]
    for wrong in ("plaza.jpg", Path("plaza.jpg"), picture(0), pixels, [array], [None], *shapes):
        with pytest.raises(UserError, match="^pictures?: expected "):
            searcher.detect(wrong)
    with pytest.raises(UserError, match=r"^picture: expected .* found ndarray \[64, 96, 3\]$"):
        searcher.embed(array, torch.zeros(0, 4))
    assert len(searcher.detect(torch.stack([to_pixels(picture(i)) for i in range(2)]))) == 2


def test_detect_is_the_networks_own_pass(searcher: Searcher, tmp_path: Path) -> None:
    sizes = [(96, 64), (60, 90), (96, 64), (96, 64), (60, 90)]
    pictures = [picture(i, size) for i, size in enumerate(sizes)]
    pictures[1].save(tmp_path / "1.png")
    given = [pictures[0], tmp_path / "1.png", to_pixels(pictures[2]), *pictures[3:]]
    for image, found in zip(pictures, searcher.detect(given)):
        pixels = to_pixels(image).float() / 255
        (alone,), _ = searcher.net.detect_and_embed([pixels], [torch.zeros(0, 4)])
        assert len(found.boxes) == int((alone.scores >= SEARCH_SCORE).sum()) > 0
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.embeddings, alone.embeddings, atol=1e-4, rtol=1e-3)


def test_pillows_images_are_what_their_files_are(tmp_path: Path) -> None:
    """Transparency, 16-bit grey and EXIF orientation are treated as in files."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    clear = picture(5).convert("RGBA")
    clear.putalpha(70)
    deep = Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16))
    for image, options in ((clear, {}), (deep, {}), (picture(6), {"exif": exif})):
        image.save(tmp_path / "a.png", **options)
        with Image.open(tmp_path / "a.png") as opened:
            assert torch.equal(to_pixels(opened), to_pixels(tmp_path / "a.png"))


def test_a_truncated_pillow_image_is_one_line(tmp_path):
    picture(0).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "b.png") as opened, pytest.raises(UserError, match="picture: "):
        to_pixels(opened)


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_embed_runs_no_detection(searcher: Searcher, monkeypatch, amp) -> None:
    """The embedding of a query equals that of detect_and_embed, without proposals."""
    pixels, boxes = to_pixels(picture(2)), torch.tensor([[10, 5, 40, 60.0], [0, 0, 9, 9]])
    _, (expected,) = searcher.net.detect_and_embed([pixels], [boxes], amp)
    monkeypatch.setattr(type(searcher.net.rpn), "forward", None)
    found = Searcher(searcher.net, CPU, amp=amp).embed(pixels, boxes)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)


def test_numpys_boxes(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes may be float64 with either implementation of RoIAlign."""
    boxes = np.array([[10, 5, 40, 60.0]])
    wanted = searcher.embed(picture(2), torch.from_numpy(boxes).float())
    for pool in (GatheredRoIAlign.forward, MultiScaleRoIAlign.forward):
        monkeypatch.setattr(GatheredRoIAlign, "forward", pool)
        found = searcher.embed(picture(2), torch.from_numpy(boxes))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_the_person_who_is_embedded_is_found(searcher: Searcher) -> None:
    index, people = GalleryIndex(), searcher.detect([picture(1), picture(2)])
    for i, found in enumerate(people):
        index.people.add(Source(Path(f"/{i}.jpg"), 1, 1), [Sample(None, found)])
    wanted = searcher.embed(picture(2), people[1].boxes[1:2])
    torch.testing.assert_close(wanted.norm(dim=1), torch.ones(1))
    matches = searcher.search(wanted, index, top=99)
    assert len(matches) == len(people[0].boxes) + len(people[1].boxes)
    own = next(m for m in matches if m.person.box == tuple(people[1].boxes[1].tolist()))
    assert own.person.path == Path("/1.jpg")
    assert own.similarity == pytest.approx(float(people[1].scores[1]), abs=1e-3)


def test_the_probe_tells_networks_apart(searcher: Searcher) -> None:
    again, other = Searcher(make_net(0), CPU), Searcher(make_net(1), CPU)
    assert searcher.origin.differs_from(again.origin) == ""
    assert searcher.origin.differs_from(other.origin) == "other weights"
    trained = make_net(0)
    with torch.no_grad():
        for weight in trained.parameters():
            weight *= 1 + 0.01 * torch.randn_like(weight)
    assert searcher.origin.differs_from(Searcher(trained, CPU).origin) == "other weights"
