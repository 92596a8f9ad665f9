"""Text as it is spoken: lower case, words alone, numbers as words, and what is often misheard at a table, put right."""

from __future__ import annotations

import re

MISHEARD = (
    (r"\b(?:read|rad|rat|raid|bread)(?= (?:block|cube|brick|one)s?\b)", "red"),
    (r"\b(?:blew|blu)(?= (?:block|cube|brick|one)s?\b)", "blue"),
    (r"\b(?:pin|think|ping|picked)(?= (?:block|cube|brick|one)s?\b)", "pink"),
    (r"\b(?:l e d|ellie d|elly d|l\. e\. d|eleadi|elidi|eledee|l ed|el ed|eddie|alley d|ell e d)\b", "led"),
    (r"\b(the|green) (?:lead|lid|let)\b", r"\1 led"),
    (r"\b(red|blue|pink) (?:blog|black|lock|bloc|plot|blocked|bloke|glock|blood)\b", r"\1 block"),
    (r"\b(?:drawers|draw|drawl|door drawer|droor|drore)\b", "drawer"),
    (r"\blight bulb\b", "lightbulb"),
    (r"\b(?:light ball|light bowl|lite bulb|lightbulbs|light bulbs)\b", "lightbulb"),
)
"""Pattern and what it stands for; only where nothing else at the table could be meant."""
_DIGITS = {
    str(digit): name
    for digit, name in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}


def normalised(text: str) -> str:
    """Words in lower case with single spaces; apostrophes stay."""
    text = text.lower().replace("\u2019", "'")
    text = re.sub(r"\d", lambda digit: f" {_DIGITS[digit[0]]} ", text)
    return " ".join(re.findall(r"[a-z']+", text))


def put_right(text: str) -> str:
    """Normalised text with what is often misheard replaced by what was meant."""
    text = normalised(text)
    for pattern, meant in MISHEARD:
        text = re.sub(pattern, meant, text)
    return text


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Insertions, deletions and substitutions that make `heard` of `said`, and the words of `said`."""
    wanted, found = normalised(said).split(), normalised(heard).split()
    row = list(range(len(found) + 1))
    for at, word in enumerate(wanted, 1):
        before, row[0] = row[0], at
        for other, candidate in enumerate(found, 1):
            before, row[other] = row[other], min(row[other] + 1, row[other - 1] + 1, before + (word != candidate))
    return row[-1], len(wanted)
