"""Filters of people by camera and time, the table of persons, and the limit of the drawn scene."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cameras import persons
from engine.cameras.persons import NumberedPerson, PersonTracklet
from engine.evaluation.evaluate import draw_scene
from engine.index.records import Person
from engine.search.arguments import filter_of
from utils.errors import UserError
from utils.pages import clock


def test_empty_filters_are_refused():
    """A name may contain a comma. Nothing must be selected by an empty shell variable, or by
    exchanged times."""

    def of(camera=(), after=None, before=None):
        return filter_of(Namespace(camera=list(camera), after=after, before=before))

    assert of() is None and of(["Smith, John"]).cameras == ("Smith, John",)
    days = dict(after="2026-01-31", before="2026-02-01")
    assert of(**days).before - of(**days).after == 86400
    turned = dict(zip(days, reversed(days.values())))
    for options in (
        dict(camera=["hall", ""]),
        dict(after=""),
        dict(camera=["hall"], before=""),
        turned,
    ):
        with pytest.raises(UserError, match="^--"):
            of(**options)


def test_a_table_has_the_first_and_the_last_second():
    """The tracklets are in the order of the detections that are shown."""
    embedding = np.zeros(2, np.float32)
    spans = (30.0, 40.0), (0.0, 99.0)
    shown = [Person(1, Path("a.mp4"), 35.0 + i, (0, 0, 1, 1), 1.0, i, embedding) for i in (0, 1)]
    known = NumberedPerson(1, "", [PersonTracklet(*pair) for pair in zip(shown, spans)])
    assert persons.table([known]).split()[-2:] == [clock(0.0), clock(99.0)]


def test_the_drawn_scene_has_the_limit_of_the_config(net, dataset):
    assert draw_scene(net, dataset, torch.device("cpu"), 90 * 64).shape[2] == 3
    with pytest.raises(UserError, match="pixels"):
        draw_scene(net, dataset, torch.device("cpu"), 1000)
