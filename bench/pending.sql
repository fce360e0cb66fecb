-- Bookings that wait for their money: %(count)s of them over %(shows)s new shows, two seats each, as holding and booking
-- would have left them. Answers nothing; `bench.pending` numbers them, neighbours of different shows, as the locks of one show
-- would let only one of pgbench's clients work at a time. The shows' ids have the day of the
-- show that they are like, and what belongs to them begins as they do: that is how each finds its partition.
CREATE SCHEMA IF NOT EXISTS bench;
DROP TABLE IF EXISTS bench.pending;
DROP SEQUENCE IF EXISTS bench.next;
CREATE SEQUENCE bench.next;

CREATE TABLE bench.pending AS
SELECT (b.n * %(shows)s + s.n)::integer AS number, s.show_id, 2 * b.n AS first_seat,
       (left(s.show_id::text, 14) || right(uuidv7()::text, 22))::uuid AS reservation_id,
       (left(s.show_id::text, 14) || right(uuidv7()::text, 22))::uuid AS booking_id,
       uuidv7() AS user_id, uuidv7() AS payment_id
FROM (
    SELECT n, (left(%(template)s, 9) || right(uuidv7()::text, 27))::uuid AS show_id
    FROM generate_series(0, %(shows)s - 1) n
) AS s
CROSS JOIN generate_series(0, %(each)s - 1) AS b (n);
ALTER TABLE bench.pending ADD PRIMARY KEY (number);

INSERT INTO shows
SELECT p.show_id, t.version, t.title, t.city_id, t.venue_id, t.venue_name, t.screen_name, t.time_zone,
       clock_timestamp() + interval '2 days', t.sale_opens, clock_timestamp() + interval '2 days',
       t.layout_id, t.layout_version, t.capacity, t.currency, t.prices, t.refund_tiers, false
FROM (SELECT DISTINCT show_id FROM bench.pending) AS p
CROSS JOIN (SELECT * FROM shows WHERE show_id = %(template)s) AS t;

INSERT INTO show_versions (show_id, version, taken)
SELECT show_id, count(*), 2 * count(*)
FROM bench.pending
GROUP BY show_id;

INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, expires_at, fence)
SELECT show_id, first_seat + seat, 2, reservation_id, user_id, clock_timestamp() + interval '1 hour', 1
FROM bench.pending
CROSS JOIN generate_series(0, 1) AS seat;

INSERT INTO reservations (
    show_id, reservation_id, user_id, status, holding, seat_nos, quote, total, fence, created_at, expires_at, booking_id
)
SELECT show_id, reservation_id, user_id, 2, true, ARRAY[first_seat, first_seat + 1], %(quote)s, 49560, 1,
       clock_timestamp(), clock_timestamp() + interval '1 hour', booking_id
FROM bench.pending;

INSERT INTO bookings (
    show_id, booking_id, reservation_id, user_id, reference, status, seat_nos, quote, total, currency, pay_by,
    created_at, updated_at, version, expired_event
)
SELECT show_id, booking_id, reservation_id, user_id, 'MQBENCH', 1, ARRAY[first_seat, first_seat + 1], %(quote)s, 49560,
       'INR', clock_timestamp() + interval '1 hour', clock_timestamp(), clock_timestamp(), 1, %(quote)s
FROM bench.pending;
