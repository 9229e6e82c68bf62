"""Intersection of rays with a scene's surfaces by embree, https://www.embree.org, through
embreex."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.rendered.body import REQUIREMENTS
from datasets.rendered.materials import Material
from datasets.rendered.meshes import Mesh, dot, unit
from utils.optional import optional

STEP = 0.004  # metres off a surface from which further rays start
NOBODY = -1


@dataclass
class RayHits:
    """What n rays hit. For a ray that hits nothing, the triangle is -1, the distance is infinite,
    and the other values are zero."""

    triangle: np.ndarray  # [n] int64
    distance: np.ndarray  # [n] float32 metres
    points: np.ndarray  # [n, 3] float32, STEP off the surface
    flat: np.ndarray  # [n, 3] float32: normals without the material's structure, towards the ray
    normals: np.ndarray  # [n, 3] float32
    albedo: np.ndarray  # [n, 3]
    gloss: np.ndarray  # [n]
    glow: np.ndarray  # [n, 3]


class Tracer:
    """The triangles of a scene. owners: for each mesh the number of a person, or NOBODY."""

    def __init__(self, meshes: Sequence[Mesh], owners: Sequence[int]):
        scene = optional("embreex.rtcore_scene", "tools.make_rendered", REQUIREMENTS)
        construction = optional("embreex.mesh_construction", "tools.make_rendered", REQUIREMENTS)
        starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
        self.vertices = np.concatenate([mesh.vertices for mesh in meshes])
        self.normals = np.concatenate([mesh.normals for mesh in meshes])
        self.rest = np.concatenate([mesh.rest for mesh in meshes])
        self.triangles = np.concatenate([m.triangles + s for m, s in zip(meshes, starts)])
        self.triangles = self.triangles.astype(np.int32)
        counts = [len(mesh.triangles) for mesh in meshes]
        self.owner_of = np.repeat(np.asarray(owners, np.int64), counts)
        self.materials: list[Material] = list(dict.fromkeys(mesh.material for mesh in meshes))
        numbers = {material: number for number, material in enumerate(self.materials)}
        own = np.array([numbers[mesh.material] for mesh in meshes], np.int16)  # sorted quickly
        self.material_of = np.repeat(own, counts)
        self.scene = scene.EmbreeScene()
        construction.TriangleMesh(self.scene, self.vertices, self.triangles)

    def first(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        """Return embree's `primID` (-1: nothing), `tfar`, `u` and `v` of rays [n, 3] float32."""
        return self.scene.run(origins, directions, query="INTERSECT", output=True)

    def blocked(
        self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray | None = None
    ) -> np.ndarray:
        """Return whether something blocks rays [n, 3].

        Args:
            reach: length of the rays in metres, [n]; None: unlimited.
        """
        if not len(origins):
            return np.zeros(0, bool)
        origins, directions = origins.astype(np.float32), directions.astype(np.float32)
        if reach is None:
            return self.scene.run(origins, directions, query="OCCLUDED") != -1
        reach = reach.astype(np.float32)
        return self.scene.run(origins, directions, reach, query="OCCLUDED") != -1

    def look(self, origins: np.ndarray, directions: np.ndarray) -> RayHits:
        """Return what rays [n, 3] hit, with the surfaces at these points."""
        n = len(directions)
        hit = self.first(origins, directions)
        triangle = hit["primID"].astype(np.int64)
        distance = np.where(triangle >= 0, hit["tfar"], np.inf).astype(np.float32)
        points, flat, normals, albedo, glow = np.zeros((5, n, 3), np.float32)
        gloss = np.zeros(n, np.float32)
        seen = RayHits(triangle, distance, points, flat, normals, albedo, gloss, glow)
        rows = np.flatnonzero(triangle >= 0)
        corners = self.triangles[triangle[rows]]
        u, v = hit["u"][rows, None], hit["v"][rows, None]
        weights = (1 - u - v, u, v)
        flat = sum(w * self.normals[corners[:, k]] for k, w in enumerate(weights))
        rest = sum(w * self.rest[corners[:, k]] for k, w in enumerate(weights))
        towards = directions[rows]
        flat = unit(flat) * -np.sign(dot(flat, towards))[:, None]
        seen.flat[rows] = flat
        seen.points[rows] = origins[rows] + towards * seen.distance[rows, None] + flat * STEP
        self._shade(seen, rows, rest.astype(np.float32), flat.astype(np.float32))
        return seen

    def _shade(self, seen: RayHits, rows: np.ndarray, rest: np.ndarray, flat: np.ndarray) -> None:
        numbers = self.material_of[seen.triangle[rows]]
        order = np.argsort(numbers, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if not len(part):
                continue
            at = rows[part]
            surface = self.materials[numbers[part[0]]].shade(rest[part], flat[part])
            seen.albedo[at], seen.normals[at] = surface.albedo, surface.normals
            seen.gloss[at], seen.glow[at] = surface.gloss, surface.glow
