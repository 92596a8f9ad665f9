"""The multi-exit policy (DeeR): one set of classes for every size."""
