"""Writes what a demonstration leaves behind into its folder: film, report.json and report.html."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deer_ros.cli.demo.page import mean_share, render_page
from deer_ros.cli.demo.progress import Progress
from deer_ros.cli.demo.record import DemoRecord
from deer_sim.film import HEIGHT, WIDTH, FilmComposer
from deer_sim.recording import VideoWriter

FILM, REPORT, PAGE = "film.mp4", "report.json", "report.html"
END_CARD_FRAMES = 75
"""2.5 s, long enough to read."""


def publish(record: DemoRecord, folder: Path, progress: Progress) -> DemoRecord:
    """Writes everything and returns the record with the film's name in it.

    The report is written before the film too, so that it is there even if somebody ends the long work on the film.
    """
    _write_report(record, folder)
    if not record.shots:
        return record
    _write_film(record, folder / FILM, progress)
    complete = replace(record, video=FILM)
    _write_report(complete, folder)
    return complete


def _write_report(record: DemoRecord, folder: Path) -> None:
    record.write_json(folder / REPORT)
    (folder / PAGE).write_text(render_page(record.as_json()), encoding="utf-8")


def _write_film(record: DemoRecord, path: Path, progress: Progress) -> None:
    outcomes: list[bool | None] = [subtask.success for subtask in record.subtasks]
    outcomes += [None] * (record.planned - len(outcomes))
    title = f"{record.policy} · {record.environment} · ROS 2"
    composer = FilmComposer(record.exit_layers, outcomes, title, record.full_gmac)
    with VideoWriter(path, WIDTH, HEIGHT) as video:
        for shot in progress.track(record.shots, "writing the film"):
            video.add(composer.frame(shot))
        share = mean_share(record.as_json()["subtasks"]) or 0.0
        lines = [f"with {share:.0%} of the full language model's compute", f"{record.policy}, seed {record.seed}"]
        video.add(
            composer.card(f"{record.solved} of {record.planned} instructions carried out", lines), END_CARD_FRAMES
        )
