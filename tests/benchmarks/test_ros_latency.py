"""The time from stamp to command: its parts add up, what got lost is counted, and the whole runs."""

import json

import numpy as np
import pytest

import ros_latency
from latency import analysis, report, session
from latency.analysis import OVERHEAD, PARTS, TOTAL

PERIOD_NS = 33_000_000
STAMP_US, STAMP_NS = 1_795_930_000_123_456, 1_795_930_000_999_999_999
PARTS_MS = (2.0, 1.0, 10.0, 3.0, 0.5, 0.25)


def traces(count=10, chunk=1, lost=None):
    """Frames one period apart, each with `PARTS_MS`; of `chunk` frames the model sees the first. `lost` names for an
    event the frames that it lacks."""
    lost = lost or {}
    at = {name: [] for name in ("captured", "framed", "began", "ended", "arrived", "sent", "received")}
    for index in range(count):
        asked = index % chunk == 0
        parts = np.array(PARTS_MS) if asked else np.array(PARTS_MS) * (1, 0, 0, 1, 1, 1)
        times = index * PERIOD_NS + np.rint(np.cumsum([0, *parts]) * 1e6).astype(np.int64)
        frame, command = STAMP_US + index, STAMP_NS + index
        rows = dict(zip(at, ((frame, *times[[0]]), *((frame, time) for time in times[1:5]), None, None), strict=True))
        rows["sent"], rows["received"] = (frame, command, times[5]), (command, times[6])
        for name, row in rows.items():
            if index not in lost.get(name, ()) and (asked or name not in ("began", "ended")):
                at[name].append(row)
    at["sent"].append((0, STAMP_NS + 10_000, 5))
    width = {"sent": 3}
    return {name: np.array(rows, np.int64).reshape(-1, width.get(name, 2)) for name, rows in at.items()}


def found(**options):
    return analysis.steps(traces(**options), 0, 10 * PERIOD_NS)


def test_parts_are_the_differences_of_their_moments_and_add_up():
    steps = found()
    np.testing.assert_allclose(steps.parts_ms, np.tile(PARTS_MS, (10, 1)))
    np.testing.assert_allclose(steps.total_ms, sum(PARTS_MS))
    columns = steps.columns()
    assert list(columns) == [*PARTS, TOTAL, OVERHEAD]
    np.testing.assert_allclose(columns[OVERHEAD], sum(PARTS_MS) - 10.0)
    assert steps.asked.all()


def test_a_frame_that_a_chunk_answers_has_no_wait_and_no_model():
    steps = found(chunk=3)
    assert steps.asked.tolist() == [True, False, False, True, False, False, True, False, False, True]
    np.testing.assert_allclose(steps.parts_ms[1], (2.0, 0.0, 0.0, 3.0, 0.5, 0.25))
    told = analysis.summary(steps, 1 / 30)
    assert (told["frames"], told["asked"], told["missed"]) == (10, 4, 0)
    assert told["asked ms"]["p50"] == pytest.approx(16.75)
    assert told["ms"]["model"]["p50"] == 0.0
    assert told["ms"][analysis.MODEL]["p50"] == pytest.approx(10.0)
    assert told["from chunk ms"]["p50"] == pytest.approx(5.75)


@pytest.mark.parametrize(
    ("lost", "never_complete"),
    [
        ({"framed": (4,), "began": (4,), "ended": (4,), "arrived": (4,), "sent": (4,)}, 1),
        ({"began": (4,), "ended": (4,), "arrived": (4,), "sent": (4,)}, 0),
        ({"sent": (4,)}, 0),
        ({"received": (4,)}, 0),
    ],
)
def test_what_gets_lost_anywhere_is_a_missed_step(lost, never_complete):
    told = analysis.summary(found(lost=lost), 1 / 30)
    assert (told["frames"], told["missed"], told["never complete"]) == (10, 1, never_complete)
    assert told["ms"][TOTAL]["max"] == pytest.approx(16.75)


def test_nothing_at_all_is_no_error():
    empty = {name: rows[:0] for name, rows in traces().items()}
    empty["captured"] = traces()["captured"]
    told = analysis.summary(analysis.steps(empty, 0, 10 * PERIOD_NS), 1 / 30)
    assert (told["frames"], told["missed"], told["ms"][TOTAL]) == (10, 10, {})


def test_frames_outside_of_the_span_do_not_count():
    steps = analysis.steps(traces(), 2 * PERIOD_NS, 5 * PERIOD_NS)
    assert len(steps.asked) == 3


def test_the_first_answer_counts_when_a_frame_is_answered_again():
    twice = traces()
    again = twice["sent"][3].copy()
    again[1:] += 1_000_000_000
    twice["sent"] = np.vstack((twice["sent"], again))
    steps = analysis.steps(twice, 0, 10 * PERIOD_NS)
    np.testing.assert_allclose(steps.total_ms, sum(PARTS_MS))


def test_late_is_later_than_a_period():
    assert analysis.summary(found(), 0.0167)["later than a period"] == 10
    assert analysis.summary(found(), 0.0168)["later than a period"] == 0


def test_percentiles():
    told = analysis.percentiles(np.arange(1001.0))
    assert told == pytest.approx({"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 1000.0})


@pytest.mark.parametrize("text", ["480", "480x", "x640", "big", "-1x640"])
def test_what_is_no_size(text, capsys):
    with pytest.raises(SystemExit):
        ros_latency.parsed(["--sizes", text])
    assert "--sizes" in capsys.readouterr().err


def test_tables_tell_ratios_and_losses():
    fast, slow = ({"policy": "none", "size": None, **analysis.summary(found(), 1 / 30)} for _ in range(2))
    slow["ms"] = {name: {key: 2 * value for key, value in of.items()} for name, of in slow["ms"].items()}
    slow["missed"] = 7
    lines = report.comparison_table({"small": {"as it is": fast, "slow": slow}}).splitlines()
    assert lines[2] == "| small: as it is | 16.8 ms | 16.8 ms | 2.0 ms | 2.0 ms | 10.0 ms | 10.0 ms | 0 of 10 |"
    assert lines[3] == "| small: slow | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 7 of 10 |"


def test_the_whole_runs_and_writes_its_section(tmp_path, monkeypatch, capsys):
    """Two seconds with a policy that answers at once, and nothing of the machine's speed is judged."""
    document = tmp_path / "results.md"
    document.write_text("# Results\n")
    arguments = ["--seconds", "2", "--policies", "none", "--sizes", "240x320", "--compare-seconds", "0"]
    monkeypatch.setattr("sys.argv", ["ros_latency.py", *arguments, "--out", str(tmp_path), "--results", str(document)])
    monkeypatch.setattr(session, "WARM_UP_S", 0.2)
    monkeypatch.setattr(ros_latency, "ALONE_S", 0.2)
    assert ros_latency.main() == 0
    (run,) = json.loads((tmp_path / "latency.json").read_text())["runs"]
    assert 10 < run["frames"] < 70
    assert 0 < run["asked"] <= run["frames"]
    assert run["missed"] < run["frames"]
    assert set(run["cores"]) == {"driver", "safety", "policy", "everything"}
    text = document.read_text()
    assert text.startswith("# Results")
    assert "| 240 x 320 | none | p50 |" in text
    assert "|  |  | p99.9 |" in text
    assert text.split("<!-- begin ros_latency -->\n")[1].startswith(capsys.readouterr().out.split("\n\n")[1])
