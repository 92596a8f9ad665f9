"""Tests of the demonstration's record, its report.json and its page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deer_policies.interfaces import ExitReport
from deer_ros.cli.demo import publish
from deer_ros.cli.demo.page import periods, render_page, runs
from deer_ros.cli.demo.progress import PlainProgress
from deer_ros.cli.demo.record import DemoRecord, SubtaskRecord
from deer_sim.film import Shot

LAYERS = (1, 3, 5)
FULL_GMAC = 0.06
WIDE, TIGHT = 0.05, 0.02


def make_shot(step: int, exit_index: int, budget: float | None, subtask: int = 0, latency_ms: float = 5.0) -> Shot:
    report = ExitReport(
        exit_index=exit_index,
        exit_layer=LAYERS[exit_index],
        distances=(),
        thresholds=(),
        llm_gmac=FULL_GMAC * (exit_index + 1) / 3,
        total_gmac=0.1,
        full_llm_gmac=FULL_GMAC,
        full_total_gmac=0.15,
        latency_ms=latency_ms,
    )
    image = np.zeros((4, 4, 3), np.uint8)
    return Shot(image, image, "go", subtask, step, report, budget)


def make_subtask(exits: list[int], budgets: list[float | None], success: bool = True, **changes: Any) -> SubtaskRecord:
    shots = tuple(
        make_shot(step, exit_index, budget)
        for step, (exit_index, budget) in enumerate(zip(exits, budgets, strict=True), start=1)
    )
    fields: dict[str, Any] = {
        "task": "open_drawer",
        "instruction": "pull the drawer open",
        "success": success,
        "reason": "" if success else "the time was up",
        "steps": len(shots),
        "budget_gmac": budgets[0] if budgets else WIDE,
        "shots": shots,
    }
    return SubtaskRecord(**{**fields, **changes})


def make_record(*subtasks: SubtaskRecord, **changes: Any) -> DemoRecord:
    fields: dict[str, Any] = {
        "policy": "deer-nano",
        "weights_sha256": "ab" * 32,
        "exit_layers": LAYERS,
        "full_gmac": FULL_GMAC,
        "seed": 7,
        "environment": "playtable:D",
        "renderer": "tiny",
        "command": "deer demo --seed 7",
        "started": "2030-01-01T00:00:00+00:00",
        "commit": "",
        "versions": {"torch": "2.0"},
        "planned": 5,
        "subtasks": subtasks,
        "video": "film.mp4",
    }
    return DemoRecord(**{**fields, **changes})


class Page(HTMLParser):
    """What a browser would see: the text, the tags, and the places that it would fetch from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_subtask_entry_has_the_promised_keys_and_figures() -> None:
    shots = tuple(make_shot(step, 2 if step == 1 else 0, WIDE, latency_ms=float(step)) for step in range(1, 5))
    entry = make_subtask([], [], shots=shots, steps=4).as_json(len(LAYERS))
    promised = {
        "task",
        "instruction",
        "success",
        "steps",
        "exit_counts",
        "mean_gmac",
        "full_gmac",
        "latency_ms",
        "budget",
    }
    assert promised <= set(entry)
    assert entry["exit_counts"] == {"0": 3, "1": 0, "2": 1}
    assert entry["mean_gmac"] == pytest.approx(FULL_GMAC * (3 + 1 + 1 + 1) / 3 / 4)
    assert entry["full_gmac"] == FULL_GMAC
    assert entry["latency_ms"] == {"p50": pytest.approx(2.5), "p99": pytest.approx(3.97)}
    assert entry["exits"] == [2, 0, 0, 0]


def test_budget_change_is_recorded_at_the_step_where_it_took_effect() -> None:
    entry = make_subtask([2, 2, 0, 0], [WIDE, WIDE, TIGHT, TIGHT]).as_json(len(LAYERS))
    assert entry["budget"] == WIDE
    assert entry["budget_changes"] == [{"step": 3, "budget": TIGHT}]


def test_a_chunk_is_counted_once_in_costs_and_step_by_step_in_steps() -> None:
    shots = tuple(
        replace(make_shot(step, 2 if step <= 3 else 0, WIDE if step <= 3 else TIGHT), asked=step in (1, 4))
        for step in range(1, 6)
    )
    record = make_subtask([], [], shots=shots, steps=5)
    entry = record.as_json(len(LAYERS))
    assert (entry["steps"], entry["policy_steps"], entry["exits"]) == (5, 2, [2, 0])
    assert entry["mean_gmac"] == pytest.approx(FULL_GMAC * (3 + 1) / 3 / 2)
    assert entry["budget_changes"] == [{"step": 2, "budget": TIGHT}]
    page = Page(render_page(make_record(record).as_json()))
    assert "5 steps, the policy was asked at 2 of them" in page.text
    assert "then 33% of the full model from policy step 2" in page.text


def test_report_file_is_plain_json_with_the_promised_keys(tmp_path: Path) -> None:
    record = make_record(make_subtask([0, 1], [WIDE, WIDE]), make_subtask([1], [TIGHT], success=False))
    record.write_json(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"subtasks", "seed", "versions", "commit", "renderer", "video"} <= set(report)
    assert [entry["success"] for entry in report["subtasks"]] == [True, False]
    assert record.solved == 1
    assert [shot.report.exit_index for shot in record.shots] == [0, 1, 1]


def test_subtask_without_a_step_is_reported_without_invented_numbers() -> None:
    record = make_record(make_subtask([], [], success=False))
    entry = record.as_json()["subtasks"][0]
    assert entry["mean_gmac"] is None
    assert entry["latency_ms"] == {"p50": None, "p99": None}
    page = Page(render_page(record.as_json()))
    assert "0 of 5 instructions carried out" in page.text
    assert "none" in page.text


def test_page_tells_the_outcome_and_what_was_spent() -> None:
    wide, tight = make_subtask([2, 2, 2, 2], [WIDE] * 4), make_subtask([0, 0], [TIGHT] * 2, success=False)
    page = Page(render_page(make_record(wide, tight).as_json()))
    assert "1 of 5 instructions carried out" in page.text
    assert "78% of the full language model" in re.sub(r"\s+", " ", page.text)
    assert "6.0 → 2.0" in page.text
    assert "the time was up" in page.text
    assert "cut short: 3 of 5 instructions were not given" in page.text
    assert page.text.count("83% of the full model") >= 2
    assert "budget 33% of the full model" in page.text


def test_page_fetches_nothing_but_the_film_beside_it() -> None:
    html = render_page(make_record(make_subtask([0], [WIDE])).as_json())
    page = Page(html)
    assert set(page.sources) == {"film.mp4", "report.json"}
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html


def test_page_without_a_film_shows_no_player() -> None:
    assert "video" not in Page(render_page(make_record(make_subtask([0], [WIDE]), video="").as_json())).tags


def test_page_escapes_what_a_person_wrote() -> None:
    html = render_page(make_record(make_subtask([0], [WIDE], instruction="<script>alert(1)</script>")).as_json())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_page_has_both_colour_schemes() -> None:
    html = render_page(make_record(make_subtask([0], [WIDE])).as_json())
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html


def test_timeline_shows_each_run_of_exits_and_the_budget_change() -> None:
    subtask = make_subtask([0, 0, 1, 0], [WIDE, WIDE, WIDE, TIGHT])
    html = render_page(make_record(subtask).as_json())
    for words in ("steps 1 to 2: exit 0, 2 layers", "step 3: exit 1, 4 layers", "step 4: exit 0, 2 layers"):
        assert f"open_drawer, policy {words}" in html
    # Three of four steps lie in front of the change, in the chart of the run and in that of the subtask.
    assert html.count('<line class="budget" x1="720.00"') == 2


def test_periods_follow_the_budget_over_subtasks() -> None:
    report = make_record(
        make_subtask([2, 2], [WIDE, WIDE]), make_subtask([2, 0, 0], [WIDE, TIGHT, TIGHT]), make_subtask([1], [TIGHT])
    ).as_json()
    found = periods(report)
    assert [(period.steps, round(period.mean_layers, 3)) for period in found] == [(3, 6.0), (3, 2.667)]
    assert found[1].used_share == pytest.approx(8 / 3 / 6)


def test_runs_join_equal_neighbours() -> None:
    assert runs([1, 1, 0, 1]) == [(0, 2, 1), (2, 1, 0), (3, 1, 1)]
    assert runs([]) == []


def test_report_is_there_even_if_the_film_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def give_up(frame: np.ndarray, repeat: int = 1) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish.VideoWriter, "add", staticmethod(give_up))
    record = make_record(make_subtask([0, 1], [WIDE, WIDE]), video="")
    with pytest.raises(KeyboardInterrupt):
        publish.publish(record, tmp_path, PlainProgress(len(LAYERS), 5, io.StringIO()))
    assert json.loads((tmp_path / "report.json").read_text())["video"] == ""
    assert "1 of 5 instructions carried out" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "film.mp4").exists()


def test_film_shows_every_step_and_then_the_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import av

    monkeypatch.setattr(publish, "END_CARD_FRAMES", 3)
    record = make_record(make_subtask([0, 1], [WIDE, WIDE]), make_subtask([2], [TIGHT]), video="")
    complete = publish.publish(record, tmp_path, PlainProgress(len(LAYERS), 5, io.StringIO()))
    assert complete.video == json.loads((tmp_path / "report.json").read_text())["video"] == "film.mp4"
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 3 + 3
    last_step, card = frames[2].astype(float), frames[3].astype(float)
    assert np.abs(last_step - card).mean() > 2.0
    assert np.abs(frames[5].astype(float) - card).mean() < 1.0
