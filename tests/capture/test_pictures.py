from __future__ import annotations

import cv2
import numpy as np

from monitor.capture.pictures import (
    BAR,
    BAR_HEIGHT,
    CHOSEN,
    EMPTY,
    GAP,
    LABEL_HEIGHT,
    THUMBNAIL_WIDTH,
    TRACK,
    StripSlot,
    jpeg,
    strip,
    thumbnail,
)

HEIGHT = 117


def slot(level: int | None, attention: float) -> StripSlot:
    pixels = None if level is None else np.full((HEIGHT, THUMBNAIL_WIDTH, 3), level, np.uint8)
    return StripSlot(pixels, None if level is None else 1_700_000_000.25, attention)


def test_a_strip_shows_pictures_gaps_and_weights_in_their_places() -> None:
    pixels = strip([slot(50, 0.2), slot(None, 0.0), slot(150, 0.4)], most_attended=2)
    assert pixels.shape == (GAP + HEIGHT + LABEL_HEIGHT + GAP, GAP + 3 * (THUMBNAIL_WIDTH + GAP), 3)
    lefts = [GAP + number * (THUMBNAIL_WIDTH + GAP) for number in range(3)]
    middle = GAP + HEIGHT // 2
    assert (pixels[middle, lefts[0] : lefts[0] + THUMBNAIL_WIDTH] == 50).all()
    assert tuple(pixels[GAP + 2, lefts[1] + 2]) == EMPTY
    assert (pixels[middle, lefts[2] : lefts[2] + THUMBNAIL_WIDTH] == 150).all()
    assert tuple(pixels[middle, lefts[2] - 2]) == CHOSEN
    assert tuple(pixels[middle, lefts[0] - 2]) != CHOSEN
    bar = GAP + HEIGHT + 6 + BAR_HEIGHT // 2
    half = THUMBNAIL_WIDTH // 2
    assert (pixels[bar, lefts[0] : lefts[0] + half] == BAR).all()
    assert (pixels[bar, lefts[0] + half : lefts[0] + THUMBNAIL_WIDTH] == TRACK).all()
    assert (pixels[bar, lefts[1] : lefts[1] + THUMBNAIL_WIDTH] == TRACK).all()
    assert (pixels[bar, lefts[2] : lefts[2] + THUMBNAIL_WIDTH] == CHOSEN).all()


def test_a_long_window_is_drawn_in_rows() -> None:
    pixels = strip([slot(50, 0.01)] * 40, most_attended=0)
    assert pixels.shape[1] == GAP + 14 * (THUMBNAIL_WIDTH + GAP)
    assert pixels.shape[0] == GAP + 3 * (HEIGHT + LABEL_HEIGHT + GAP)


def test_thumbnails_keep_their_shape_and_jpegs_their_pixels() -> None:
    picture = np.full((1080, 1920, 3), (30, 90, 200), np.uint8)
    assert thumbnail(picture).shape == (HEIGHT, THUMBNAIL_WIDTH, 3)
    read = cv2.imdecode(np.frombuffer(jpeg(picture), np.uint8), cv2.IMREAD_COLOR)
    assert read.shape == picture.shape
    assert np.abs(read.astype(int) - picture).max() <= 3
