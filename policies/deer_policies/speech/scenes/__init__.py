"""Speech as it arrives at a microphone: rooms, noises and levels, made from seeds, to train and test hearing on."""
