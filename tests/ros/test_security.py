"""Enclaves and permissions: least privilege, read back from the documents that DDS gets."""

from datetime import datetime
from fnmatch import fnmatchcase
from xml.etree import ElementTree

import pytest

from deer_policies.errors import ConfigError
from deer_ros.endpoints import Endpoints
from deer_ros.security import enforcing
from deer_ros.security.enclaves import Enclave, enclaves, policy_xml
from deer_ros.security.permissions import dds_topics, governance_xml, permissions_xml

SPAN = datetime(2026, 1, 1), datetime(2027, 1, 1, 12, 30)


def rights(bringup="simulation", namespace=""):
    """By the last part of each enclave's path: the patterns that it may write and read."""
    found = {}
    for enclave in enclaves(bringup, namespace):
        grant = ElementTree.fromstring(permissions_xml(enclave, 7, *SPAN)).find("permissions/grant")
        assert grant.findtext("default") == "DENY"
        assert grant.findtext("subject_name") == f"CN={enclave.path}"
        assert [element.text for element in grant.findall("allow_rule/domains/id")] == ["7"]
        found[enclave.path.rpartition("/")[2]] = tuple(
            [element.text for element in grant.findall(f"allow_rule/{right}/topics/topic")]
            for right in ("publish", "subscribe")
        )
    return found


def who_may(right, topic, bringup="simulation", namespace=""):
    """The enclaves that may write (0) or read (1) a topic."""
    found = rights(bringup, namespace)
    return {name for name, both in found.items() if any(fnmatchcase(topic, pattern) for pattern in both[right])}


def test_ears_and_voice_move_nothing():
    for topic in ("arm/twist", "arm/joint_trajectory", "gripper/command", "policy/action", "operator/twist"):
        assert who_may(0, f"rt/{topic}", "voice") <= {"operator"}, topic
    assert who_may(0, "rq/safety/stopRequest", "voice") == {"stop_word", "speech", "operator"}
    assert who_may(0, "rq/safety/armRequest", "voice") == {"operator"}, "nobody arms by voice"


@pytest.mark.parametrize("bringup", ["simulation", "arm"])
def test_the_arm_is_moved_by_the_safety_node_alone(bringup):
    assert who_may(0, "rt/arm/twist", bringup) == {"safety"}
    assert who_may(0, "rt/arm/joint_trajectory", bringup) == {"safety"}
    assert who_may(0, "rt/gripper/command", bringup) == {"safety"}
    assert who_may(0, "rq/gripper/gripper_cmd/_action/send_goalRequest", bringup) == {"safety"}
    assert who_may(0, "rt/policy/action", bringup) == {"policy"}
    assert who_may(0, "rt/safety/state", bringup) == {"safety"}


def test_images_come_from_the_cameras_and_go_to_who_needs_them():
    assert who_may(0, "rt/camera/static/image_raw", "arm") == {"driver"}
    assert who_may(1, "rt/camera/static/image_raw", "arm") == {"policy", "safety", "operator", "recorder"}
    assert who_may(0, "rt/camera/static/image_raw", "simulation") == {"simulator"}
    assert "driver" not in rights("simulation")


def test_only_the_operator_stops_arms_and_instructs():
    for service in ("safety/stop", "safety/arm", "set_budget", "follow_instruction/_action/send_goal"):
        assert who_may(0, f"rq/{service}Request") == {"operator"}, service
    assert who_may(0, "rq/policy/change_stateRequest") == {"operator", "supervisor"}
    assert who_may(0, "rt/operator/twist") == who_may(0, "rt/safety/e_stop") == {"operator"}
    assert who_may(1, "rq/safety/stopRequest") == {"safety"}
    assert who_may(1, "rq/follow_instruction/_action/send_goalRequest") == {"policy"}
    assert who_may(0, "rt/instruction") == {"operator"}


def test_nobody_changes_parameters_from_outside():
    for node in ("safety", "policy", "simulator"):
        assert who_may(0, f"rq/{node}/set_parametersRequest") == set()


def test_a_recorder_writes_nothing_but_what_every_node_does():
    written, read = rights("arm")["recorder"]
    own = {topic for topic in written if not topic.startswith(("rr/recorder/", "rr/_ros2cli_*/"))}
    assert own == {"rt/rosout", "rt/parameter_events", "ros_discovery_info"}
    assert {"rt/arm/twist", "rt/policy/action", "rt/joint_states"} <= set(read)


def test_outsiders_answer_in_their_own_names_only():
    assert who_may(0, "rr/stack_client_1a2b3c4d/get_parametersReply") == {"operator"}
    assert who_may(0, "rr/_ros2cli_4711/get_type_descriptionReply") == {"operator", "recorder"}
    assert who_may(0, "rr/safety/get_parametersReply") == {"safety"}
    (driver,) = (enclave for enclave in enclaves("arm", "", ("camera_a", "servo")) if "driver" in enclave.path)
    written, _ = dds_topics(driver.resolved)
    assert {"rr/camera_a/get_parametersReply", "rr/servo/get_parametersReply", "rt/joint_states"} <= set(written)
    assert "rr/driver/get_parametersReply" not in written
    with pytest.raises(ConfigError, match=r"'a\*' can't be the name of a node"):
        enclaves("arm", "", ("a*",))


def test_names_on_dds_are_those_of_ros():
    ends = Endpoints(("/a",), ("/b",), ("/c/d",), ("/e",), ("/f",), ("/g",))
    written, read = dds_topics(ends)
    actions = ("cancel_goal", "get_result", "send_goal")
    assert set(written) == {
        *("rt/a", "rr/c/dReply", "rq/eRequest", "rt/f/_action/feedback", "rt/f/_action/status", "ros_discovery_info"),
        *(f"rr/f/_action/{part}Reply" for part in actions),
        *(f"rq/g/_action/{part}Request" for part in actions),
    }
    assert set(read) == {
        *("rt/b", "rq/c/dRequest", "rr/eReply", "rt/g/_action/feedback", "rt/g/_action/status", "ros_discovery_info"),
        *(f"rq/f/_action/{part}Request" for part in actions),
        *(f"rr/g/_action/{part}Reply" for part in actions),
    }


def test_names_are_of_the_namespace():
    assert who_may(0, "rt/left/arm/twist", "arm", "/left/") == {"safety"}
    assert who_may(0, "rt/arm/twist", "arm", "left") == set()
    assert who_may(1, "rt/clock", "arm", "left") >= {"policy"}
    assert [enclave.path for enclave in enclaves("arm", "left")][:2] == ["/left/deer/safety", "/left/deer/policy"]


def test_permissions_end_when_the_certificate_does():
    (safety, *_) = enclaves("arm")
    root = ElementTree.fromstring(permissions_xml(safety, 0, *SPAN))
    validity = root.find("permissions/grant/validity")
    assert [element.text for element in validity] == ["2026-01-01T00:00:00", "2027-01-01T12:30:00"]


def test_governance_lets_nobody_in_without_a_certificate():
    rule = ElementTree.fromstring(governance_xml(7)).find("domain_access_rules/domain_rule")
    assert rule.findtext("domains/id") == "7"
    assert rule.findtext("allow_unauthenticated_participants") == "false"
    assert rule.findtext("enable_join_access_control") == "true"
    topic = rule.find("topic_access_rules/topic_rule")
    assert topic.findtext("topic_expression") == "*"
    assert {topic.findtext(f"enable_{right}_access_control") for right in ("read", "write")} == {"true"}
    assert {topic.findtext(f"{kind}_protection_kind") for kind in ("metadata", "data")} == {"ENCRYPT"}


def test_the_policy_file_says_the_same_in_the_words_of_sros2():
    granted = (Enclave("/deer/x", "", ("x",), Endpoints(("b", "/a"), ("~/c",), ("s",), ("t",), ("f",), ("g",))),)
    root = ElementTree.fromstring(policy_xml(granted))
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    profile = root.find("enclaves/enclave[@path='/deer/x']/profiles/profile")
    assert profile.attrib == {"ns": "/", "node": "x"}
    told = [(element.tag, element.attrib, [name.text for name in element]) for element in profile]
    assert told == [
        ("topics", {"publish": "ALLOW"}, ["/a", "b"]),
        ("topics", {"subscribe": "ALLOW"}, ["~/c"]),
        ("services", {"reply": "ALLOW"}, ["s"]),
        ("services", {"request": "ALLOW"}, ["t"]),
        ("actions", {"execute": "ALLOW"}, ["f"]),
        ("actions", {"call": "ALLOW"}, ["g"]),
    ]


@pytest.mark.parametrize("namespace", ["a b", "1a", "a//b", "a-b"])
def test_a_namespace_that_ros_would_refuse_is_refused(namespace):
    with pytest.raises(ConfigError, match="namespace is"):
        enclaves("arm", namespace)


def test_an_unknown_bringup_is_named():
    with pytest.raises(ConfigError, match="there are simulation, arm"):
        enclaves("moon")


def test_a_client_without_security_has_no_enclave():
    assert enforcing.client_arguments({}) == []
    with pytest.raises(ConfigError, match="ROS_SECURITY_KEYSTORE is not set"):
        enforcing.client_arguments({"ROS_SECURITY_ENABLE": "true"})
    own = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_ENCLAVE_OVERRIDE": "/me"}
    assert enforcing.client_arguments(own) == ["--ros-args", "--enclave", "/me"]
