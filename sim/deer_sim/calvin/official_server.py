"""The official environment behind a pipe: a script that runs with the interpreter in which `calvin_env` works.

It stands alone, so that this interpreter need know nothing of this project: `python official_server.py FD`, where FD is
one end of a socket pair. The first message holds {"root", "scene", "egl"}, then come requests; each gets one answer,
{"error": text} or the values asked for. Messages are JSON, pictures follow as bytes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from multiprocessing.connection import Connection

LOADING_SEED = 0


def make(root, scene, egl):
    """The official environment, as its evaluation composes it; `root` is the checkout, or None if it is installed."""
    if root is not None:
        sys.path.insert(0, root)
    import calvin_env
    import hydra
    from calvin_env.envs import play_table_env

    # It looks for the commit that it stands on, and crashes outside a git checkout.
    play_table_env.get_git_commit_hash = lambda path: "unknown"
    conf = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(calvin_env.__file__))), "conf")
    if not os.path.isdir(conf):
        raise RuntimeError(
            f"{conf} is missing: calvin_env must be a git clone (it may be installed with `pip install -e`)"
        )
    with hydra.initialize_config_dir(conf, version_base=None):
        settings = hydra.compose(
            "config_data_collection",
            overrides=[
                "cameras=static_and_gripper",
                f"scene=calvin_scene_{scene}",
                *("~vr_input", "~recorder", "hydra/job_logging=default", "hydra/hydra_logging=default"),
                *("use_vr=false", "record=false", f"env.use_egl={str(egl).lower()}", f"seed={LOADING_SEED}"),
            ],
        )
    return hydra.utils.instantiate(settings.env, show_gui=False, use_vr=False, use_scene_info=True)


class Server:
    """Answers requests about one environment."""

    def __init__(self, environment):
        self.environment = environment
        self.cameras = environment.cameras
        if environment.use_egl:
            # OpenGL's first pictures lack shadows.
            environment.get_camera_obs()
        environment.cameras = []

    def describe(self, _):
        """The order of blocks in scene_obs, and the control rate."""
        blocks = [block.name.replace("block_", "") for block in self.environment.scene.movable_objects]
        return {"blocks": blocks, "control_rate_hz": self.environment.control_freq}

    def reset(self, request):
        """Starts an episode in a world that is as new as in a fresh process."""
        import numpy as np

        environment = self.environment
        environment.seed(LOADING_SEED)
        environment.scene.np_random = environment.np_random
        environment.robot.gripper_action = 1
        environment.load()
        for block in environment.scene.movable_objects:
            block.np_random = np.random.default_rng(request["seed"])
        state = {
            name: None if request[name] is None else np.array(request[name]) for name in ("robot_obs", "scene_obs")
        }
        return self.observed(environment.reset(**state))

    def step(self, request):
        """Runs one control step."""
        import numpy as np

        return self.observed(self.environment.step(np.array(request["action"]))[0])

    def pictures(self, _):
        """What the cameras see."""
        self.environment.cameras = self.cameras
        try:
            return {"pictures": self.environment.get_camera_obs()[0]}
        finally:
            self.environment.cameras = []

    def observed(self, observation):
        """Observations and ground truth."""
        environment = self.environment
        info = environment.get_info()
        scene, robot = info["scene_info"], info["robot_info"]
        table = scene["fixed_objects"]["table"]
        blocks = scene["movable_objects"]
        links = {index: name for name, index in table["links"].items()}
        names = {robot["uid"]: "robot", table["uid"]: "table"}
        names.update({block["uid"]: name.replace("block_", "") for name, block in blocks.items()})
        client = environment.p

        def contacts(points):
            found = set()
            for point in points or ():
                name, link = names.get(point[2], "plane"), ""
                if name == "table":
                    link = links[point[4]]
                elif name == "robot":
                    link = "panda_link0" if point[4] < 0 else client.getJointInfo(point[2], point[4])[12].decode()
                found.add((name, link))
            return sorted(found)

        return {
            "robot_obs": [float(value) for value in observation["robot_obs"]],
            "scene_obs": [float(value) for value in observation["scene_obs"]],
            "slider": scene["doors"]["base__slide"]["current_state"],
            "drawer": scene["doors"]["base__drawer"]["current_state"],
            "button": scene["buttons"]["base__button"]["joint_state"],
            "switch": scene["switches"]["base__switch"]["joint_state"],
            "lightbulb": bool(scene["lights"]["lightbulb"]["logical_state"]),
            "led": bool(scene["lights"]["led"]["logical_state"]),
            "blocks": {
                name.replace("block_", ""): {
                    "motion": [
                        list(block[key]) for key in ("current_pos", "current_orn", "current_lin_vel", "current_ang_vel")
                    ],
                    "contacts": contacts(block["contacts"]),
                }
                for name, block in blocks.items()
            },
            "robot_contacts": contacts(robot["contacts"]),
        }


def main():
    """Serves until the other end closes."""
    del sys.path[0]
    warnings.simplefilter("ignore")
    pipe = Connection(int(sys.argv[1]))
    first = json.loads(pipe.recv_bytes())
    try:
        server = Server(make(first["root"], first["scene"], first["egl"]))
        pipe.send_bytes(json.dumps(server.describe(first)).encode())
    except Exception as error:
        pipe.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = getattr(server, request["do"])(request)
        except Exception as error:
            pipe.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            continue
        pictures = answer.pop("pictures", {})
        answer["shapes"] = {name: list(picture.shape) for name, picture in pictures.items()}
        pipe.send_bytes(json.dumps(answer).encode())
        for picture in pictures.values():
            pipe.send_bytes(picture.tobytes())


if __name__ == "__main__":
    main()
