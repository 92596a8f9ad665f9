"""`deer models`: lists the weights of others that the helpers use, and fetches them by the hash of their content."""

from __future__ import annotations

import argparse
import sys

from deer_policies.model_store.manifest import Model

HELP = "list and fetch the weights that speech and the other helpers use"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("do", choices=("list", "fetch"), help="what to do")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; for fetch at least one")


def run(arguments: argparse.Namespace) -> int:
    """Lists or fetches."""
    from deer_policies.errors import ConfigError
    from deer_policies.model_store.store import ModelStore

    store = ModelStore()
    models = [store.model(name) for name in arguments.names] or list(store.models.values())
    if arguments.do == "list":
        print(f"models are kept in {store.folder}")
        for model in models:
            print(_described(model, here=not store.missing(model.name)))
        return 0
    if not arguments.names:
        raise ConfigError(f"name what to fetch: {', '.join(store.models)}")
    for model in models:
        path = store.fetch(model.name, _Progress())
        print(f"{model.name} is in {path}")
    return 0


def _described(model: Model, here: bool) -> str:
    sources = ", ".join(map(str, model.sources))
    state = "here" if here else f"get it with: deer models fetch {model.name}"
    size_mb = model.size_bytes / 1e6
    return f"{model.name}  {size_mb:.0f} MB, {model.licence}; {state}\n    {model.about}\n    from {sources}"


class _Progress:
    """One line for each download, on a terminal with how far it is."""

    def __init__(self) -> None:
        self._told = ("", -1)

    def __call__(self, what: str, have: int, total: int) -> None:
        percent = 100 * have // total if total else 0
        done = bool(total) and have >= total
        if (what, percent) == self._told:
            return
        self._told = (what, percent)
        if sys.stdout.isatty():
            print(f"\r{what}: {have / 1e6:.1f} of {total / 1e6:.1f} MB", end="\n" if done else "", flush=True)
        elif done:
            print(f"{what}: {have / 1e6:.1f} MB", flush=True)
