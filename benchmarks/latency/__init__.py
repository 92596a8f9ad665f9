"""What `benchmarks/ros_latency.py` is made of: traced nodes, a driver for them, and the analysis of their times."""
