-- More shows with claims, numbers %(first)s to %(last)s: each is like a show that there is, on one of the next four weeks'
-- days, with %(claims)s seats booked. They have neither reservations nor bookings nor a log. `bench.grown` numbers them.
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS bench.grown (number integer PRIMARY KEY, show_id uuid NOT NULL);

INSERT INTO bench.grown
SELECT n,
       (lpad(to_hex(current_date + 1 + n %% 26 - date '2020-01-01'), 4, '0') || substr(%(template)s, 5, 5)
        || right(gen_random_uuid()::text, 27))::uuid
FROM generate_series(%(first)s, %(last)s) AS n;

INSERT INTO shows
SELECT g.show_id, t.version, t.title, t.city_id, t.venue_id, t.venue_name, t.screen_name, t.time_zone,
       clock_timestamp() + interval '1 day' + (g.number %% 26) * interval '1 day', t.sale_opens,
       clock_timestamp() + interval '1 day' + (g.number %% 26) * interval '1 day',
       t.layout_id, t.layout_version, t.capacity, t.currency, t.prices, t.refund_tiers, false
FROM bench.grown AS g
CROSS JOIN (SELECT * FROM shows WHERE show_id = %(template)s) AS t
WHERE g.number BETWEEN %(first)s AND %(last)s;

INSERT INTO show_versions (show_id, version, taken)
SELECT show_id, 1, %(claims)s
FROM bench.grown
WHERE number BETWEEN %(first)s AND %(last)s;

INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, fence)
SELECT show_id, seat_no, 3, gen_random_uuid(), gen_random_uuid(), 1
FROM bench.grown
CROSS JOIN generate_series(0, %(claims)s - 1) AS seat_no
WHERE number BETWEEN %(first)s AND %(last)s;
