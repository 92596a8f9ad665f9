"""Learning and inference of multi-exit robot policies; knows nothing of ROS or of a simulator."""
