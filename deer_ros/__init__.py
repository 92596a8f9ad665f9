"""ROS 2 side of deer_ros: nodes, control, and the `deer` command."""
