"""All SQL of the catalogue, by what it is about. Functions take a connection; the use case owns the transaction."""
