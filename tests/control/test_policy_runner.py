"""The model's thread: newest frame only, state kept with the goal, budget between steps, errors delivered."""

import queue
import threading
import time

import numpy as np
import pytest

from deer_policies.errors import BudgetError, CheckpointError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, Observation, PolicyInfo
from deer_ros.control.action_queue import ActionQueue
from deer_ros.control.goal import Goal, GoalOutcome
from deer_ros.control.inference_worker import InferenceWorker
from deer_ros.control.policy_runner import PolicyRunner, StaleObservationError, StepRequest

WAIT_S = 5.0


class CountingPolicy:
    """Its state counts its steps, and its first action's x tells the count in hundredths; the others follow."""

    def __init__(self):
        self.info = PolicyInfo("counting", (1, 3), (4, 4, 3), (2, 2, 3))
        self.budget = Budget()
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()
        self.horizon = 1

    def set_budget(self, budget):
        self.threads.add(threading.get_ident())
        if budget.peak_llm_gmac is not None and budget.peak_llm_gmac < 1.0:
            raise BudgetError("the cheapest is 1 GMAC")
        self.budget = budget

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.threads.add(threading.get_ident())
        self.gate.wait(WAIT_S)
        if observation.instruction == "fail":
            raise ValueError("a fault in the model")
        actions = np.array(
            [[0.01 * (state + 1 + place), 0, 0, 0, 0, 0, 1] for place in range(self.horizon)], np.float32
        )
        return ActionChunk(actions), state + 1, ExitReport(0, 1, (), (1.0, 1.0), 1.0, 2.0, 3.0, 4.0, 0.1)


def observation(instruction="go"):
    images = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    return Observation(*images, np.zeros(15, np.float32), instruction, 0.0)


def make_goal():
    return Goal(b"0" * 16, "go", 100, 0.0, progress_s=0.0, queue=ActionQueue(1, 1.0))


@pytest.fixture
def running():
    policy, delivered = CountingPolicy(), queue.Queue()
    runner = PolicyRunner(lambda: policy, 0.5, lambda request, future: delivered.put((request, future)))
    yield policy, runner, delivered
    policy.gate.set()
    runner.close()


def ask(runner, goal, stamp_ns=0, instruction="go", received_s=None):
    now_s = time.monotonic() if received_s is None else received_s
    runner.submit(StepRequest(goal, observation(instruction), stamp_ns, now_s))


def x_of(delivered):
    return delivered.get(timeout=WAIT_S)[1].result(0).actions[0].values[0]


def test_each_goal_has_its_own_state(running):
    _, runner, delivered = running
    first, second = make_goal(), make_goal()
    values = []
    for goal in (first, second, first, first, second):
        ask(runner, goal)
        values.append(x_of(delivered))
    np.testing.assert_allclose(values, (0.01, 0.01, 0.02, 0.03, 0.02), rtol=1e-6)


def test_a_result_holds_the_whole_chunk(running):
    policy, runner, delivered = running
    policy.horizon = 3
    ask(runner, make_goal())
    actions = delivered.get(timeout=WAIT_S)[1].result(0).actions
    np.testing.assert_allclose([action.values[0] for action in actions], (0.01, 0.02, 0.03), rtol=1e-6)


def test_a_waiting_request_is_replaced_by_the_newest(running):
    policy, runner, delivered = running
    policy.gate.clear()
    goal = make_goal()
    for stamp_ns in range(5):
        ask(runner, goal, stamp_ns)
        time.sleep(0.02)
    policy.gate.set()
    stamps = [delivered.get(timeout=WAIT_S)[0].stamp_ns for _ in range(2)]
    assert stamps == [0, 4]
    assert delivered.empty()
    assert runner.replaced == 3


def test_an_old_observation_is_not_acted_on(running):
    _, runner, delivered = running
    goal = make_goal()
    ask(runner, goal, received_s=time.monotonic() - 0.6)
    with pytest.raises(StaleObservationError, match="old"):
        delivered.get(timeout=WAIT_S)[1].result(0)
    ask(runner, goal)
    assert x_of(delivered) == pytest.approx(0.01)


def test_a_goal_that_has_ended_gets_no_step(running):
    policy, runner, delivered = running
    policy.gate.clear()
    busy, goal = make_goal(), make_goal()
    ask(runner, busy)
    time.sleep(0.05)
    ask(runner, goal)
    goal.end(GoalOutcome.CANCELLED, "")
    policy.gate.set()
    assert delivered.get(timeout=WAIT_S)[0].goal is busy
    time.sleep(0.05)
    assert delivered.empty()


def test_errors_are_delivered_and_the_thread_lives_on(running):
    _, runner, delivered = running
    goal = make_goal()
    ask(runner, goal, instruction="fail")
    with pytest.raises(ValueError, match="a fault in the model"):
        delivered.get(timeout=WAIT_S)[1].result(0)
    ask(runner, goal)
    assert x_of(delivered) == pytest.approx(0.01)


def test_a_budget_comes_between_two_steps_on_the_models_thread(running):
    policy, runner, delivered = running
    policy.gate.clear()
    goal = make_goal()
    ask(runner, goal)
    time.sleep(0.05)
    changed = runner.set_budget(Budget(average_llm_gmac=2.0))
    ask(runner, goal)
    time.sleep(0.05)
    assert not changed.done()
    policy.gate.set()
    results = [delivered.get(timeout=WAIT_S)[1].result(0) for _ in range(2)]
    assert [result.budget.average_llm_gmac for result in results] == [None, 2.0]
    assert len(policy.threads) == 1
    assert threading.get_ident() not in policy.threads


def test_a_budget_that_cannot_be_met_is_refused(running):
    policy, runner, _ = running
    with pytest.raises(BudgetError, match="cheapest"):
        runner.set_budget(Budget(peak_llm_gmac=0.5)).result(WAIT_S)
    assert policy.budget == Budget()


def test_what_loading_raises_gets_through():
    def load():
        raise CheckpointError("the file is damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        PolicyRunner(load, 0.5, lambda request, future: None)


def test_closing_while_a_call_waits():
    worker = InferenceWorker(lambda request: request, lambda request, future: None)
    assert worker.close()
    with pytest.raises(RuntimeError, match="ended"):
        worker.call(lambda: 1).result(1.0)
