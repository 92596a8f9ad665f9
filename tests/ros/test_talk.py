"""The talk: its page from what was witnessed, the mouth in real time, and all of it over ROS."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from deer_policies.speech.audio import RATE_HZ, read_wav
from deer_ros.cli.main import main
from deer_ros.cli.talk.mouth import CHUNK, Mouth
from deer_ros.cli.talk.page import PAGE, SOUND, write
from deer_ros.cli.talk.script import INSTRUCTION, SCRIPT, STOP
from deer_ros.cli.talk.witness import Witness


def line(text, **values):
    outcome = {
        "line": {"text": text},
        "from_s": 0.5,
        "to_s": 1.0,
        "transcript": "",
        "confidence": 0.0,
        "intent": "INSTRUCTION",
        "tasks": ["open_drawer"],
        "reply": "drawer, open",
        "command_s": 0.9,
        "stop_s": {},
        "done": True,
        "why": "",
    }
    return {**outcome, **values}


def test_the_page_shows_what_was_witnessed(tmp_path):
    mouth = SimpleNamespace(sound=[np.full(RATE_HZ, 0.25, np.float32)] * 3, began_s=100.0)
    witness = Witness()
    witness.said = [(101.0, "drawer, open")]
    witness.voice = [(101.0, np.full(1600, 0.5, np.float32)), (101.05, np.full(1600, 0.5, np.float32))]
    witness.states = [(99.0, "HOLDING", ""), (101.5, "ARMED", ""), (102.2, "STOPPED", "stopped")]
    witness.positions = [(100.0 + at / 30, 0.01 * at, 0.0, 0.5) for at in range(60)]
    stop = {"heard": 0.08, "stopped": 0.09, "stands": 0.15}
    lines = [line("open the drawer", transcript="open the draw", confidence=0.8)]
    lines.append(line("stop!", intent="STOP", tasks=[], command_s=None, stop_s=stop, done=False, why="<nobody> moved"))
    report = {"voice": "a/b", "command": "deer talk", "lines": lines, "cores": {"stop_word": 0.0712}}
    write(tmp_path, report, mouth, witness)
    page = (tmp_path / PAGE).read_text()
    for text in (
        "1 of 2 lines",
        "“open the drawer”",
        "open the draw (0.80)",
        "stopped 90 ms",
        "&lt;nobody&gt; moved",
        "armed",
        "stop_word 0.07",
    ):
        assert text in page, text
    assert "holding" not in page, "what was before the talk is no part of it"
    heard = read_wav(tmp_path / SOUND)
    assert len(heard) == 3 * RATE_HZ
    np.testing.assert_allclose(heard[RATE_HZ + 100 : RATE_HZ + 3100], 0.25 + 0.7 * 0.5, atol=1e-3)
    np.testing.assert_allclose(heard[RATE_HZ + 3300 :], 0.25, atol=1e-3)


def test_the_tools_motion_is_measured():
    witness = Witness(positions=[(at / 30, min(0.01 * at, 0.3), 0.0, 0.5) for at in range(60)])
    assert witness.moved_m(0.5) == pytest.approx(0.15)
    assert witness.stands_from(0.5) == pytest.approx(1.0)
    assert witness.stands_from(1.5) == 1.5


def test_a_mouth_speaks_in_real_time():
    sent = []
    node = SimpleNamespace(
        create_publisher=lambda *_: SimpleNamespace(publish=lambda message: sent.append((time.monotonic(), message))),
        get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(to_msg=_stamp)),
    )
    mouth = Mouth(node, 0)
    time.sleep(0.1)
    end_s = mouth.say(np.full(RATE_HZ // 5, 0.5, np.float32))
    time.sleep(0.5)
    mouth.close()
    assert [message.first_sample for _, message in sent] == [CHUNK * at for at in range(len(sent))]
    loud = [at_s for at_s, message in sent if np.abs(message.samples).max() > 10_000]
    assert len(loud) == 10
    (last,) = (at for at, (at_s, _) in enumerate(sent) if at_s == loud[-1])
    assert end_s == pytest.approx(mouth.began_s + (last + 1) * CHUNK / RATE_HZ, abs=0.021)
    assert loud[-1] > end_s - 0.06, "nothing is said before its time; a busy machine may be late"


def _stamp():
    from builtin_interfaces.msg import Time

    return Time()


def test_the_script_has_a_stop_in_the_middle_of_a_movement():
    (stop,) = (at for at, each in enumerate(SCRIPT) if each.expected == STOP)
    assert SCRIPT[stop].after_motion_s is not None
    assert SCRIPT[stop - 1].expected == INSTRUCTION
    assert not SCRIPT[stop - 1].task


def test_a_voice_that_is_not_there_is_told(capsys):
    assert main(["talk", "--voice", "nobody"]) == 2
    assert "it has en-GB, en-US" in capsys.readouterr().err


@pytest.mark.slow
def test_all_of_it_without_downloads(tmp_path):
    """With the grammar and no sentence vectors: what every machine can run. The stop must be heard and be in time."""
    main(["talk", "--recogniser", "grammar", "--embedding", "none", "--out", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    lines = json.loads((folder / "talk.json").read_text())["lines"]
    assert len(lines) == len(SCRIPT)
    (stop,) = (each for each in lines if each["line"]["expected"] == STOP)
    assert stop["done"], stop["why"]
    assert stop["stop_s"]["stopped"] < 0.5
    assert sum(each["done"] for each in lines) >= 4
    cores = json.loads((folder / "talk.json").read_text())["cores"]
    assert {"simulator", "safety", "policy", "stop_word", "speech", "voice"} == set(cores)
    assert min(cores.values()) > 0
    assert (folder / PAGE).is_file()
