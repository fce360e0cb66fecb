"""Small mutations of the product's code, and the tests that must go red for each: ``python -m tests.mutants``."""
