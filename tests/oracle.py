"""Search and detection scores as plain loops over queries, images and boxes: what
engine/evaluation/metrics.py must equal. Written from the definitions alone; shares no code with
engine/.
Slow: PRW takes minutes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import average_precision_score


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def detection(gt_boxes, dets, score_thr, iou_thr=0.5, labeled=None):
    y_true, y_score, matched, total = [], [], 0, 0
    for i, (gts, det) in enumerate(zip(gt_boxes, dets)):
        gts, det = gts.double().tolist(), det[det[:, 4] >= score_thr]
        if labeled is not None:
            gts = [gt for gt, keep in zip(gts, labeled[i].tolist()) if keep]
            if not gts:
                continue
        scores, det = det[:, 4].tolist(), det[:, :4].double().tolist()
        total += len(gts)
        table = np.array([[iou(gt, d) for d in det] for gt in gts]).reshape(len(gts), len(det))
        for d in range(len(det)):
            hit = False
            if gts:
                g = table[:, d].argmax()
                hit = table[g].argmax() == d and table[g, d] >= iou_thr
            matched += hit
            y_true.append(hit)
            y_score.append(scores[d])
    if not matched:
        return {"recall": 0.0, "ap": 0.0}
    recall = matched / total
    return {"recall": recall, "ap": average_precision_score(y_true, y_score) * recall}


def errors(gt_boxes, dets, sure_thr, score_thr):
    """People by what became of them, see `metrics.detection_errors`."""
    count = {"found": 0, "low_score": 0, "poorly_placed": 0, "missed": 0}
    for gts, det in zip(gt_boxes, dets):
        gts = gts.double().tolist()
        states = []
        for threshold in (sure_thr, score_thr):
            boxes = det[det[:, 4] >= threshold, :4].double().tolist()
            table = np.array([[iou(gt, d) for d in boxes] for gt in gts])
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


def search(dets, feats, query_feats, protocol, score_thr=0.5, cbgm=None):
    """As `metrics.search`; `lists` holds each query's ranking: (similarity, right, image), `wrong`
    its best similarity in images without the person, `right` those of its true matches."""
    return rank(*above(dets, feats, score_thr), query_feats, protocol, cbgm)


def above(dets, feats, score_thr):
    keep = [d[:, 4] >= score_thr for d in dets]
    boxes = [d[k, :4].double().tolist() for d, k in zip(dets, keep)]
    return boxes, [f[k].numpy() for f, k in zip(feats, keep)]


def rank(boxes, feats, query_feats, protocol, cbgm=None):
    aps, first_hits, lists, wrong, rights = [], [], [], [], []
    for row, query in enumerate(protocol.queries):
        listed = {image: n for image, n in enumerate(protocol.listed[row].tolist()) if n}
        sims = {image: feats[image] @ query_feats[query].numpy() for image in listed}
        if cbgm:
            _context(sims, feats, listed, cbgm, query)
        entries = {}  # image -> one entry for each time that it is listed
        for entry in np.flatnonzero(protocol.query == row):
            entries.setdefault(protocol.image[entry], []).append(entry)
        y_score, y_true, where, found = [], [], [], 0
        for image, times in listed.items():
            right = None
            if image in entries:
                assert len(entries[image]) == times
                right = _true_positive(sims[image], boxes[image], protocol, entries[image][0])
            for _ in range(times):
                found += right is not None
                y_score.extend(sims[image])
                y_true.extend(d == right for d in range(len(sims[image])))
                where.extend([image] * len(sims[image]))
        present = sum(len(e) for e in entries.values())
        aps.append(average_precision_score(y_true, y_score) * found / present if found else 0.0)
        order = np.lexsort((y_true, -np.array(y_score)))  # of equal similarities, wrong ones first
        first_hits.append(int(np.array(y_true)[order].argmax()) + 1 if found else 0)
        lists.append([(y_score[i], y_true[i], where[i]) for i in order[:10]])
        others = [s for s, image in zip(y_score, where) if image not in entries]
        wrong.append(max(others, default=-np.inf))
        rights.append([s for s, right in zip(y_score, y_true) if right])
    first = np.array(first_hits)
    top = {f"top{k}": np.mean((first > 0) & (first <= k)) for k in (1, 5, 10)}
    numbers = {"mAP": np.mean(aps), **top, "ap": np.array(aps), "first_hit": first}
    return numbers | {"lists": lists, "wrong": wrong, "right": rights}


def _true_positive(sims, boxes, protocol, entry):
    for d in sorted(range(len(boxes)), key=lambda d: -sims[d]):
        for gt in protocol.boxes[protocol.box_entry == entry].astype(float):
            w, h = gt[2] - gt[0], gt[3] - gt[1]
            if iou(boxes[d], gt) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                return d
    return None


def _context(sims, feats, listed, cbgm, query):
    ranking = [
        (-s, image, d)
        for image, times in listed.items()
        for d, s in enumerate(sims[image])
        for _ in range(times)
    ]
    people = cbgm.people[query][: cbgm.k2].numpy()
    for image in {image for _, image, _ in sorted(ranking)[: cbgm.k1]}:
        edges = people @ feats[image].T
        person, matched = linear_sum_assignment(edges, maximize=True)
        for p, d in zip(person, matched):
            if p == 0:
                sims[image][d] = edges[person, matched].max()
