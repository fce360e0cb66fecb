"""All of booking's SQL: shows, seats (the map and the log), holds and bookings.

psycopg throughout, because nearly all of it is the hot path. What writes claims is in ``migrations/*_functions.sql``.
"""
