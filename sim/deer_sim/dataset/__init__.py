"""CALVIN's dataset layout on disk: one compressed .npz a frame, and index files that say which frames belong together.

A dataset is a folder with `training/` and `validation/`, or one such split alone. A split holds

    episode_0000000.npz        actions (7), rel_actions (7), robot_obs (15), scene_obs (24), rgb_static, rgb_gripper
    ep_start_end_ids.npy       (episodes, 2) first and last frame of each recording, both inclusive
    ep_lens.npy                frames of each recording; nobody reads it
    lang_annotations/auto_lang_ann.npy   instruction, task and frames (end exclusive) of each annotated window
    lang_annotations/embeddings.npy      sentence embeddings of the evaluation's instructions, in the validation split
    scene_info.npy             first and last frame of each scene
    statistics.yaml            mean and deviation of the observations, bounds of the absolute actions
    .hydra/                    settings of the simulator that rendered the frames

The last four and `ep_lens.npy` may be absent. Vectors are float32 or float64. Frames may also hold rgb_tactile and
depth images.

Frames of `deer collect` carry two more arrays, which CALVIN's readers ignore: `executed` (7), the relative action that
was run, where `rel_actions` is the expert's label; and `disturbed`, whether a push was in progress that replaced the
expert's action. Sentence embeddings are not stored; `emb` is empty.

Source: mees/calvin, dataset/README.md and calvin_models/calvin_agent/datasets.
"""

from deer_sim.dataset.layout import Annotation, frame_path, split_folders, write_whole
from deer_sim.dataset.pickles import read_dictionary
from deer_sim.dataset.reading import CalvinDataset
from deer_sim.dataset.statistics import Statistics
from deer_sim.dataset.writing import write_frame, write_frames, write_index

__all__ = [
    "Annotation",
    "CalvinDataset",
    "Statistics",
    "frame_path",
    "read_dictionary",
    "split_folders",
    "write_frame",
    "write_frames",
    "write_index",
    "write_whole",
]
