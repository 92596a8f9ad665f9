"""Memory runs out in the middle of a step: a smaller exit takes it, from the state before, and the words say so."""

import queue
import time
from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, Observation, PolicyInfo, ReduciblePolicy
from deer_ros.control.action_queue import ActionQueue
from deer_ros.control.goal import Goal
from deer_ros.control.memory_fallback import MemoryFallback, ModelMemoryError
from deer_ros.control.policy_runner import PolicyRunner, StaleObservationError, StepRequest
from deer_ros.control.process_memory import gpu_mib, ran_out_of_memory, resident_mib

WAIT_S = 5.0


def out_of_memory():
    """What torch's allocator on a CPU really raises."""
    torch = pytest.importorskip("torch")
    return torch.empty(2**60, dtype=torch.uint8)


class Greedy:
    """Goes to the deepest exit in use; exits from `fits` on want more memory than there is."""

    def __init__(self, error=None, fits=1):
        self.info = PolicyInfo("greedy", (1, 3, 5, 7), (4, 4, 3), (2, 2, 3))
        self.budget = Budget()
        self.exits_in_use = 4
        self.least = 1
        self.error, self.fits = error or MemoryError("no more"), fits
        self.step_time_s = 0.0
        self.tried = []

    def set_budget(self, budget):
        if budget.peak_llm_gmac == 1.0:
            raise BudgetError("too little")
        self.budget, self.exits_in_use = budget, 4

    def limit_exits(self, exits):
        if exits < self.least:
            raise BudgetError(f"it needs {self.least}")
        self.exits_in_use = exits

    def initial_state(self):
        return 0

    def step(self, observation, state):
        deepest = self.exits_in_use - 1
        self.tried.append((deepest, state))
        time.sleep(self.step_time_s)
        if deepest >= self.fits:
            if callable(self.error):
                self.error()
            raise self.error
        actions = np.array([[0.01 * (state + 1), 0, 0, 0, 0, 0, 1]], np.float32)
        thresholds = (1.0,) * self.exits_in_use
        layer = self.info.exit_layers[deepest]
        return ActionChunk(actions), state + 1, ExitReport(deepest, layer, (), thresholds, 1.0, 2.0, 3.0, 4.0, 0.1)


def observation():
    return Observation(
        np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), np.zeros(15, np.float32), "go", 0.0
    )


@pytest.mark.parametrize("error", [MemoryError("no more"), out_of_memory])
def test_the_deepest_exits_are_given_up_one_by_one_and_the_state_is_the_one_before(error):
    policy, words = Greedy(error, fits=2), []
    fallback = MemoryFallback(policy, words.append)
    assert fallback.reduced == ""
    _, state, report = fallback.step(observation(), 7)
    assert policy.tried == [(3, 7), (2, 7), (1, 7)]
    assert (state, report.exit_index, len(report.thresholds)) == (8, 1, 2)
    assert fallback.reduced == "reduced to exit 1 (4 layers) after running out of memory"
    assert [item.split(" after")[0] for item in words] == [
        "reduced to exit 2 (6 layers)",
        "reduced to exit 1 (4 layers)",
    ]
    assert ("no more" in words[0]) != ("can't allocate memory" in words[0])
    fallback.step(observation(), state)
    assert policy.tried[3:] == [(1, 8)]
    assert len(words) == 2, "said once for each exit"


def test_without_memory_for_the_first_exit_it_fails():
    fallback = MemoryFallback(Greedy(fits=0), lambda _: None)
    with pytest.raises(ModelMemoryError, match=r"there is no smaller exit: MemoryError: no more"):
        fallback.step(observation(), 0)


def test_an_exit_that_the_policy_can_not_do_without_is_kept():
    policy = Greedy(fits=0)
    policy.least = 3
    with pytest.raises(ModelMemoryError, match="ran out of memory, and it needs 3"):
        MemoryFallback(policy, lambda _: None).step(observation(), 0)
    assert policy.exits_in_use == 3


def test_a_policy_that_can_not_be_reduced_fails():
    class Rigid:
        info, budget = PolicyInfo("rigid", (1,)), Budget()

        def step(self, observation, state):
            raise MemoryError

    with pytest.raises(ModelMemoryError, match="no smaller exit"):
        MemoryFallback(Rigid(), lambda _: None).step(observation(), 0)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    policy = Greedy(ValueError("a fault"))
    with pytest.raises(ValueError, match="a fault"):
        MemoryFallback(policy, lambda _: None).step(observation(), 0)
    assert policy.exits_in_use == 4


def test_what_counts_as_a_lack_of_memory():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as raised:
        out_of_memory()
    assert ran_out_of_memory(raised.value)
    with pytest.raises(MemoryError) as raised:
        np.empty(2**60, np.uint8)
    assert ran_out_of_memory(raised.value)
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not ran_out_of_memory(RuntimeError("shapes do not fit"))
    assert not ran_out_of_memory(ConfigError("can't allocate memory"))


def test_memory_in_use_is_told():
    before = resident_mib()
    held = np.ones(64 * 2**20, np.uint8)
    assert resident_mib() - before == pytest.approx(64, abs=8)
    assert held.all()
    assert gpu_mib() is None


@pytest.fixture
def running():
    policy, delivered, words = Greedy(fits=4), queue.Queue(), []
    runner = PolicyRunner(lambda: policy, 0.5, lambda request, future: delivered.put((request, future)), words.append)
    goal = Goal(b"0" * 16, "go", 100, 0.0, progress_s=0.0, queue=ActionQueue(1, 1.0))

    def ask():
        runner.submit(StepRequest(goal, observation(), 0, time.monotonic()))
        return delivered.get(timeout=WAIT_S)[1].result(0)

    yield policy, runner, goal, words, ask
    policy.step_time_s = 0.0
    runner.close()


def test_a_budget_brings_the_exits_back(running):
    policy, runner, goal, words, ask = running
    assert ask().report.exit_index == 3
    policy.fits = 1
    assert ask().report.exit_index == 0
    assert goal.policy_state == 2
    assert runner.reduced.startswith("reduced to exit 0")
    assert len(words) == 3
    with pytest.raises(BudgetError):
        runner.set_budget(Budget(peak_llm_gmac=1.0)).result(WAIT_S)
    assert runner.reduced
    policy.fits = 4
    runner.set_budget(Budget()).result(WAIT_S)
    assert runner.reduced == ""
    assert ask().report.exit_index == 3


def test_an_observation_that_grew_too_old_meanwhile_is_not_acted_on(running):
    policy, _, goal, _, ask = running
    policy.fits, policy.step_time_s = 1, 0.3
    with pytest.raises(StaleObservationError):
        ask()
    assert [exit_index for exit_index, _ in policy.tried[-2:]] == [3, 2]
    assert goal.policy_state == 0
    policy.step_time_s = 0.0
    assert ask().report.exit_index == 0, "the next frame is acted on at the exit that is left"


def test_memory_that_runs_out_in_the_warm_up():
    words = []
    runner = PolicyRunner(lambda: Greedy(fits=2), 0.5, lambda request, future: None, words.append)
    try:
        assert len(words) == 2
        assert runner.reduced.startswith("reduced to exit 1")
    finally:
        runner.close()


@pytest.fixture
def one_thread():
    """Small matrices on a busy machine are fastest so."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_real_policy_acts_at_a_smaller_exit_as_if_it_had_been_limited_before(tiny_checkpoint):
    """Its fourth layer asks torch for an exabyte; what it does then is what a policy does that was limited from the
    start, bit for bit, recurrent state included."""
    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.stepping import example_observation

    policy, limited = load_policy(tiny_checkpoint), load_policy(tiny_checkpoint)
    assert isinstance(policy, ReduciblePolicy)
    rng = np.random.default_rng(0)
    seen = [
        replace(example_observation(policy.info), rgb_static=rng.integers(0, 256, policy.info.static_shape, np.uint8))
        for _ in range(4)
    ]
    words = []
    fallback = MemoryFallback(policy, words.append)
    state = policy.initial_state()
    other = limited.initial_state()
    for item in seen[:2]:
        _, state, before = fallback.step(item, state)
        _, other, _ = limited.step(item, other)
    deepest = before.exit_index
    assert deepest == len(policy.info.exit_layers) - 1 > 0
    for layer in policy.model.layers[policy.info.exit_layers[0] + 1 :]:
        layer.forward = lambda *_, **__: out_of_memory()
    limited.limit_exits(1)
    for item in seen[2:]:
        chunk, state, report = fallback.step(item, state)
        expected, other, _ = limited.step(item, other)
        np.testing.assert_array_equal(chunk.actions, expected.actions)
        assert (report.exit_index, len(report.thresholds)) == (0, 1)
    assert len(words) == deepest
    assert "can't allocate memory" in words[0]
    policy.set_budget(Budget())
    assert policy.exits_in_use == deepest + 1
