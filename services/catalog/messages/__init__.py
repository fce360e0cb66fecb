"""Between the contract's messages and the domain's values. What cannot be read names its field."""
