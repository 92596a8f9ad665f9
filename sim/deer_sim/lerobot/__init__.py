"""LeRobot's dataset format, version 3.0: written from CALVIN's layout and read into it; version 2.1 is read as well.

    meta/info.json             version, rate, features with dtype and shape, where files are
    meta/tasks.parquet         instructions by number
    meta/episodes/...parquet   of each episode: rows, place in the videos, statistics
    meta/stats.json            statistics of all
    data/chunk-000/file-000.parquet     one row a frame; images as PNG, unless they are in
    videos/KEY/chunk-000/file-000.mp4   many episodes one after the other

An episode is an annotated window. Names that LeRobot's policies know hold what a policy may see and do; whatever else
the frames of CALVIN hold is named `calvin.*`, so that no policy takes it for an input.

Source: huggingface/lerobot 0.4.4, lerobot/datasets.
"""
