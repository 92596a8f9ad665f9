"""Composes one film frame: both cameras, the instruction, the ladder of exits, and the strip of the last exits."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ExitReport

if TYPE_CHECKING:
    from PIL import Image, ImageFont

Colour = tuple[int, int, int]

WIDTH, HEIGHT = 1280, 720
BACKGROUND: Colour = (13, 17, 23)
PANEL: Colour = (22, 28, 37)
EDGE: Colour = (48, 58, 72)
TEXT: Colour = (236, 240, 245)
MUTED: Colour = (139, 151, 167)
SOLVED: Colour = (63, 185, 120)
FAILED: Colour = (240, 101, 94)
EXIT_COLOURS: tuple[Colour, ...] = ((45, 200, 180), (242, 193, 78), (240, 110, 94))
"""Cheap, middle, dear; the exits of a policy are spread over them."""

MARGIN = 24
CAMERAS_TOP = 104
STATIC_SIZE, GRIPPER_SIZE = 496, 420
LADDER = (972, CAMERAS_TOP, WIDTH - MARGIN, CAMERAS_TOP + STATIC_SIZE)
STRIP = (MARGIN, 646, WIDTH - MARGIN, 704)
STEP_WIDTH = 5
"""Pixels of one control step in the strip: it shows the last 246 steps, 8.2 s at 30 Hz."""


def exit_colour(exit_index: int, exit_count: int) -> Colour:
    """Colour of an exit: the shallowest is the first of `EXIT_COLOURS`, the deepest the last."""
    place = exit_index / max(exit_count - 1, 1) * (len(EXIT_COLOURS) - 1)
    low = min(int(place), len(EXIT_COLOURS) - 2)
    return blend(EXIT_COLOURS[low], EXIT_COLOURS[low + 1], place - low)


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """`first` at share 0, `second` at 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def format_gmac(value: float) -> str:
    """A cost in words that a person reads at a glance: '1.25 GMAC', '48.3 MMAC' (1 MAC = 1 multiply-accumulate)."""
    return f"{value:.3g} GMAC" if value >= 1.0 else f"{value * 1e3:.3g} MMAC"


@dataclass(frozen=True)
class Shot:
    """What one control step shows.

    Attributes:
        rgb_static, rgb_gripper: (rows, columns, 3) uint8, what the cameras saw.
        instruction: the instruction in force.
        subtask: position of it in the chain, from 0.
        step: control steps since the instruction was given.
        report: the exit that was taken when the policy was asked last, and its cost.
        budget_gmac: average budget of the language model in force, None for no limit.
        asked: whether that was at this step; otherwise the action is one of the chunk that it answered with.
    """

    rgb_static: np.ndarray
    rgb_gripper: np.ndarray
    instruction: str
    subtask: int
    step: int
    report: ExitReport
    budget_gmac: float | None
    asked: bool = True


class FilmComposer:
    """Draws shots in the order in which they were taken; it remembers the exits and the costs so far.

    Args:
        exit_layers: 0-based layer of each exit, shallowest first (see `PolicyInfo.exit_layers`).
        outcomes: of each subtask: True solved, False not, None not tried. Shown once the film has passed it.
        title: small line in the corner, such as 'deer-nano · PlayTable-D'.
        full_gmac: cost of the whole language model that budgets are shown against.
    """

    def __init__(
        self, exit_layers: Sequence[int], outcomes: Sequence[bool | None], title: str, full_gmac: float
    ) -> None:
        if not exit_layers or not outcomes:
            raise ConfigError(
                "a film needs at least one exit and one subtask; pass PolicyInfo.exit_layers and outcomes"
            )
        self._exit_layers = tuple(exit_layers)
        self._outcomes = tuple(outcomes)
        self._title = title
        self._budget_full_gmac = full_gmac
        self._strip: deque[tuple[int, int, float | None]] = deque(maxlen=(STRIP[2] - STRIP[0]) // STEP_WIDTH)
        self._spent_gmac = self._full_gmac = 0.0

    def frame(self, shot: Shot) -> np.ndarray:
        """The film frame (720, 1280, 3) uint8 RGB of the next shot."""
        if not 0 <= shot.report.exit_index < len(self._exit_layers):
            raise ConfigError(
                f"exit {shot.report.exit_index} is not one of the {len(self._exit_layers)} exits of this film"
            )
        self._strip.append((shot.report.exit_index, shot.subtask, shot.budget_gmac))
        if shot.asked:
            self._spent_gmac += shot.report.llm_gmac
            self._full_gmac += shot.report.full_llm_gmac
        canvas = _Canvas()
        self._header(canvas, shot)
        self._cameras(canvas, shot)
        self._figures(canvas, shot)
        self._ladder(canvas, shot)
        self._strip_of_exits(canvas)
        return canvas.pixels()

    def card(self, heading: str, lines: Sequence[str]) -> np.ndarray:
        """A frame with text only, for the start and the end of the film."""
        canvas = _Canvas()
        top = HEIGHT // 2 - 40 - 20 * len(lines)
        canvas.text((WIDTH // 2, top), heading, 44, TEXT, anchor="mm", width=WIDTH - 4 * MARGIN)
        for number, line in enumerate(lines):
            canvas.text((WIDTH // 2, top + 66 + 40 * number), line, 24, MUTED, anchor="mm", width=WIDTH - 4 * MARGIN)
        return canvas.pixels()

    def _header(self, canvas: _Canvas, shot: Shot) -> None:
        count = len(self._outcomes)
        canvas.text((MARGIN, 20), f"instruction {shot.subtask + 1} of {count}", 16, MUTED)
        canvas.text((MARGIN, 46), f"“{shot.instruction}”", 34, TEXT, width=WIDTH - 2 * MARGIN)
        canvas.text((WIDTH - MARGIN, 20), self._title, 16, MUTED, anchor="ra")
        for position in range(count):
            left = 200 + 50 * position
            if position < shot.subtask:
                colour = SOLVED if self._outcomes[position] else FAILED
            else:
                colour = TEXT if position == shot.subtask else EDGE
            canvas.box((left, 26, left + 42, 32), 3, colour)

    def _cameras(self, canvas: _Canvas, shot: Shot) -> None:
        gripper_left = MARGIN + STATIC_SIZE + 16
        canvas.picture(shot.rgb_static, (MARGIN, CAMERAS_TOP), STATIC_SIZE)
        canvas.picture(shot.rgb_gripper, (gripper_left, CAMERAS_TOP), GRIPPER_SIZE)
        canvas.tag((MARGIN + 10, CAMERAS_TOP + 10), "static camera")
        canvas.tag((gripper_left + 10, CAMERAS_TOP + 10), "gripper camera")

    def _figures(self, canvas: _Canvas, shot: Shot) -> None:
        left, top = MARGIN + STATIC_SIZE + 16, CAMERAS_TOP + GRIPPER_SIZE + 14
        budget = "no limit" if shot.budget_gmac is None else f"{shot.budget_gmac / self._budget_full_gmac:.0%}"
        figures = (
            ("step", f"{shot.step}"),
            ("budget of full", budget),
            ("policy", f"{shot.report.latency_ms:.1f} ms"),
        )
        for column, (label, value) in enumerate(figures):
            x = left + 140 * column
            canvas.text((x, top), label, 15, MUTED)
            canvas.text((x, top + 20), value, 26, TEXT)

    def _ladder(self, canvas: _Canvas, shot: Shot) -> None:
        left, top, right, bottom = LADDER
        canvas.box(LADDER, 12, PANEL)
        canvas.text((left + 18, top + 14), "language model, policy step", 16, MUTED)
        count = len(self._exit_layers)
        rungs_top, rungs_bottom = top + 46, bottom - 132
        pitch = (rungs_bottom - rungs_top) / count
        for exit_index in range(count):
            y = rungs_bottom - pitch * (exit_index + 1)
            self._rung(canvas, shot.report, exit_index, (left + 18, round(y), right - 18, round(y + pitch - 6)))
        share_now = shot.report.llm_gmac / shot.report.full_llm_gmac
        share_mean = self._spent_gmac / self._full_gmac
        for row, (label, share) in enumerate((("this step", share_now), ("mean so far", share_mean))):
            y = bottom - 116 + 52 * row
            canvas.text((left + 18, y), f"{label}", 16, MUTED)
            canvas.text((right - 18, y), f"{share:.0%} of the full model", 16, TEXT, anchor="ra")
            canvas.box((left + 18, y + 26, right - 18, y + 36), 5, EDGE)
            filled = left + 18 + max(round((right - left - 36) * min(share, 1.0)), 10)
            canvas.box((left + 18, y + 26, filled, y + 36), 5, exit_colour(shot.report.exit_index, count))

    def _rung(self, canvas: _Canvas, report: ExitReport, exit_index: int, box: tuple[int, int, int, int]) -> None:
        colour = exit_colour(exit_index, len(self._exit_layers))
        taken, passed = exit_index == report.exit_index, exit_index < report.exit_index
        fill = colour if taken else blend(PANEL, colour, 0.28) if passed else blend(PANEL, EDGE, 0.45)
        ink = BACKGROUND if taken else TEXT if passed else MUTED
        canvas.box(box, 8, fill)
        size = min(18, (box[3] - box[1]) // 2)
        middle = (box[1] + box[3]) // 2
        canvas.text((box[0] + 14, middle), f"exit {exit_index}", size, ink, anchor="lm")
        layers = f"{self._exit_layers[exit_index] + 1} layers"
        canvas.text((box[2] - 14, middle), layers, size, ink, anchor="rm")

    def _strip_of_exits(self, canvas: _Canvas) -> None:
        left, top, right, bottom = STRIP
        count = len(self._exit_layers)
        canvas.text((left, top - 26), "exit taken, last 8 s", 15, MUTED)
        canvas.box((left, top, right, bottom), 0, PANEL)
        before: tuple[int, int, float | None] | None = None
        for place, entry in enumerate(self._strip):
            exit_index, subtask, budget = entry
            x = right - STEP_WIDTH * (len(self._strip) - place)
            height = round((bottom - top) * (exit_index + 1) / count)
            canvas.box((x, bottom - height, x + STEP_WIDTH - 1, bottom), 0, exit_colour(exit_index, count))
            if before is not None and before[1] != subtask:
                canvas.box((x - 1, top, x, bottom), 0, TEXT)
            if before is not None and before[2] != budget:
                canvas.box((x - 1, top - 10, x + 1, bottom), 0, TEXT)
                canvas.text((x + 4, top - 25), "budget changed", 15, TEXT)
            before = entry


class _Canvas:
    """A picture to draw on, with smooth rounded boxes, text and camera images."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    def pixels(self) -> np.ndarray:
        """(720, 1280, 3) uint8 RGB."""
        return np.asarray(self._image)

    def box(self, corners: tuple[int, int, int, int], radius: int, colour: Colour) -> None:
        """Fills the box from (left, top) up to, not including, (right, bottom)."""
        left, top, right, bottom = corners
        if radius == 0:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
            return
        self._image.paste(colour, (left, top), _rounded_mask(right - left, bottom - top, radius))

    def text(
        self, place: tuple[int, int], text: str, size: int, colour: Colour, anchor: str = "la", width: int | None = None
    ) -> None:
        """Writes one line at `place` (Pillow's anchors); a line wider than `width` is cut with an ellipsis."""
        font = _font(size)
        if width is not None and font.getlength(text) > width:
            while text and font.getlength(text + "…") > width:
                text = text[:-1]
            text += "…"
        self._draw.text(place, text, font=font, fill=colour, anchor=anchor)

    def tag(self, place: tuple[int, int], text: str) -> None:
        """A small label that stays readable on any picture."""
        length = round(_font(14).getlength(text))
        self.box((place[0], place[1], place[0] + length + 16, place[1] + 24), 6, BACKGROUND)
        self.text((place[0] + 8, place[1] + 12), text, 14, TEXT, anchor="lm")

    def picture(self, pixels: np.ndarray, place: tuple[int, int], size: int) -> None:
        """Pastes a camera image, scaled to `size` x `size`, with rounded corners."""
        from PIL import Image

        scaled = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        self._image.paste(scaled, place, _rounded_mask(size, size, 10))


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@lru_cache(maxsize=256)
def _rounded_mask(width: int, height: int, radius: int) -> Image.Image:
    """A mask with rounded corners, drawn four times too large and scaled down, since Pillow does not smooth edges."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (width * 4, height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * 4 - 1, height * 4 - 1), radius * 4, fill=255)
    return mask.resize((width, height), Image.Resampling.BOX)
