"""Demo data: a real week of cinemas and events in India, and the large day of shows for load tests.

    await load(catalog_database_url)                    # idempotent; tops up days that have no shows yet
    await seed_shows(catalog_database_url, 50_000)      # idempotent too: the same shows for the same day

Both write to the catalogue's migrated database, rows and outbox together, as the catalogue service would: others learn
of it by `catalog.changed` alone.
"""

from local.demo.loading import Loaded, load
from local.demo.seeding import Seeded, seed_shows

__all__ = ["Loaded", "Seeded", "load", "seed_shows"]
