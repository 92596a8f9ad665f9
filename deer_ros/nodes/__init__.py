"""Thin ROS 2 nodes over the control logic, the policy and the simulator."""
