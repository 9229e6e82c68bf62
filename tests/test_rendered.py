"""Rendered data: geometry, plan, labels, resuming; with anny and embreex, the images."""

import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets.rendered as rendered
from datasets import UNLABELED, load_dataset
from datasets.rendered import camera as cam
from datasets.rendered import materials_people as people
from datasets.rendered import materials_places as surfaces
from datasets.rendered.annotations import annotate, choose_queries, write_part
from datasets.rendered.clothes import clip
from datasets.rendered.faults import draw_sensor, expose
from datasets.rendered.labels import LARGE, Label, keep, label, outline_points
from datasets.rendered.looks import look_of
from datasets.rendered.materials import Plain
from datasets.rendered.meshes import ball, box, lathe, moved, prism, tube
from datasets.rendered.places import PLACES
from datasets.rendered.plan import FRAMINGS, Moment, make_plan
from datasets.rendered.poses import CYCLING, KINDS, SEATED, UMBRELLA, draw_pose
from datasets.rendered.site import Site
from datasets.rendered.staging import draw_camera, draw_focus
from tests.test_synthetic import digest
from utils.errors import UserError

GREY = Plain((0.5, 0.5, 0.5))
SMALL = dict(frames=10, identities=6, cameras=2, size=(96, 64), workers=1, progress=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_rays_pass_through_the_points_that_are_projected():
    camera = cam.look_at((1.0, -4.0, 2.5), (0.5, 1.0, 1.0), 300.0, (320, 180), roll=0.1)
    points = rng().uniform((-1, -1, 0), (1, 2, 2), (50, 3))
    pixels, depth = camera.project(points)
    assert (depth > 0).all()
    ways = points - np.asarray(camera.place)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    assert np.allclose(camera.rays(*pixels.T), ways, atol=1e-5)
    middle, _ = camera.project(np.array([[0.5, 1.0, 1.0]]))
    assert np.allclose(middle, (160, 90))


def test_pixels_count_right_and_down_and_boxes_end_at_the_border():
    camera = cam.look_at((0, -5, 1), (0, 0, 1), 200.0, (200, 100))
    left, right, high = camera.project(np.array([[-1, 0, 1], [1, 0, 1], [0, 0, 2.0]]))[0]
    assert left[0] < 100 < right[0] and high[1] < 50
    behind = np.array([[0, -9, 1.0]])
    assert cam.extent(camera, behind) is None
    whole = cam.extent(camera, np.array([[-1, 0, 0], [4, 0, 3], *behind]))
    assert np.allclose(whole, [60, -30, 260, 90])
    assert np.allclose(cam.clipped(whole, camera.size), [60, 0, 200, 90])


@pytest.mark.parametrize(
    "mesh",
    [
        box((1, 2, 3), GREY, (1, 1, 0)),
        ball((0.5, 1, 2), GREY),
        tube(np.array([(0, 0, 0), (0, 0, 1), (1, 0, 2)]), [0.2, 0.1, 0.1], GREY),
        lathe(np.array([(0.01, 0), (1, 0.5), (0.01, 1)]), GREY),
        prism(np.array([(1, 0), (0, 1), (-1, 0)]), 2.0, GREY),
    ],
)
def test_solids_have_unit_normals_and_move_without_their_rest_coordinates(mesh):
    assert mesh.triangles.min() == 0 and mesh.triangles.max() == len(mesh.vertices) - 1
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3)
    there = moved(mesh, (1, 2, 3), np.pi / 2)
    assert np.array_equal(there.rest, mesh.rest)
    x, y, z = mesh.vertices.T
    assert np.allclose(there.vertices, np.stack([1 - y, 2 + x, 3 + z], 1), atol=1e-5)


def test_a_mesh_is_cut_along_the_zero_line_of_a_field():
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0.0)])
    start, end, share, triangles = clip(np.array([[0, 1, 2], [0, 2, 3]]), corners[:, 0] - 0.25)
    points = corners[start] * (1 - share[:, None]) + corners[end] * share[:, None]
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(0.75)
    assert points[:, 0].min() == pytest.approx(0.25)


@pytest.mark.parametrize(
    "material",
    [
        *(people.Cloth((0.1, 0.2, 0.3), (0.5,) * 3, name, front="zip") for name in people.PATTERNS),
        people.Cloth((0.1, 0.2, 0.3), (0.5,) * 3, front="buttons"),
        people.Skin((0.4, 0.3, 0.2), (0.1,) * 3, beard=1.0),
        people.Eye((0.1, 0.1, 0.1), (0.31, 7.285)),
        people.Shoe((0.1, 0.1, 0.1), (0.5, 0.5, 0.5)),
        people.Hair((0.1, 0.1, 0.1)),
        surfaces.Leaves((0.1, 0.3, 0.1)),
        surfaces.Ground((0.3, 0.3, 0.3), tile=0.5, grass=0.5, line=1.0),
        surfaces.Wall((0.3,) * 3, 1.0, 1.0, (2.0, 3.0, 0.5), 1.0, 0.1, (0.5, 0.1, 0.1)),
        surfaces.Print((0.3,) * 3, (0.1,) * 3, (0.8,) * 3, 1.0, 0.5, glow=1.0),
        surfaces.Patchwork((0.3,) * 3, (0.1,) * 3, 0.2, row=0.4, glow=1.0),
        Plain((0.3, 0.3, 0.3), glow=1.0),
    ],
)
def test_materials_have_possible_colours_and_unit_normals(material):
    rest = rng().uniform((-5, -8, -1), (5, 9, 2), (4000, 3)).astype("f4")
    normals = rng(1).normal(size=rest.shape).astype("f4")
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    surface = material.shade(rest, normals)
    assert surface.albedo.shape == rest.shape and surface.albedo.dtype == np.float32
    assert np.isfinite(surface.albedo).all() and surface.albedo.min() >= 0
    assert surface.albedo.max() < 1.6 and surface.albedo.std() > 0
    assert np.allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-3)
    none = material.shade(rest[:0], normals[:0])
    assert none.albedo.shape == (0, 3)


@pytest.mark.parametrize("kind", [*KINDS, SEATED, CYCLING, UMBRELLA])
def test_poses_are_rotations(kind):
    pose = draw_pose(kind, rng())
    matrices = np.stack(list(pose.rotations.values()))
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(matrices), 1)
    other = draw_pose(kind, rng(1)).rotations
    assert any(not np.allclose(pose.rotations[bone], other[bone]) for bone in other)


def test_a_look_depends_on_the_identity_and_the_seed_only():
    assert look_of(5, 1) == look_of(5, 1)
    assert len({look_of(5, 1), look_of(5, 2), look_of(6, 1), look_of(-5, 1)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLACES)
def test_places_have_room_for_people(kind):
    site = PLACES[kind](rng(3))
    x1, x2, y1, y2 = site.area
    assert x2 - x1 > 1 and y2 - y1 > 1 and site.find(site.area, 0.4) is not None
    assert bool(site.lamps) == site.indoors
    assert all(np.isfinite(mesh.vertices).all() for mesh in site.meshes)
    twin = PLACES[kind](rng(3))
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(site.meshes, twin.meshes))


class Walls:
    """A scene in which either everything is blocked, or nothing."""

    def __init__(self, blocked: bool):
        self.all = blocked

    def blocked(self, origins, ways, reach=None):
        return np.full(len(origins), self.all)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_camera_stands_in_the_area_and_sees_the_focus(framing):
    for seed in range(20):
        site = Site(rng(seed), (-6, 6, -9, 9), indoors=True, ceiling=3.0)
        focus = draw_focus(site, rng(seed))
        camera = draw_camera(site, Walls(False), framing, focus, (320, 180), rng(seed))
        x, y, z = camera.place
        assert abs(x) <= 6.05 and abs(y) <= 9.05 and 1 < z <= 2.75
        (pixel,), (depth,) = camera.project(np.array([[*focus, 1.0]]))
        assert 0 < pixel[0] < 320 and 0 < pixel[1] < 180 and depth > 0.7
    assert draw_camera(site, Walls(True), framing, focus, (320, 180), rng()) is None


def test_the_plan_keeps_training_and_test_apart():
    plan = make_plan(identities=30, frames=101, cameras=3, seed=1)
    sides = plan.train, plan.test
    ids, places = (
        [{x for m in moments for x in get(m)} for moments in sides]
        for get in (lambda m: [p for p in m.people if p > 0], lambda m: [m.place])
    )
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(range(1, 31))
    assert not places[0] & places[1]
    every = plan.train + plan.test
    assert [m.index for m in every] == list(range(len(every)))
    ends = [0, *(m.first_frame + m.cameras for m in every)]
    assert ends[:-1] == [m.first_frame for m in every] and ends[-1] == 101
    assert sum(m.cameras for m in plan.test) == 20
    unlabelled = [p for m in every for p in m.people if p < 0]
    assert len(unlabelled) == len(set(unlabelled)) > 0
    assert make_plan(30, 101, 3, 1) == plan != make_plan(30, 101, 3, 2)


@pytest.mark.parametrize(
    "key, value",
    [
        ("identities", 2),
        ("frames", 1),
        ("cameras", 0),
        ("size", (64, 70_000)),
        ("min_visible", 1.5),
        ("min_height", 0),
        ("seed", -1),
        ("workers", 0),
    ],
)
def test_numbers_out_of_range_are_named(key, value, tmp_path):
    with pytest.raises(
        UserError, match=f"^--{key.replace('_', '-')}: expected .* found {np.max(value)}"
    ):
        rendered.write_dataset(str(tmp_path / "out"), **SMALL | {key: value})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "box, visible, hidden, kept",
    [
        ((0, 0, 20, 50), 1.0, 0.0, True),
        ((0, 0, 20, 50), 0.3, 0.7, True),
        ((0, 0, 20, 30), 0.29, 0.71, False),  # hidden by others
        ((0, 0, 20, 30), 0.2, 0.0, False),  # a piece at the border
        ((0, 0, 90, LARGE * 180), 0.2, 0.0, True),  # a person near the camera, cut by the border
        ((0, 0, 90, LARGE * 180), 0.2, 0.71, False),
        ((0, 0, 20, 15.9), 1.0, 0.0, False),  # too far away
    ],
)
def test_who_is_labelled(box, visible, hidden, kept):
    assert keep(Label(box, visible, hidden), 180, 0.3, 16) == kept


class Curtain:
    """A scene with person 0 and, to the right of x = 0, an object at half the distance."""

    owner_of = np.array([0, -1])

    def first(self, origins, ways):
        hidden = ways[:, 0] > 0
        far = np.where(hidden, 1.0, 5.0)
        return {"primID": hidden.astype(np.int64), "tfar": far}


def test_the_visible_share_counts_what_is_hidden_and_what_the_border_cuts():
    x, z = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(0, 2, 201))
    points = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], 1)
    camera = cam.look_at((0, -5, 1), (0, 0, 1), 200.0, (200, 100))
    found = label(camera, Curtain(), 0, points)
    assert found.box == (60.0, 10.0, 80.0, 80.0)
    assert found.visible == pytest.approx(0.5, abs=0.03) == found.hidden
    aside = cam.look_at((1, -5, 1), (1, 0, 1), 200.0, (200, 200))
    cut = label(aside, Curtain(), 0, points - np.array([2, 0, 0]))
    assert cut.box[0] == 0 and cut.visible == pytest.approx(0.25, abs=0.04) and cut.hidden == 0
    assert label(aside, Curtain(), 0, points - np.array([9, 0, 0])) is None


def test_the_outline_has_the_nearest_point_of_every_cell():
    camera = cam.look_at((0, -5, 1), (0, 0, 1), 200.0, (200, 100))
    near = np.array([(0, 0, 0), (0, 0, 2), (1, 0, 0), (1, 0, 2), (0.5, 0, 1.0)])
    behind = near + np.array([0, 0.01, 0])
    whole = cam.extent(camera, np.concatenate([behind, near]))
    chosen = outline_points(camera, np.concatenate([behind, near]), whole)
    assert (chosen[:, 1] == 0).sum() == 5


def test_queries_are_well_seen_and_of_different_cameras():
    def seen(height, visible=1.0):
        return Label((0.0, 0.0, 10.0, height), visible, 0.0)

    shown = [
        ("a", [(1, seen(50)), (2, seen(90))]),
        ("a", [(1, seen(80)), (-7, seen(90)), (3, seen(60, 0.4))]),
        ("b", [(1, seen(60)), (3, seen(30))]),
        ("c", [(1, seen(45)), (3, seen(70, 0.4))]),
    ]
    ids = [[1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert choose_queries(ids, shown) == [3, 6]


def test_data_without_queries_can_be_loaded(tmp_path):
    """With one frame for the test, nobody is in two frames."""
    moment = Moment(0, 0, 1, 0, "room", "group", (1,))
    (tmp_path / "moments").mkdir()
    write_part(str(tmp_path), moment, [[(1, Label((5.0, 6.0, 10.0, 20.0), 1.0, 0.0))]])
    annotate(str(tmp_path), {"train": [moment], "test": [moment]}, (64, 48), 0.3, 16)
    data = load_dataset("COCO", str(tmp_path))
    assert data.num_pids == 1 and data.queries == []


def test_an_exposed_image_has_bytes_and_depends_on_the_light_and_the_generator():
    light = rng().uniform(0, 3, (30, 40, 3)).astype("f4")
    image = expose(light, draw_sensor(rng(1)), rng(2))
    assert image.dtype == np.uint8 and image.shape == light.shape and image.std() > 5
    assert np.array_equal(image, expose(light, draw_sensor(rng(1)), rng(2)))
    dark = expose(np.zeros_like(light), draw_sensor(rng(1)), rng(2))
    assert dark.mean() < image.mean()


@pytest.fixture
def stub(monkeypatch):
    """Replace the renderer by frames that are computed from the moment's number.

    Returns:
        A list to which each rendered moment is added.
    """
    done: list[int] = []

    def render_moment(moment, cameras, size, seed):
        done.append(moment.index)
        shade = rng(moment.index).integers(0, 255, (size[1], size[0], 3), np.uint8)
        boxes = [Label((5.0 * k, 4.0, 30.0, 50.0), 1.0, 0.0) for k in range(len(moment.people))]
        return [(shade, 80, list(zip(moment.people, boxes)))] * moment.cameras

    monkeypatch.setattr(rendered, "render_moment", render_moment)
    monkeypatch.setattr(rendered, "check_packages", lambda: None)
    monkeypatch.setattr(rendered, "load_body", lambda: None)
    return done


def test_the_folder_is_custom_data_with_cameras_and_queries(stub, tmp_path):
    assert rendered.write_dataset(str(tmp_path), **SMALL | {"frames": 60})
    data = load_dataset("COCO", str(tmp_path))
    assert len(data.train) == 48 and len(data.gallery) == 12 and data.num_pids == 4
    assert len({scene.camera for scene in data.gallery}) > 1
    assert any((scene.pids == UNLABELED).any() for scene in data.train)
    assert data.queries and all(q.pid != UNLABELED for q in data.queries)
    assert Path(data.train[0].path).exists()
    annotations = json.loads((tmp_path / "test.json").read_text())["annotations"]
    assert {(a["visible"], a["hidden"]) for a in annotations} == {(1.0, 0.0)}


def test_an_interrupted_run_continues_with_the_missing_moments(stub, tmp_path, monkeypatch):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert rendered.write_dataset(str(whole), **SMALL)
    assert stub == [0, 1, 2, 3, 4]
    plain = rendered.render_moment

    def killed(moment, *args):
        if moment.index == 3:
            raise KeyboardInterrupt
        return plain(moment, *args)

    stub.clear()
    monkeypatch.setattr(rendered, "render_moment", killed)
    with pytest.raises(KeyboardInterrupt):
        rendered.write_dataset(str(torn), **SMALL)
    assert not (torn / "train.json").exists()
    monkeypatch.setattr(rendered, "render_moment", plain)
    assert rendered.write_dataset(str(torn), **SMALL)
    assert stub == [0, 1, 2, 3, 4]
    assert digest(torn) == digest(whole)
    assert not rendered.write_dataset(str(torn), **SMALL) and len(stub) == 5
    with pytest.raises(UserError, match="seed 0, not 1"):
        rendered.write_dataset(str(torn), **SMALL, seed=1)


def test_a_full_disk_is_one_line_and_leaves_no_half_frame(stub, tmp_path, monkeypatch):
    def full(self, file, *args, **kwargs):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="000000.jpg: .*the disk is full"):
        rendered.write_dataset(str(tmp_path / "out"), **SMALL)
    assert not list((tmp_path / "out" / "images").iterdir())
    assert not list((tmp_path / "out" / "moments").iterdir())


@pytest.mark.parametrize("package", ["anny", "embreex"])
def test_a_missing_package_is_named_before_anything_is_written(package, tmp_path, monkeypatch):
    for name in ("anny", "embreex"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(UserError, match=f"package {package} .*requirements-render.txt"):
        rendered.write_dataset(str(tmp_path / "out"), **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rendered_frames_depend_on_the_seed_alone(tmp_path):
    reason = "needs requirements-render.txt"
    pytest.importorskip("anny", reason=reason)
    pytest.importorskip("embreex", reason=reason)
    tiny = SMALL | dict(frames=2, cameras=1, identities=3)
    for name, workers in (("one", 1), ("two", 2)):
        assert rendered.write_dataset(str(tmp_path / name), **tiny | {"workers": workers}, seed=3)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    images = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("one/images/*.jpg"))]
    assert [image.shape for image in images] == [(64, 96, 3)] * 2
    assert all(image.std() > 8 for image in images)
    train = json.loads((tmp_path / "one" / "train.json").read_text())
    assert all(0 <= a["visible"] <= 1 and a["bbox"][2] > 1 for a in train["annotations"])
