"""Facts about the queries of a dataset: person, height and occlusion."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datasets.base import SearchDataset, digest


def hidden(box: np.ndarray, others: np.ndarray) -> float:
    """Return the share of a person's box that boxes of people nearer to the camera cover.

    A person is nearer if their feet are lower in the image. Boxes are x1 y1 x2 y2 in pixels.
    """
    nearer = others[others[:, 3] > box[3]].round().astype(int)
    left, top, right, bottom = box.round().astype(int)
    covered = np.zeros((max(bottom, 0), max(right, 0)), dtype=bool)
    for x1, y1, x2, y2 in nearer:
        covered[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return float(covered[top:, left:].mean())


def people_of(dataset: SearchDataset) -> list[int]:
    """Return the person of each query, as a number.

    Two queries show the same person if they have a box in common, as their own box or as a match.
    The identities do not show this, since each query in the files of CUHK-SYSU has its own
    identity.
    """
    protocol = dataset.protocol(-1)
    own = [[query.scene, *query.box] for query in dataset.queries]
    matches = np.column_stack([protocol.image[protocol.box_entry], protocol.boxes])
    places = np.concatenate([own, matches]).round().astype(int)
    _, place = np.unique(places, axis=0, return_inverse=True)
    queries = np.arange(len(own))
    query = np.concatenate([queries, protocol.queries[protocol.query[protocol.box_entry]]])
    has = coo_array((np.ones(len(query)), (query, place.ravel()))).tocsr()
    return connected_components(has @ has.T)[1].tolist()


def query_facts(dataset: SearchDataset) -> dict:
    """Return facts about a dataset, and about each of its queries.

    Facts about a query are the name of its image, the number of its person, the height of its box
    in pixels of the image, and the share of the box that other people hide.
    """
    found = []
    for query, person in zip(dataset.queries, people_of(dataset)):
        scene = dataset.gallery[query.scene]
        height = round(float(query.box[3] - query.box[1]), 1)
        share = round(hidden(query.box, scene.boxes), 3)
        found.append({"image": scene.name, "person": person, "height": height, "hidden": share})
    return {
        "data": digest(dataset.train + dataset.gallery),
        "frames": [len(dataset.train), len(dataset.gallery)],
        "identities": dataset.num_pids,
        "queries": found,
    }
