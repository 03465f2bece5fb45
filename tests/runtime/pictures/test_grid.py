"""Several pictures as one: where each lies, and what cannot be laid out."""

from __future__ import annotations

import pytest
from PIL import Image

from runtime import RequestError, grid


def colored(*levels: int, size: tuple[int, int] = (6, 4)) -> list[Image.Image]:
    return [Image.new("RGB", size, (level, 0, 0)) for level in levels]


def test_pictures_lie_in_rows_in_their_order() -> None:
    sheet = grid(colored(10, 20, 30), columns=2, gap_px=3, background="#0000ff")
    assert sheet.size == (6 + 3 + 6, 4 + 3 + 4)
    places = {10: (0, 0), 20: (9, 0), 30: (0, 7)}
    for level, (left, top) in places.items():
        assert sheet.getpixel((left, top)) == (level, 0, 0)
        assert sheet.getpixel((left + 5, top + 3)) == (level, 0, 0)
    assert sheet.getpixel((7, 1)) == (0, 0, 255)
    assert sheet.getpixel((12, 9)) == (0, 0, 255)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_a_grid_is_nearly_square_by_itself(count: int, columns: int) -> None:
    assert grid(colored(*range(count)), gap_px=0).width == columns * 6


def test_a_grid_is_no_wider_than_its_pictures() -> None:
    assert grid(colored(1, 2), columns=7, gap_px=0).size == (12, 4)


def test_sizes_that_differ_are_refused_by_number() -> None:
    pictures = [*colored(1, 2), *colored(3, size=(4, 4))]
    with pytest.raises(RequestError, match=r"picture 0 has 6x4 px, picture 2 has 4x4"):
        grid(pictures)


@pytest.mark.parametrize("words", [{"columns": 0}, {"gap_px": -1}])
def test_numbers_that_lay_out_nothing_are_refused(words: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="columns from 1 and gap_px from 0"):
        grid(colored(1), **words)  # type: ignore[arg-type]


def test_no_picture_makes_no_grid() -> None:
    with pytest.raises(RequestError, match="one picture or more"):
        grid([])
