"""Recordings of a running graph in MCAP files: writing, reading, replaying, and turning into demonstrations."""
