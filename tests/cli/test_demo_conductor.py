"""Tests of the demonstration's course, against a scripted client in place of the running stack."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import Budget, ExitReport
from deer_ros.cli.demo.conductor import CHANGE_STEP, Budgets, Conductor
from deer_ros.cli.demo.progress import LiveProgress, PlainProgress
from deer_ros.cli.demo.recorder import Recorder, join
from deer_ros.errors import StackError
from deer_ros.reports import FollowResult, Frame, Outcome, StepAction, StepFeedback, StepReport
from deer_sim.chains import Subtask

SUBTASKS = tuple(Subtask(f"task_{number}", f"do thing {number}") for number in range(5))
BUDGETS = Budgets(first_gmac=0.04, second_gmac=0.02, full_gmac=0.05)


def make_report(stamp_s: float, step: int, budget: float) -> StepReport:
    exit_index = 1 if budget > 0.03 else 0
    report = ExitReport(exit_index, 2 * exit_index + 1, (), (), 0.025 * (exit_index + 1), 0.1, 0.05, 0.2, 4.0)
    return StepReport(stamp_s, step, 2, budget, report)


def make_frame(stamp_s: float) -> Frame:
    return Frame(stamp_s, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))


class ScriptedClient:
    """Plays a stack: each instruction takes `steps` in chunks of `horizon`, and ends as the script says."""

    def __init__(self, script: list[Any], steps: int = 20, horizon: int = 1) -> None:
        self.script = script
        self.steps = steps
        self.horizon = horizon
        self.calls: list[str] = []
        self.budget = 0.0
        self.clock_s = 0.0
        self.feedback: Callable[[StepFeedback], None] = lambda feedback: None
        self.ending: Any = None

    def on_frame(self, callback: Callable[[Frame], None]) -> None:
        self.show = callback

    def on_action(self, callback: Callable[[StepAction], None]) -> None:
        self.act = callback

    def on_exit_report(self, callback: Callable[[StepReport], None]) -> None:
        self.tell = callback

    def set_budget(self, budget: Budget) -> None:
        assert budget.average_llm_gmac is not None
        self.calls.append(f"budget {budget.average_llm_gmac}")
        self.budget = budget.average_llm_gmac

    def begin_subtask(self, task: str) -> None:
        self.calls.append(f"begin {task}")

    def send(self, instruction: str, max_steps: int, on_feedback: Callable[[StepFeedback], None]) -> ScriptedClient:
        self.calls.append(instruction)
        self.feedback = on_feedback
        self.ending = self.script.pop(0)
        return self

    def result(self) -> FollowResult:
        for step in range(1, self.steps + 1):
            self.clock_s += 1 / 30
            self.show(make_frame(self.clock_s))
            index = (step - 1) % self.horizon
            self.act(StepAction(self.clock_s, step, index))
            if index:
                continue
            report = make_report(self.clock_s, step, self.budget)
            self.tell(report)
            exit_report = report.report
            self.feedback(
                StepFeedback(step, exit_report.exit_index, exit_report.exit_layer, (), exit_report.llm_gmac, 0.05, 4.0)
            )
        if isinstance(self.ending, BaseException):
            raise self.ending
        return FollowResult(self.ending, "as the script says", self.steps)

    def cancel(self, timeout_s: float) -> bool:
        self.calls.append("cancel")
        return True


def conduct(client: ScriptedClient, out: io.StringIO | None = None) -> Conductor:
    progress = PlainProgress(2, len(SUBTASKS), out or io.StringIO())
    return Conductor(client, Recorder(client), progress, BUDGETS, max_steps=100)  # type: ignore[arg-type]


def test_each_instruction_is_judged_by_its_task_and_a_failure_does_not_end_the_chain() -> None:
    client = ScriptedClient([Outcome.DONE, Outcome.TIMEOUT, Outcome.DONE, Outcome.DONE, Outcome.DONE])
    conductor = conduct(client)
    conductor.run(SUBTASKS)
    assert [record.success for record in conductor.records] == [True, False, True, True, True]
    spoken = [call for call in client.calls if not call.startswith("budget")]
    assert spoken == [words for subtask in SUBTASKS for words in (f"begin {subtask.task}", subtask.instruction)]
    assert [len(record.shots) for record in conductor.records] == [20] * 5


def test_a_chunk_of_actions_is_shown_step_by_step_with_the_report_that_it_began_with() -> None:
    client = ScriptedClient([Outcome.DONE] * 5, steps=31, horizon=3)
    out = io.StringIO()
    conductor = conduct(client, out)
    conductor.run(SUBTASKS)
    for record in conductor.records:
        assert [shot.step for shot in record.shots] == list(range(1, 32))
        assert [shot.asked for shot in record.shots] == [step % 3 == 0 for step in range(31)]
        assert record.steps == 31
    third = [shot.budget_gmac for shot in conductor.records[2].shots]
    # The budget changes with the feedback of step 16, the first from 15 on, and takes effect with the chunk after it.
    assert third == [0.04] * 18 + [0.02] * 13
    assert out.getvalue().count("    step  31  exit") == 5


def test_budget_falls_in_the_middle_of_the_third_subtask() -> None:
    client = ScriptedClient([Outcome.DONE] * 5)
    conductor = conduct(client)
    conductor.run(SUBTASKS)
    budgets = [[shot.budget_gmac for shot in record.shots] for record in conductor.records]
    assert budgets[1] == [0.04] * 20
    assert budgets[2] == [0.04] * CHANGE_STEP + [0.02] * (20 - CHANGE_STEP)
    assert budgets[4] == [0.02] * 20
    assert [call for call in client.calls if call.startswith("budget")] == ["budget 0.04", "budget 0.02"]
    assert [record.budget_gmac for record in conductor.records] == [0.04, 0.04, 0.04, 0.02, 0.02]


def test_budget_falls_also_when_the_third_subtask_ends_early() -> None:
    client = ScriptedClient([Outcome.DONE] * 5, steps=CHANGE_STEP - 5)
    conductor = conduct(client)
    conductor.run(SUBTASKS)
    assert [record.budget_gmac for record in conductor.records] == [0.04, 0.04, 0.04, 0.02, 0.02]


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("ending", [KeyboardInterrupt(), StackError("node safety was ended by SIGKILL")])
def test_what_was_done_before_an_interruption_is_kept(ending: BaseException, horizon: int) -> None:
    client = ScriptedClient([Outcome.DONE, ending], horizon=horizon)
    conductor = conduct(client)
    with pytest.raises(type(ending)):
        conductor.run(SUBTASKS)
    assert client.calls[-1] == "cancel"
    assert [record.success for record in conductor.records] == [True, False]
    assert len(conductor.records[1].shots) == 20
    assert conductor.records[1].steps == 20
    assert "cut short" in conductor.records[1].reason


@pytest.mark.parametrize(("first", "second"), [(0.02, 0.02), (0.02, 0.04), (0.06, 0.02), (0.04, 0.0)])
def test_budgets_must_fall_within_the_full_model(first: float, second: float) -> None:
    with pytest.raises(ConfigError, match="choose other shares"):
        Budgets(first, second, 0.05)


def test_refused_budget_ends_the_demonstration_before_anything_moves() -> None:
    client = ScriptedClient([])

    def refuse(budget: Budget) -> None:
        raise BudgetError("the cheapest is 0.03")

    client.set_budget = refuse  # type: ignore[method-assign]
    with pytest.raises(BudgetError, match="cheapest"):
        conduct(client).run(SUBTASKS)
    assert client.calls == []


def test_actions_and_reports_that_the_result_has_overtaken_are_waited_for() -> None:
    client = ScriptedClient([])
    recorder = Recorder(client)  # type: ignore[arg-type]
    recorder.begin()
    client.show(make_frame(1.0))
    client.act(StepAction(1.0, 1, 0))
    late = (lambda: client.act(StepAction(1.1, 2, 1)), lambda: client.tell(make_report(1.0, 1, 0.0)))
    for number, come in enumerate(late, start=1):
        threading.Timer(0.1 * number, come).start()
    assert [shot.step for shot in recorder.subtask(0, "go", 2)] == [1, 2]


def test_reports_are_joined_with_the_frame_that_they_answer() -> None:
    frames = [make_frame(stamp_s) for stamp_s in (1.0, 3.0, 2.0)]
    for number, frame in enumerate(frames):
        frame.rgb_static[:] = number
    stamps = (1.0, 2.0, 3.0)
    actions = [StepAction(stamp_s, step, 0) for step, stamp_s in enumerate(stamps)]
    shots = join(frames, actions, [make_report(stamp_s, step, 0.0) for step, stamp_s in enumerate(stamps)], 1, "go")
    assert [shot.rgb_static.max() for shot in shots] == [0, 2, 1]
    assert {(shot.subtask, shot.instruction, shot.budget_gmac) for shot in shots} == {(1, "go", None)}


def test_lost_frame_is_replaced_by_the_one_before_and_never_by_a_later_one() -> None:
    frame = make_frame(2.0)
    stamps = (1.0, 2.0, 3.0)
    actions = [StepAction(stamp_s, step, 0) for step, stamp_s in enumerate(stamps, start=1)]
    reports = [make_report(stamp_s, step, 0.0) for step, stamp_s in enumerate(stamps, start=1)]
    shots = join([frame], actions, reports, 0, "go")
    assert [shot.step for shot in shots] == [2, 3]


def test_plain_progress_tells_what_happens() -> None:
    out = io.StringIO()
    client = ScriptedClient([Outcome.DONE, Outcome.TIMEOUT, Outcome.DONE, Outcome.DONE, Outcome.DONE], steps=40)
    conduct(client, out).run(SUBTASKS)
    lines = out.getvalue()
    assert '2/5 "do thing 1" (task_1)' in lines
    assert "budget: 40 MMAC a step on average, 80% of the full model" in lines
    assert "budget: 20 MMAC a step on average, 40% of the full model" in lines
    assert "step  30  exit 1 of 1" in lines
    assert "not done (as the script says) after 40 steps" in lines
    assert lines.count("done after 40 steps, 50% of the full model") == 2


def test_live_progress_shows_state_and_figures_of_each_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "120")
    progress = LiveProgress(2, SUBTASKS, "demo")
    client = ScriptedClient([Outcome.DONE, Outcome.TIMEOUT, KeyboardInterrupt()])
    conductor = Conductor(client, Recorder(client), progress, BUDGETS, max_steps=100)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        conductor.run(SUBTASKS)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(progress.render())
    lines = console.export_text().splitlines()
    rows = [next(line for line in lines if subtask.instruction in line) for subtask in SUBTASKS]
    assert [row.split()[1] for row in rows] == ["✓", "✗", "✗", "·", "·"]
    assert "20 steps" in rows[0]
    assert "100%" in rows[0]
    assert "█" in rows[0]
    assert "▄" in rows[2]
    assert any("exit 0, 2 layers, 4.0 ms" in line and "budget 40%" in line for line in lines)
