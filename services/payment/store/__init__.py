"""All of payment's SQL: payments, what reports do to them, refunds, calls of the provider, walks, reports of nobody's.

psycopg throughout. Every function takes a connection: the caller decides what commits together. What is done in batches
is in ``migrations/payment_functions.sql``.

Lock order: payments by the order of their bookings' ids, then what is under them.
"""
