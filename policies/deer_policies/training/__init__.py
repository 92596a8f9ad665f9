"""Training of multi-exit policies: losses, exit sampling, trainer, data augmentation."""
