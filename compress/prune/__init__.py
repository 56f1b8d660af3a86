"""Filter pruning of any network: which channels go together, which of them can go, how many from each group, and the smaller network."""
