"""The client where ROS 2 loses an answer of a service: what may be made twice is, the rest is asked for."""

import contextlib
import time

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.task import Future
from std_srvs.srv import Trigger

from deer_ros import client as client_module
from deer_ros.bringup import free_domain_id
from deer_ros.client import StackClient
from deer_ros.errors import NoAnswerError, StackError


class Service:
    """A service of which the first `lost` answers never come."""

    srv_name = "service"

    def __init__(self, answer, lost=0):
        self.answer, self.lost, self.asked = answer, lost, 0

    def service_is_ready(self):
        return True

    def call_async(self, request):
        future = Future()
        self.asked += 1
        if self.asked > self.lost:
            future.set_result(self.answer)
        return future


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(client_module, "REPEAT_S", 0.2)
    with StackClient(free_domain_id()) as made:
        yield made


def test_a_stop_whose_answer_was_lost_is_asked_for_again(client):
    client._stop = Service(Trigger.Response(success=True), lost=2)
    client.stop()
    assert client._stop.asked == 3


def test_a_service_that_never_answers_is_named(client):
    began_s = time.monotonic()
    with pytest.raises(NoAnswerError, match="about the thing within"):
        client._call(Service(None, lost=100), Trigger.Request(), 0.7, "the thing", repeat=True)
    assert 0.6 < time.monotonic() - began_s < 1.5


def test_what_must_not_be_done_twice_is_asked_for_once(client):
    service = Service(None, lost=1)
    with pytest.raises(NoAnswerError):
        client._call(service, Trigger.Request(), 0.7, "the thing")
    assert service.asked == 1


@pytest.fixture
def lifecycle(client, monkeypatch):
    """Puts services in the place of a node's own, only as long as the test's body needs them."""

    @contextlib.contextmanager
    def replaced(changer, getter=None):
        with monkeypatch.context() as patch:
            patch.setattr(client.node, "create_client", lambda kind, name: changer if kind is ChangeState else getter)
            patch.setattr(client.node, "destroy_client", lambda made: None)
            yield

    return replaced


@pytest.mark.parametrize(
    ("state", "asked"), [(State.PRIMARY_STATE_ACTIVE, 1), (State.PRIMARY_STATE_INACTIVE, 2)], ids=["made", "not made"]
)
def test_the_state_tells_whether_a_transition_was_made_whose_answer_was_lost(client, lifecycle, state, asked):
    changer = Service(ChangeState.Response(success=True), lost=1)
    getter = Service(GetState.Response(current_state=State(id=state)))
    with lifecycle(changer, getter):
        client.change_state("node", Transition.TRANSITION_ACTIVATE, 5.0)
    assert (changer.asked, getter.asked) == (asked, 1)


def test_a_transition_that_is_refused_is_told(client, lifecycle):
    with lifecycle(Service(ChangeState.Response(success=False))), pytest.raises(StackError, match="node refused"):
        client.change_state("node", Transition.TRANSITION_ACTIVATE, 5.0)
