"""Metrics as plain loops that models.reference does not contain."""

import numpy as np

from models import reference


def similarities(result, protocol):
    """Return, for each query of a reference search, two kinds of similarities.

    They are the largest similarity in images without the person (-inf without any), and those of
    the correct detections.
    """
    wrong, right = [], []
    for row, ranking in enumerate(result["rankings"]):
        images = set(protocol.image[protocol.query == row])
        others = [similarity for similarity, _, image in ranking if image not in images]
        wrong.append(max(others, default=-np.inf))
        right.append([similarity for similarity, is_right, _ in ranking if is_right])
    return wrong, right


def labelled(gt_boxes, dets, is_labelled):
    """Return the labelled boxes, and the detections of the images that have any."""
    kept = [gts[keep] for gts, keep in zip(gt_boxes, is_labelled)]
    return [g for g in kept if len(g)], [d for g, d in zip(kept, dets) if len(g)]


def errors(gt_boxes, dets, sure_thr, score_thr):
    """Compute `metrics.detection_errors`."""
    count = {"found": 0, "low_score": 0, "poorly_placed": 0, "missed": 0}
    for gts, det in zip(gt_boxes, dets):
        gts = gts.double().tolist()
        states = []
        for threshold in (sure_thr, score_thr):
            boxes = det[det[:, 4] >= threshold, :4].double().tolist()
            table = np.array([[reference.iou(gt, d) for d in boxes] for gt in gts])
            table = table.reshape(len(gts), len(boxes))
            best = table.argmax(0) if len(gts) and boxes else []
            matched = [
                bool(boxes) and best[table[g].argmax()] == g and table[g].max() >= 0.5
                for g in range(len(gts))
            ]
            near = [
                any(b == g and table[g, d] >= 0.1 for d, b in enumerate(best))
                for g in range(len(gts))
            ]
            states.append((matched, near))
        for g in range(len(gts)):
            kind = (
                "found"
                if states[0][0][g]
                else "low_score"
                if states[1][0][g]
                else "poorly_placed"
                if states[1][1][g]
                else "missed"
            )
            count[kind] += 1
    people = sum(count.values())
    return {"people": people} | {kind: n / max(people, 1) for kind, n in count.items()}
