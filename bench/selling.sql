-- %(count)s bookings to be made over %(shows)s new shows, two seats each; `bench.to_sell` numbers them, neighbours of
-- different shows. The shows' ids begin as %(template)s does, and what belongs to them as they do: so each finds its
-- partition.
CREATE SCHEMA IF NOT EXISTS bench;
DROP TABLE IF EXISTS bench.to_sell;
DROP SEQUENCE IF EXISTS bench.next;
CREATE SEQUENCE bench.next;

CREATE TABLE bench.to_sell AS
SELECT (b.n * %(shows)s + s.n)::integer AS number, s.show_id, 2 * b.n AS first_seat,
       (left(s.show_id::text, 14) || right(uuidv7()::text, 22))::uuid AS reservation_id,
       (left(s.show_id::text, 14) || right(uuidv7()::text, 22))::uuid AS booking_id,
       gen_random_uuid() AS user_id
FROM (
    SELECT n, (left(%(template)s, 9) || right(uuidv7()::text, 27))::uuid AS show_id
    FROM generate_series(0, %(shows)s - 1) n
) AS s
CROSS JOIN generate_series(0, (%(count)s - 1) / %(shows)s) AS b (n);
ALTER TABLE bench.to_sell ADD PRIMARY KEY (number);

INSERT INTO show_versions (show_id)
SELECT DISTINCT show_id
FROM bench.to_sell;
