"""`ros2 launch deer_ros arm.launch.py`; `--show-args` tells the arguments."""

from deer_ros.launching import launch_description


def generate_launch_description():
    """Called by `ros2 launch`."""
    return launch_description("arm")
