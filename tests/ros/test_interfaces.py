"""The interface packages that tests build equal the real ones, and other processes can use them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.ros import interfaces

REAL_HASHES = {
    "control_msgs/msg/GripperCommand": "57eb8f326c9889ca8bb34ead82cc94cc09bf6bc5c3b6c09546dca3a00b589890",
    "control_msgs/action/GripperCommand": "e17c0e644eccf14bea84a0a93e0977182872c2eb7873ca6694900059b46dbc84",
    "control_msgs/action/ParallelGripperCommand": "adfd3c1ebe8abc38ebcc0e454b6423d291d4010dd5697d14eca5b9be4726ae18",
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
}
"""Type hashes of the definitions in ros-controls/control_msgs 13dacdd (6.8.0) and ros2/geometry2, on ROS 2 Kilted."""

USE = """
import rclpy
from rclpy.action import ActionServer
from control_msgs.action import GripperCommand, ParallelGripperCommand
from tf2_msgs.msg import TFMessage
rclpy.init()
node = rclpy.create_node("user")
ActionServer(node, GripperCommand, "a", lambda goal: None)
ActionServer(node, ParallelGripperCommand, "b", lambda goal: None)
node.create_publisher(TFMessage, "c", 1).publish(TFMessage())
print("used")
"""


def test_they_have_the_type_hashes_of_the_real_ones(interface_packages):
    prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    for name, expected in REAL_HASHES.items():
        (description, *_) = [path for prefix in prefixes if (path := Path(prefix, "share", f"{name}.json")).is_file()]
        hashes = {
            entry["type_name"]: entry["hash_string"] for entry in json.loads(description.read_text())["type_hashes"]
        }
        assert hashes[name] == f"RIHS01_{expected}"


def test_other_processes_and_this_one_can_use_them(interface_packages):
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, timeout=30)
    assert done.stdout == "used\n", done.stderr
    from control_msgs.action import GripperCommand

    assert GripperCommand.Goal().command.max_effort == 0.0


def test_a_second_build_is_instant(interface_packages):
    began_s = time.monotonic()
    assert interfaces.installed() or interfaces.built().is_dir()
    assert time.monotonic() - began_s < 1.0
