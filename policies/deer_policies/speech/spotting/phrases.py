"""What is said to train and test the stop word on: with the word last or first, and words that sound like it."""

from __future__ import annotations

ALONE = ("stop!", "stop.", "stop")
"""The word ends where the sound ends."""
LAST = (
    *("please stop.", "robot, stop!", "no, stop!", "okay, stop.", "hey, stop!", "wait, stop!", "i said stop!"),
    *("you have to stop.", "now stop.", "stop, stop!", "no no no stop!", "can you stop?", "oh stop.", "and stop."),
)
"""The same, with something before it."""
FIRST = (
    *("stop it.", "stop right now!", "stop the robot.", "stop moving.", "stop, please.", "stop that!", "stop now."),
    *("stop there.", "stop, it is too far!", "stop everything.", "stop what you are doing.", "stop the arm!"),
)
"""The word comes first."""
ALIKE = (
    *("top", "on top", "on top of it", "the top drawer", "at the top", "put it on top of the red block", "shop"),
    *("step", "step back", "stock", "spot", "on the spot", "stuff", "start", "start it", "star", "stack", "stack it"),
    *("stack it on top of the other", "drop", "drop it", "pop", "hop", "stomp", "strap", "swap", "chop", "slop"),
    *("stamp", "steep", "staff", "sock", "laptop", "desktop", "rooftop", "tip top", "hip hop", "stew", "storm"),
    *("stand up", "still", "stay", "stick", "stone", "store", "story", "stove", "strong", "past", "post", "cost"),
    *("best", "first", "last", "most", "just put", "just do it", "it's tough", "it's top notch", "east of", "a stob"),
    *("pushed up", "west op", "lift up", "pick it up", "scoop", "soap", "soup", "setup", "set up", "sit up", "stirrup"),
    *("let it drop", "a big step", "the last step", "the shop is open", "a pot", "a spotted block", "what a lot"),
    *("the crop", "a prop", "copper", "doctor", "adopt it", "option", "opposite", "topic", "tops"),
)
"""Without the word; where there is no telling it apart by ear, as in 'stopper', it is left out."""
HOMOPHONES = ("west op", "a stob")
"""Of those, what no ear tells from the word; said, and then left out."""
