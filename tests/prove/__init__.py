"""The proof: a history checker of sales under fire, state machines, faults that are counted. See ``docs/proof.md``."""
