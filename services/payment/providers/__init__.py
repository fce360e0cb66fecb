"""One adapter for each payment provider."""
