"""The catalogue: films, events, venues, screens with their layouts, and shows."""
