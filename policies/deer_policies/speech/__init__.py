"""Hearing and speaking: sound, speech and stop words in; commands and spoken sentences out. Knows nothing of ROS."""
