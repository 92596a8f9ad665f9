"""Measures what `deer record` costs while two cameras and the topics of a run are published at 30 Hz.

Run: python benchmarks/recording.py [--seconds 20] [--sizes 200x200,84x84 640x480,640x480] [--noise 0.05]

A process of its own publishes both images, joint states, actions and commands; the recorder runs beside it. Processor
time is the recorder's own (user and system) from the moment on that it has found the topics, as a share of one core.
The images are gradients that move, with a share of noisy pixels: noise is what compression can't do away with.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from deer_ros.node_processes import cpu_s

RATE_HZ = 30.0


def publish(sizes: list[tuple[int, int]], noise: float, joint_states: int) -> None:
    """Publishes until its standard input closes."""
    import rclpy
    from deer_msgs.msg import PolicyAction
    from geometry_msgs.msg import TwistStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState

    from deer_ros import graph
    from deer_ros.conversions import rgb_to_image
    from deer_ros.quality import COMMANDS

    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    rclpy.init()
    node = rclpy.create_node("cameras")
    topics = (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE)
    cameras = [node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in topics]
    joints = node.create_publisher(JointState, graph.JOINT_STATES, qos_profile_sensor_data)
    twists = node.create_publisher(TwistStamped, graph.ARM_TWIST, COMMANDS)
    actions = node.create_publisher(PolicyAction, graph.POLICY_ACTION, COMMANDS)
    films = [film(size, noise) for size in sizes]
    due = time.monotonic()
    for count in range(sys.maxsize):
        stamp = node.get_clock().now().to_msg()
        for _ in range(joint_states):
            joints.publish(JointState(name=[f"joint{index}" for index in range(9)], position=[0.1 * count] * 9))
        for camera, pictures in zip(cameras, films, strict=True):
            camera.publish(rgb_to_image(pictures[count % len(pictures)], stamp, "camera"))
        actions.publish(PolicyAction(step=count))
        twists.publish(TwistStamped())
        due += 1.0 / RATE_HZ
        time.sleep(max(due - time.monotonic(), 0.0))


def film(size: tuple[int, int], noise: float) -> list[np.ndarray]:
    """A few images (rows, columns, 3) uint8."""
    columns, rows = size
    rng = np.random.default_rng(0)
    ramp = (np.add.outer(np.arange(rows), np.arange(columns)) // 2)[..., None] + np.array((0, 40, 80))
    found = []
    for shift in range(15):
        image = ((ramp + 3 * shift) % 256).astype(np.uint8)
        noisy = rng.random((rows, columns)) < noise
        image[noisy] = rng.integers(0, 256, (int(noisy.sum()), 3), np.uint8)
        found.append(image)
    return found


def measure(size: str, noise: float, joint_states: int, seconds: float, compression: str) -> str:
    """A line of the table: records for a while and tells what it took."""
    from deer_ros.bringup import free_domain_id

    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(free_domain_id()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.mcap"
        speak = [sys.executable, __file__, "--publish", "--sizes", size, "--noise", str(noise)]
        speak += ["--joint-states", str(joint_states)]
        listen = [sys.executable, "-m", "deer_ros.cli.main", "record", str(out), "--compression", compression]
        speaker = subprocess.Popen(speak, env=environment, stdin=subprocess.PIPE)
        recorder = subprocess.Popen(listen, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert recorder.stdout is not None
            line = recorder.stdout.readline()
            while not line.startswith("ready"):
                line = recorder.stdout.readline()
            began, used = time.monotonic(), cpu_s(recorder.pid)
            while time.monotonic() - began < seconds:
                line = recorder.stdout.readline()
            taken = cpu_s(recorder.pid) - used
            lasted = time.monotonic() - began
            recorder.send_signal(signal.SIGINT)
            told = line + recorder.communicate(timeout=20.0)[0]
            written = out.stat().st_size
        finally:
            recorder.kill()
            assert speaker.stdin is not None
            speaker.stdin.close()
            speaker.wait(10.0)
    found = re.search(r"([\d.]+) s: (\d+) messages.* ([\d.]+) MB, (\d+) lost", told)
    assert found, told
    messages = int(found[2])
    elapsed = float(found[1])
    rate = written / elapsed / 1e6
    return (
        f"| {size.replace(',', ' and ')} | {compression} | {taken / lasted:.1%} | {messages / elapsed:.0f} | "
        f"{found[4]} of {messages} | {rate:.2f} |"
    )


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--sizes", nargs="+", default=["200x200,84x84", "640x480,640x480"], help="of both cameras")
    parser.add_argument("--noise", type=float, default=0.05, help="share of pixels that are noise")
    parser.add_argument("--compressions", nargs="+", default=["zstd", "lz4", "none"], help="of the file")
    parser.add_argument("--joint-states", type=int, default=1, help="for each frame")
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        first, second = ([int(side) for side in part.split("x")] for part in arguments.sizes[0].split(","))
        publish([(first[0], first[1]), (second[0], second[1])], arguments.noise, arguments.joint_states)
        return
    print("| images | compression | share of a core | messages a second | lost | MB/s in the file |")
    print("|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for compression in arguments.compressions:
            print(measure(size, arguments.noise, arguments.joint_states, arguments.seconds, compression), flush=True)


if __name__ == "__main__":
    main()
