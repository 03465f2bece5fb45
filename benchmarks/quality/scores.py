"""Scores of drawn pictures: is it the right person, is it the right scene, and how sure is that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.analysis.significance import mean_interval
from benchmarks.quality.cases import Case, Pixels
from benchmarks.schema.quality import Chance, Ends
from mini.probes import Probe, answers, open_probes, person_views, setting_view
from mini.world import ATTRIBUTES, POSES, SCENES

Scores = npt.NDArray[np.float64]
# What a photo tells and the caption does not.
IDENTITY_ATTRIBUTES = tuple(name for name in ATTRIBUTES if name != "kind")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureScores:
    """One number per picture, each in [0, 1].

    identity: share of the nine attributes that match the photo's person, of the person with the
    fewest (the paper's minimum). scene, pose, people: 1 where right. prompt: the mean of the three.
    """

    identity: Scores
    scene: Scores
    pose: Scores
    people: Scores

    @property
    def prompt(self) -> Scores:
        result: Scores = (self.scene + self.pose + self.people) / 3
        return result


class Judge:
    """The trained probes."""

    def __init__(self) -> None:
        self._person: Probe
        self._setting: Probe
        self._person, self._setting = open_probes()

    def scores(self, pictures: list[Pixels], listed: list[Case]) -> PictureScores:
        """The scores of pictures drawn for cases."""
        told = self._attributes(pictures, listed)
        truth = [[look.labels() for look in case.looks] for case in listed]
        setting = answers(self._setting, [setting_view(picture) for picture in pictures])
        scenes, poses = tuple(SCENES), POSES
        return PictureScores(
            identity=np.array([_worst(t, w) for t, w in zip(told, truth, strict=True)]),
            scene=np.equal(setting["scene"], [scenes.index(c.setting.scene) for c in listed]) * 1.0,
            pose=np.equal(setting["pose"], [poses.index(c.setting.pose) for c in listed]) * 1.0,
            people=np.equal(setting["people"] + 1, [len(case.looks) for case in listed]) * 1.0,
        )

    def accuracy(self, pictures: list[Pixels], listed: list[Case]) -> dict[str, float]:
        """Share of people of whom each attribute is told rightly."""
        told = [person for people in self._attributes(pictures, listed) for person in people]
        truth = [look.labels() for case in listed for look in case.looks]
        pairs = list(zip(told, truth, strict=True))
        return {n: float(np.mean([a[n] == b[n] for a, b in pairs])) for n in IDENTITY_ATTRIBUTES}

    def _attributes(self, pictures: list[Pixels], listed: list[Case]) -> list[list[dict[str, int]]]:
        """Per picture and person, what the probe tells of each attribute."""
        told = []
        for picture, case in zip(pictures, listed, strict=True):
            values = answers(self._person, person_views(picture, len(case.looks)))
            told.append([{n: int(v[i]) for n, v in values.items()} for i in range(len(case.looks))])
        return told


def chance_scores(listed: list[Case]) -> Chance:
    """What another person in another scene scores: other cases' truth against this one's."""
    others = listed[2:] + listed[:2]  # of the same number of people
    truth, wrong = ([[p.labels() for p in c.looks] for c in each] for each in (listed, others))
    pairs = list(zip(listed, others, strict=True))
    scene = float(np.mean([a.setting.scene == b.setting.scene for a, b in pairs]))
    identity = np.mean([_worst(t, w) for t, w in zip(truth, wrong, strict=True)])
    return Chance(identity=float(identity), scene=scene)


def mean(scores: Scores, digits: int = 3) -> float:
    """A mean as records have it."""
    return round(float(scores.mean()), digits)


def ends(scores: Scores, digits: int = 3) -> Ends:
    """A mean's 95 % interval as records have it."""
    low, high = mean_interval(scores)
    return round(low, digits), round(high, digits)


def _worst(told: list[dict[str, int]], truth: list[dict[str, int]]) -> float:
    shares = [
        np.mean([person[name] == labels[name] for name in IDENTITY_ATTRIBUTES])
        for person, labels in zip(told, truth, strict=True)
    ]
    return float(min(shares))
