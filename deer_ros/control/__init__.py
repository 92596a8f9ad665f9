"""Pure-Python control logic, free of rclpy: safety, watchdog, action queue, interpolation."""
