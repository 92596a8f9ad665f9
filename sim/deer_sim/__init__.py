"""Environments that train and score policies; knows of policies only through their interfaces.

Importing it registers `deer/PlayTable-{A,B,C,D}-v0` where Gymnasium is installed: since version 1.0 Gymnasium no longer
looks for environments of installed packages by itself, so `import deer_sim` comes before `gymnasium.make`.
"""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    import gymnasium

    for _scene in "ABCD":
        gymnasium.register(
            id=f"deer/PlayTable-{_scene}-v0",
            entry_point="deer_sim.playtable.gym:PlayTableGym",
            kwargs={"scene": _scene},
            max_episode_steps=360,
        )
