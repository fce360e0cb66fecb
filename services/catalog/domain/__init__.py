"""The catalogue's rules and values, pure: no I/O and no clock of their own."""
