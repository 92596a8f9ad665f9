"""Parity: replays what was recorded from the official DeeR code, stage by stage."""
