"""The commands `deer eval` and `deer compare`, from their arguments to the files and lines that they leave."""

import json
import sys

import numpy as np
import pytest

from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo, Understanding
from deer_ros.cli.eval import planned
from deer_ros.cli.evaluation_page import render_page
from deer_ros.cli.evaluation_report import Provenance, notes, refused
from deer_ros.cli.main import main, parsed
from deer_sim.chains import task_chains
from deer_sim.environment import EnvironmentSpec
from deer_sim.results import SETTINGS, read_results
from deer_sim.step_record import StepRecord

TASKS = ["--tasks", "turn_on_led", "--starts", "2", "--workers", "1"]


class Sleeper:
    """A policy of someone's own: it does nothing."""

    info = PolicyInfo("sleeper", (0, 3))
    budget = Budget()

    def set_budget(self, budget):
        raise NotImplementedError

    def initial_state(self):
        return None

    def step(self, observation, state):
        return ActionChunk(np.array([[0.0] * 6 + [1.0]], np.float32)), None, ExitReport(0, 0, (), (), 1, 2, 4, 5, 0.1)


def sleeper():
    return Sleeper()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two evaluations of the same starts: by the expert, and by a policy of someone's own, filmed."""
    folder = tmp_path_factory.mktemp("runs")
    module = folder / "own_policy_module.py"
    module.write_text("from test_cli_eval_loaded import sleeper\n")
    sys.modules["test_cli_eval_loaded"] = sys.modules[__name__]
    sys.path.insert(0, str(folder))
    try:
        assert main(["eval", "--policy", "expert", *TASKS, "--out", str(folder / "expert")]) == 0
        own = ["eval", "--policy", "own_policy_module:sleeper", *TASKS, "--max-steps", "3", "--films", "1"]
        assert main([*own, "--keep-steps", "--out", str(folder / "sleeper")]) == 0
    finally:
        sys.path.remove(str(folder))
    return folder


def test_the_report_begins_with_the_figures_and_tells_where_they_come_from(runs):
    report = json.loads((runs / "sleeper" / "report.json").read_text())
    assert {"average_length", "per_position", "per_task", "llm_share", "total_share"} <= set(list(report)[:6])
    assert report["average_length"] == 0.0
    assert (report["llm_share"], report["total_share"]) == (0.25, 0.4)
    for name in ("commit", "versions", "renderer", "seed", "weights_sha256", "budget", "command", "environment"):
        assert name in report
    assert report["seed"] == 1000
    expert = json.loads((runs / "expert" / "report.json").read_text())
    assert expert["average_length"] == 1.0
    assert (expert["llm_share"], expert["renderer"]) == (None, "none")


def test_the_page_shows_films_and_exits(runs):
    page = (runs / "sleeper" / "report.html").read_text()
    (film,) = json.loads((runs / "sleeper" / "report.json").read_text())["films"]
    assert (runs / "sleeper" / film["film"]).exists()
    assert f'src="{film["film"]}"' in page
    assert "Cost against success" in page
    assert "1 layers: 6 policy steps" in page
    assert "Cost against success" not in (runs / "expert" / "report.html").read_text()


def test_steps_are_kept_with_what_the_expert_would_have_done(runs):
    for result in read_results(runs / "sleeper"):
        record = StepRecord.load(runs / "sleeper" / result.steps)
        assert record.subtask.tolist() == record.exit_index.tolist() == [0, 0, 0]
        assert (record.action == [0, 0, 0, 0, 0, 0, 1]).all()
        assert not record.touching.any()
        # Nothing moves, so that the expert would set out for the same place each time.
        assert np.linalg.norm(record.expert_action[:, :3], axis=1).min() > 0.1
        assert np.ptp(record.expert_action, axis=0).max() < 0.1
    assert not any(result.steps for result in read_results(runs / "expert"))


def test_single_chains_can_be_run_again(runs, tmp_path):
    last = read_results(runs / "expert")[-1]
    assert main(["eval", "--policy", "expert", *TASKS, "--chains", last.key, "--out", str(tmp_path)]) == 0
    assert read_results(tmp_path) == [last]


def test_notes_tell_chosen_sequences_from_the_first():
    arguments = parsed(["eval", "--policy", "expert", "--sequences", "3", "--out", "nowhere"])
    plan = planned(arguments)
    provenance = Provenance.of(arguments, None, EnvironmentSpec("playtable:D", "none", 30.0, ()))
    assert "3 sequences, the first of the official 1000." in notes(plan, provenance)
    assert "2 sequences, chosen ones of the official 1000." in notes(plan[1:], provenance)


def test_the_page_of_sequences_shows_positions(runs):
    report = json.loads((runs / "sleeper" / "report.json").read_text())
    page = render_page({**report, "mode": "sequences"})
    assert "Subtasks in a row" in page


def test_the_report_tells_of_chunks_only_where_there_are_some(runs):
    report = json.loads((runs / "sleeper" / "report.json").read_text())
    assert (report["horizon"], report["asked_share"]) == (1, 1.0)
    assert "are policy steps, at which it is asked" not in render_page(report)
    assert not any("actions at a time" in note for note in report["notes"])
    page = render_page({**report, "horizon": 3, "asked_share": 0.34})
    assert "<b>34%</b><span>of the control steps are policy steps, at which it is asked" in page
    settings = {name: report[name] for name in ("environment", "renderer", "mode", "seed", "max_steps")}
    assert "answers with 3 actions at a time" in notes([], Provenance(settings, {"horizon": 3}))[0]


def test_other_settings_need_another_folder(runs, capsys):
    assert main(["eval", "--policy", "expert", *TASKS, "--seed", "5", "--out", str(runs / "expert")]) == 2
    assert "seed 1000 and not 5" in capsys.readouterr().err


def test_refusals_are_counted_and_refuse_nothing():
    class Choosy(Sleeper):
        def understanding(self, instruction):
            return Understanding("turn_on_led", "light" in instruction, 0.5, "led on")

    plan = task_chains("D", ["turn_on_led"], 30, 1000)
    texts = {chain.subtasks[0].instruction for chain in plan}
    without = sum("light" not in text for text in texts)
    assert 0 < without < len(texts)
    found = refused(Choosy(), plan)
    assert found == {"instructions": len(texts), "refused": without, "rate": without / len(texts)}
    assert refused(Sleeper(), plan) is None
    assert refused(None, plan) is None


def test_the_page_tells_wordings_apart(runs):
    report = json.loads((runs / "sleeper" / "report.json").read_text())
    assert "Wordings" not in render_page(report)
    row = report["per_task"]["turn_on_led"]
    told = {"instructions": 3, "refused": 1, "rate": 1 / 3}
    page = render_page({**report, "per_wording": {"written": row, "spoken": row}, "refused": told})
    assert "<td>spoken</td>" in page
    assert "refuse 1 of the 3 different" in page


def test_compare_tests_pairs_and_warns_of_other_renderers(runs, capsys):
    assert main(["compare", str(runs / "expert"), str(runs / "sleeper")]) == 0
    printed = capsys.readouterr().out
    assert "WARNING: renderer differs: 'none' and 'pybullet TinyRenderer'" in printed
    assert "first - second: +1.000 subtasks in a row" in printed
    # Two differences of one sign: half of the patterns of signs are as extreme.
    assert float(printed.split("p = ")[1].split()[0]) == pytest.approx(0.5, abs=0.03)
    assert "2 pairs" in printed
    assert main(["compare", str(runs / "expert"), str(runs / "expert")]) == 0
    same = capsys.readouterr().out
    assert "WARNING" not in same
    assert "p = 1.0000" in same


def test_compare_refuses_other_starts(runs, tmp_path, capsys):
    lines = (runs / "expert" / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text(lines[0])
    (tmp_path / SETTINGS).write_text("{}")
    assert main(["compare", str(runs / "expert"), str(tmp_path)]) == 2
    assert "run on one side only" in capsys.readouterr().err
    assert main(["compare", str(runs / "expert"), str(tmp_path / "nothing")]) == 2
    assert "holds no results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "sandbox"], "unknown environment 'sandbox'"),
        (["--sequences", "1001"], "ask for 1 to 1000"),
        (["--policy", "no_such_module:make"], "No module named 'no_such_module'"),
        (["--policy", "builtins:list"], "it returned a list"),
        (["--env", "calvin:D", "--calvin-data", "/nowhere"], "annotations"),
        (["--workers", "0"], "at least 1"),
        (["--chains", "sequence/0/0001"], "there are no sequence/0/0001 among what is run, such as sequence/0/0000"),
        (["--backend", "calvin_env"], "playtable:D has no back end calvin_env"),
        (["--renderer", "egl"], "playtable:D has no renderer egl"),
        (["--wordings", "spoken", "--annotations", __file__], "leave it out with --annotations"),
    ],
)
def test_what_can_not_be_evaluated_is_told(arguments, message, tmp_path, capsys):
    fixed = ["eval", "--sequences", "1", *arguments, "--out", str(tmp_path)]
    assert main(fixed) == 2
    assert message in capsys.readouterr().err


def test_a_ray_cluster_that_is_not_there_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["eval", "--policy", "expert", *TASKS, "--ray", "127.0.0.1:1", "--out", str(tmp_path)]) == 2
    assert "Ray is not installed" in capsys.readouterr().err
