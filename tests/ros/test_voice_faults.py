"""What happens when a node of the voice path dies while the arm moves; slow, as whole stacks are started."""

import time

import pytest

from deer_policies.speech.audio import trimmed
from deer_policies.speech.synthesis.engine import make_synthesiser
from deer_ros.bringup import Stack, StackConfig
from deer_ros.cli.talk.mouth import Mouth
from deer_ros.cli.talk.witness import Witness
from tests.ros.node_rig import wait

pytestmark = pytest.mark.slow


@pytest.fixture
def talk(tmp_path):
    """A simulated robot that is at closing a drawer that is closed; `say` says something to it."""
    voice = make_synthesiser("pico")
    with Stack(StackConfig("simulation", log_folder=tmp_path / "logs")) as stack:
        speech = {"listening": "open", "recogniser": "grammar", "embedding": "none"}
        ears = StackConfig(
            "voice",
            overrides={"speech": speech, "voice": {"output": "topic", "engine": "pico"}},
            domain_id=stack.domain_id,
            log_folder=tmp_path / "logs",
            leave_out=("microphone",),
            respawn=True,
        )
        with Stack(ears) as hearing:
            witness = Witness()
            witness.listen(stack.client)
            stack.client.reset(0)
            mouth = Mouth(stack.client.node, 0)
            time.sleep(1.0)
            stack.witness, stack.mouth, stack.hearing = witness, mouth, hearing
            stack.say = lambda text: mouth.say(trimmed(voice.say(text, "en-GB")))
            asked_s = time.monotonic()
            # It is closed, so that this never ends by itself.
            stack.say("close the drawer")
            wait(lambda: witness.moved_m(asked_s) > 0.02, 20.0)
            yield stack
            mouth.close()


def stands(witness, seconds):
    """Whether the tool has stood for the last half second, at the latest after so long."""
    wait(lambda: witness.moved_m(time.monotonic() - 0.5) < 0.002, seconds)


def test_without_the_stop_word_node_the_robot_holds_and_comes_back(talk):
    talk.hearing.processes["stop_word"].kill()
    wait(lambda: any("can't hear you" in sentence for _, sentence in talk.witness.said), 3.0)
    stands(talk.witness, 3.0)
    # Until it has been started again and brought up.
    time.sleep(10.0)
    again_s = time.monotonic()
    talk.say("turn on the yellow light")
    wait(lambda: talk.witness.moved_m(again_s) > 0.02, 20.0)


def test_without_sound_the_robot_holds(talk):
    talk.mouth.close()
    wait(lambda: any("can't hear you" in sentence for _, sentence in talk.witness.said), 3.0)
    stands(talk.witness, 3.0)


@pytest.mark.parametrize("name", ["speech", "voice"])
def test_the_stop_word_works_without_the_others(talk, name):
    talk.hearing.processes[name].kill()
    end_s = talk.say("stop!")
    wait(lambda: talk.witness.states[-1][1] == "STOPPED", 5.0)
    assert talk.witness.states[-1][0] - end_s < 0.5
    stands(talk.witness, 2.0)
