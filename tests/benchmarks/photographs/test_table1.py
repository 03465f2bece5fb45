"""Table 1's protocol with small stand-ins: what is found, what is scored, what is done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command_line
from benchmarks.harness.record import code_digest
from benchmarks.photographs import table1
from benchmarks.photographs.clip import Clip
from benchmarks.photographs.faces import (
    FACE_SHEETS,
    Face,
    FaceModel,
    Pixels,
    Values,
    YuNet,
    cut_out,
    similarity,
)
from benchmarks.photographs.models import DETECTOR, JudgeError, opened
from benchmarks.photographs.protocol import (
    MULTI_PROMPTS,
    SINGLE_PROMPTS,
    Prompts,
    ProtocolError,
    Subject,
    Trial,
    multi_trials,
    single_trials,
    subjects_of,
)
from benchmarks.photographs.scoring import FaceJudge, TrialScore, assigned, group_interval
from benchmarks.photographs.work import Work
from runtime import Request
from tests.benchmarks.photographs import stand_ins

RED, GREEN = (255, 0, 0), (0, 255, 0)


def _picture(*faces: tuple[int, int, tuple[int, int, int]]) -> Pixels:
    """A black picture with a cell of 8 px in each face's color, which is gray enough to be seen."""
    picture = np.zeros((64, 64, 3), np.uint8)
    for column, row, color in faces:
        picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = color
    return picture


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.detector(tmp_path_factory.mktemp("detector") / "yunet.onnx")


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.face_model(tmp_path_factory.mktemp("faces") / "sface.onnx")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in (("woman_anna", RED), ("man-ben", GREEN), ("person_cleo", (0, 0, 255))):
        Image.fromarray(_picture((3, 3, (200, 200, 200)), (4, 4, color))).save(
            folder / f"{name}.png"
        )
    return folder


def test_faces_are_found_where_they_are_the_surest_first(detector: Path) -> None:
    picture = _picture((1, 2, (220, 220, 220)), (5, 4, (255, 255, 255)))
    sure, other = YuNet(detector).faces(picture)
    # Twice 8 px wide and high, around the upper left corner of the cell.
    assert sure.box == pytest.approx((32, 24, 48, 40)) and sure.score == pytest.approx(1)
    assert other.box == pytest.approx((0, 8, 16, 24), abs=1e-6) and other.score == pytest.approx(
        220 / 255
    )
    assert sure.points[0] == pytest.approx([36, 28]) and sure.points[2] == pytest.approx([40, 32])


def test_a_larger_picture_is_seen_small_and_its_faces_told_in_its_own_size(detector: Path) -> None:
    large = np.asarray(Image.fromarray(_picture((5, 4, (255, 255, 255)))).resize((256, 256), 0))
    (face,) = YuNet(detector).faces(large)
    assert face.box == pytest.approx((128, 96, 192, 160), abs=1)
    wide = large[:192]
    (face,) = YuNet(detector).faces(wide)
    assert face.box == pytest.approx((128, 96, 192, 160), abs=1)


def test_of_faces_that_overlap_the_surest_is_kept(detector: Path) -> None:
    picture = _picture((3, 3, (255, 255, 255)), (4, 3, (230, 230, 230)))
    # Boxes of 16 px that are 8 px apart overlap by a third of their union.
    assert [face.box[0] for face in YuNet(detector).faces(picture)] == pytest.approx([16])


def test_another_network_than_a_detector_is_refused(face_model: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"YuNet's outputs .* found \['fc1'\]"):
        YuNet(face_model)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(JudgeError, match="no ONNX model"):
        FaceModel(tmp_path / "text.onnx", FACE_SHEETS["sface"])


def test_points_are_brought_to_where_the_model_was_trained_to_see_them() -> None:
    points: Values = np.array([[10.0, 10], [20, 11], [15, 16], [11, 21], [19, 22]])
    turn, scale, shift = np.deg2rad(30), 2.5, np.array([3.0, -4.0])
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = similarity(points, points @ matrix.T + shift)
    assert found == pytest.approx(np.hstack([matrix, shift[:, None]]))
    # Points of a mirrored face are not reached by mirroring it.
    mirrored = similarity(points, points * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0


def test_an_aligned_face_has_its_eyes_in_their_places() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[38:43, 28:33] = 255  # the eye on the picture's left, around (30, 40)
    template = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
                         [41.5493, 92.3655], [70.7299, 92.2041]])  # fmt: skip
    points = (template - template[0]) * 0.6 + [30, 40]
    face = Face(box=(0, 0, 9, 9), points=points, score=1.0)
    crop = cut_out(picture, face, FACE_SHEETS["sface"])[..., 0].astype(float)
    rows, columns = np.indices(crop.shape)
    center = [(crop * axis).sum() / crop.sum() for axis in (columns, rows)]
    assert center == pytest.approx([38.3, 51.7], abs=1.0)


def test_a_box_is_cut_out_and_black_beyond_the_picture() -> None:
    picture = np.full((20, 20, 3), 255, np.uint8)
    face = Face(box=(-10, 0, 10, 20), points=np.zeros((5, 2)), score=1.0)
    crop = cut_out(picture, face, FACE_SHEETS["facenet"])
    assert crop.shape == (160, 160, 3)
    assert (crop[:, :75] == 0).all() and (crop[:, 90:] == 255).all()


def test_a_model_is_given_colors_in_their_order_and_range(tmp_path: Path) -> None:
    path = stand_ins.face_model(tmp_path / "facenet.onnx", 160)
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[...] = (255, 127, 0)
    face = Face(box=(5, 5, 35, 35), points=np.zeros((5, 2)), score=1.0)
    (found,) = FaceModel(path, FACE_SHEETS["facenet"]).embeddings(picture, [face])
    expected = (np.array([255, 127, 0]) - 127.5) / 128
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_each_person_has_a_face_of_their_own() -> None:
    both_like_the_first = np.array([[0.9, 0.2], [0.8, 0.1]])
    assert assigned(both_like_the_first) == pytest.approx([0.9, 0.1])
    swapped = np.array([[0.1, 0.9], [0.7, 0.2]])
    assert assigned(swapped) == pytest.approx([0.9, 0.7])
    assert assigned(np.array([[0.6], [0.8]])) == pytest.approx([0.0, 0.8])


def test_identity_is_the_least_and_nothing_without_a_face(detector: Path, face_model: Path) -> None:
    judge = FaceJudge(YuNet(detector), FaceModel(face_model, FACE_SHEETS["sface"]))
    white = judge.reference(_picture((2, 2, (255, 255, 255))), "white")
    assert judge.identity(np.zeros((64, 64, 3), np.uint8), [white]) == (0.0, 0)
    alone, found = judge.identity(_picture((4, 4, (240, 240, 240))), [white])
    assert alone == pytest.approx(1, abs=1e-6)
    assert found == 1
    # Two people and one face: who has none counts as not there.
    assert judge.identity(_picture((4, 4, (240, 240, 240))), [white, white]) == (0.0, 1)
    with pytest.raises(JudgeError, match=r"anna\.png.*no face"):
        judge.reference(np.zeros((64, 64, 3), np.uint8), "anna.png")


def test_clip_tells_prompts_apart_and_cuts_long_ones(clip: Path) -> None:
    judge, picture = Clip(clip), _picture((1, 1, RED))
    found = [judge.agreement(picture, text) for text in ("a man", "a beach", "a man")]
    assert found[0] == found[2] != found[1]
    assert all(-1 <= each <= 1 for each in found)
    assert -1 <= judge.agreement(picture[:, :40], "a man " * 40) <= 1


def test_another_folder_than_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="no CLIP model"):
        Clip(tmp_path)


def test_subjects_are_called_what_their_photos_names_say(photos: Path) -> None:
    assert [(each.name, each.words) for each in subjects_of(photos)] == [
        ("man-ben", "a man <|image|>"),
        ("person_cleo", "a person <|image|>"),
        ("woman_anna", "a woman <|image|>"),
    ]
    (photos / "dog_rex.png").write_bytes(b"")
    with pytest.raises(ProtocolError, match=r"dog_rex\.png.*woman_anna\.jpg"):
        subjects_of(photos)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="found none"):
        subjects_of(tmp_path)


def test_every_subject_and_pair_is_drawn_by_every_prompt() -> None:
    subjects = [
        Subject(name=f"man_{name}", noun="man", photo=Path(f"man_{name}.png")) for name in "abcd"
    ]
    single = single_trials(subjects, Prompts(), 2)
    assert len(single) == 4 * len(SINGLE_PROMPTS) * 2
    multi = multi_trials(subjects, Prompts(), 1)
    assert len(multi) == 6 * len(MULTI_PROMPTS)
    for trial in (*single, *multi):
        Request(prompt=trial.prompt, references=[each.photo for each in trial.subjects])
        assert trial.prompt.count("<|image|>") == len(trial.subjects)
        assert "<|image|>" not in trial.plain_prompt and "  " not in trial.plain_prompt
    # A few pairs leave nobody out as long as they can.
    few = multi_trials(subjects, Prompts(), 1, 3)
    assert {each.name for trial in few for each in trial.subjects} == {s.name for s in subjects}


def test_prompts_are_read_by_what_they_have_room_for(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("{person} at sea\n\n{first} and {second} at sea\n")
    found = Prompts.read(path)
    assert found == Prompts(single=("{person} at sea",), multi=("{first} and {second} at sea",))
    path.write_text("a man at sea\n")
    with pytest.raises(ProtocolError, match="'a man at sea'"):
        Prompts.read(path)


def test_an_interval_is_as_wide_as_few_groups_make_it() -> None:
    values = [0.2] * 50 + [0.8] * 50
    low, high = group_interval(values, ["a"] * 50 + ["b"] * 50) or (0.5, 0.5)
    assert (low, high) == pytest.approx((0.2, 0.8))
    many = group_interval(values, [str(n) for n in range(100)]) or (0.0, 1.0)
    assert 0.4 < many[0] < many[1] < 0.6
    assert group_interval(values, ["a"] * 100) is None


def test_a_network_that_is_here_is_the_users_own(detector: Path) -> None:
    found = opened(str(detector), DETECTOR)
    assert found.path == detector and "user's terms" in found.told and found.digest


def test_a_network_that_is_nowhere_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(JudgeError, match="no network") as error:
        opened(None, DETECTOR)
    assert error.value.fix == f"hf download {DETECTOR.hub_id} {DETECTOR.file}"


def _score(work: Work, trial: Trial, identity: float) -> TrialScore:
    return TrialScore(key=work.key(trial), group=trial.group, identity=identity, prompt=0, found=1)


def test_what_was_scored_is_found_again_but_by_other_judges(photos: Path, tmp_path: Path) -> None:
    trial = single_trials(subjects_of(photos), Prompts(), 1)[0]
    folder = tmp_path / "work"
    work = Work(folder, "bundle", "judges")
    assert work.score(trial, lambda: _score(work, trial, 0.25)).identity == 0.25
    again = Work(folder, "bundle", "judges")
    assert again.score(trial, lambda: pytest.fail("scored twice")).identity == 0.25
    other = Work(folder, "bundle", "other judges")
    assert other.score(trial, lambda: _score(other, trial, 0.5)).identity == 0.5
    assert Work(folder, "other bundle", "judges").key(trial) != work.key(trial)


def test_half_a_line_of_an_ended_run_is_dropped(photos: Path, tmp_path: Path) -> None:
    first, second = single_trials(subjects_of(photos), Prompts(), 1)[:2]
    work = Work(tmp_path / "work", "bundle", "judges")
    work.score(first, lambda: _score(work, first, 0.25))
    (scores,) = (tmp_path / "work").glob("scores-*.jsonl")
    scores.write_bytes(scores.read_bytes() + b'{"key": "half')
    again = Work(tmp_path / "work", "bundle", "judges")
    again.score(second, lambda: _score(again, second, 0.5))
    assert [json.loads(line)["identity"] for line in scores.read_text().splitlines()] == [0.25, 0.5]


@pytest.fixture
def words(
    small_bundle: Path, photos: Path, detector: Path, face_model: Path, clip: Path, tmp_path: Path
) -> list[str]:
    """A command line that is whole, on stand-ins."""
    return [
        "table1", "--quick", "--json", f"--photos={photos}", f"--bundle={small_bundle}",
        f"--detector={detector}", f"--face-model={face_model}", f"--clip={clip}",
        f"--work={tmp_path / 'work'}", f"--results={tmp_path / 'results'}", "--preset=fast",
    ]  # fmt: skip


def test_the_whole_protocol_runs_and_a_second_run_draws_nothing(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command_line.main(words) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    single, multi = record["rows"]
    assert (single["pictures"], single["groups"], multi["pictures"]) == (3 * 2, 3, 1)
    assert (single["paper_identity"], multi["paper_prompt"]) == (0.708, 0.319)
    assert multi["identity_95"] is None and single["prompt_95"] is not None
    assert "user's terms" in record["facts"]["detector"]
    assert len(list((tmp_path / "work" / "pictures").glob("*.png"))) == 7
    assert (tmp_path / "results" / "table1.jsonl").is_file()
    monkeypatch.setattr(
        table1._Drawing, "picture", lambda *_: pytest.fail("drew what was drawn before")
    )
    assert command_line.main(words) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == record["rows"]
    # Scores are found again by the code that took them alone, and pictures by what draws them.
    assert len(list((tmp_path / "work").glob("scores-*.jsonl"))) == 1
    monkeypatch.setattr(
        table1,
        "code_digest",
        lambda *folders: (
            "other" if folders == ("benchmarks/photographs",) else code_digest(*folders)
        ),
    )
    assert command_line.main(words) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == record["rows"]
    assert len(list((tmp_path / "work").glob("scores-*.jsonl"))) == 2


def test_a_photo_that_lies_on_its_side_is_judged_upright(
    words: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As phones store photos, and as the model is shown them."""

    def rows(work: str) -> object:
        assert command_line.main([*words, f"--work={tmp_path / work}"]) == 0
        return json.loads(capsys.readouterr().out)["rows"]

    upright = rows("upright")
    for path in photos.glob("*.png"):
        with Image.open(path) as photo:
            turned, tags = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
        tags[0x0112] = 6  # turn it by 90 degrees, clockwise
        turned.save(path, exif=tags)
    assert rows("turned") == upright


def test_without_photos_it_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["table1", f"--results={tmp_path}"]) == 1
    assert "--photos FOLDER" in capsys.readouterr().err
