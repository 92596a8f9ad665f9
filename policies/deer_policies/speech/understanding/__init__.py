"""From what was said to what is meant: a task, a control word, a question, or nothing for the robot."""
