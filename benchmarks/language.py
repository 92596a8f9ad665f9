"""Language: are held-out instructions understood, in each group of wordings, and are texts outside the skills refused?

Run: python benchmarks/language.py [--policy CHECKPOINT | --steps N] [--layers N]

Without --policy a recogniser of all 34 tasks is trained first. With --layers the language layers of deer-nano are
pretrained on text alone for so many updates, and what their exits tell apart is printed too. Intervals are Wilson's
(95 %) over sentences; a sentence in three colours is one.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Sequence

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import load
from deer_policies.deer.presets import preset
from deer_policies.deer.skills import SkillRecogniser
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.recipe import PretrainingPhase, SkillsPhase
from deer_ros.cli.teach import recogniser
from deer_sim import instructions, outside
from deer_sim.instructions import GROUPS
from deer_sim.statistics import wilson_interval
from deer_sim.tasks import TASKS

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
COLOURS = re.compile(r"\b(red|blue|pink)\b")


def share(texts: Sequence[str], hits: Sequence[bool]) -> str:
    """Of the texts that are hit, with an interval."""
    sentences = len({COLOURS.sub("", text) for text in texts})
    rate = sum(hits) / len(texts)
    low, high = wilson_interval(round(rate * sentences), sentences)
    return f"{100 * rate:5.1f} % [{100 * low:4.1f}, {100 * high:4.1f}] of {len(texts)}"


def print_recogniser(model: SkillRecogniser) -> None:
    """Right tasks and false refusals by group of wordings, false acceptances by group of texts outside."""
    learned = model.skills.learned
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"recogniser: {len(learned)} skills, {4 * weights / 1e6:.2f} MB, threshold {model.skills.threshold:.2f}")
    print(f"{'wordings':10s} {'right task':30s} {'falsely refused':30s}")
    for group in GROUPS:
        pairs = [(task, text) for task in learned for text in instructions.validation(task, group)]
        texts = [text for _, text in pairs]
        found = model.understand(texts)
        right = [item.task == task for item, (task, _) in zip(found, pairs, strict=True)]
        print(f"{group:10s} {share(texts, right):30s} {share(texts, [not item.known for item in found]):30s}")
    print(f"{'texts':10s} {'falsely accepted':30s}")
    beyond = {group: outside.validation(group) for group in outside.GROUPS}
    others = [
        text for task in TASKS if task not in learned for text in instructions.validation(task, instructions.EVERY)
    ]
    for group, texts in {**beyond, **({"other tasks": others} if others else {})}.items():
        print(f"{group:10s} {share(texts, [item.known for item in model.understand(texts)]):30s}")


def print_trade(model: SkillRecogniser) -> None:
    """Both kinds of error at other thresholds; the threshold itself is chosen on other texts."""
    wordings = {group: [text for task in TASKS for text in instructions.validation(task, group)] for group in GROUPS}
    texts = {**wordings, **{group: list(outside.validation(group)) for group in outside.GROUPS}}
    scores = {group: torch.tensor([item.score for item in model.understand(of)]) for group, of in texts.items()}
    print("threshold  " + "  ".join(f"{group} {'refused' if group in GROUPS else 'accepted'}" for group in texts))
    for threshold in THRESHOLDS:
        beyond = {group: (score >= threshold).float().mean().item() for group, score in scores.items()}
        errors = [1.0 - part if group in GROUPS else part for group, part in beyond.items()]
        print(f"{threshold:9.2f}  " + "  ".join(f"{100 * error:13.1f} %" for error in errors))


def print_layers(steps: int, seed: int) -> None:
    """Pretrains the language layers and prints what each exit tells apart."""
    wordings = {task: instructions.training(task) for task in TASKS}
    config = preset("deer-nano")
    corpus = [text for texts in wordings.values() for text in texts]
    tokenizer = Tokenizer.train(corpus, config.language.vocabulary, config.language.max_tokens)
    torch.manual_seed(seed)
    started = time.process_time()
    classifier = pretrain_language(DeerModel(config), tokenizer, wordings, PretrainingPhase(steps), seed)
    print(f"language layers of {config.name} after {steps} updates ({time.process_time() - started:.0f} s of CPU time)")
    for group in GROUPS:
        shares = classifier.accuracy({task: instructions.validation(task, group) for task in TASKS})
        print(f"{group:10s} " + "  ".join(f"exit {number}: {100 * part:5.1f} %" for number, part in enumerate(shares)))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policy", help="checkpoint whose recogniser is judged")
    parser.add_argument("--steps", type=int, default=SkillsPhase().steps, help="updates of a recogniser trained here")
    parser.add_argument("--layers", type=int, default=0, help="updates of the language layers; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if arguments.policy is not None:
        model = load(arguments.policy, exits=1).skills
        if model is None:
            raise ConfigError(f"{arguments.policy} has no recogniser of skills; `deer teach` adds one")
    else:
        model = recogniser(TASKS, SkillsPhase(arguments.steps), arguments.seed)
    print_recogniser(model)
    if model.skills.learned == TASKS:
        print_trade(model)
    if arguments.layers:
        print_layers(arguments.layers, arguments.seed)


if __name__ == "__main__":
    main()
