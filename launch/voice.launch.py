"""`ros2 launch deer_ros voice.launch.py`, beside arm or simulation; `--show-args` tells the arguments."""

from deer_ros.launching import launch_description


def generate_launch_description():
    """Called by `ros2 launch`."""
    return launch_description("voice")
