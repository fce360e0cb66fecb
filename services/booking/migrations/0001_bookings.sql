-- Booking's own tables. Everything about a show carries show_id as the first part of its key, and no transaction spans
-- two shows but a batch, so the tables can be distributed by show_id.

-- Booking's copy of what the catalogue says of a show, from `catalog.changed`.
CREATE TABLE shows (
    show_id        uuid        NOT NULL PRIMARY KEY,
    version        integer     NOT NULL,  -- the catalogue's; grows with every change there
    title          text        NOT NULL,
    city_id        text        NOT NULL,
    venue_id       text        NOT NULL,
    venue_name     text        NOT NULL,
    screen_name    text        NOT NULL,
    time_zone      text        NOT NULL,
    start_time     timestamptz NOT NULL,
    sale_opens     timestamptz NOT NULL,
    sale_closes    timestamptz NOT NULL,  -- the earlier of the end of the sale and the start of the show
    layout_id      uuid        NOT NULL,
    layout_version integer     NOT NULL,
    capacity       integer     NOT NULL,
    currency       text        NOT NULL,
    prices         jsonb       NOT NULL,  -- {"REGULAR": 25000}: minor units by category
    refund_tiers   jsonb       NOT NULL,  -- [[minutes_before, percent], ...], the earliest first
    cancelled      boolean     NOT NULL DEFAULT false
);

-- Immutable seating plans (marquee.catalog.v1.Layout), fetched once from the catalogue.
CREATE TABLE layouts (
    layout_id uuid  NOT NULL PRIMARY KEY,
    layout    bytea NOT NULL
);

-- Narrow and hot: the row lock on it orders all writers of a show.
CREATE TABLE show_versions (
    show_id uuid    NOT NULL PRIMARY KEY,
    version integer NOT NULL DEFAULT 0,
    taken   integer NOT NULL DEFAULT 0  -- how many seats have a claim
) WITH (fillfactor = 50);

-- Seats that are held (2), booked (3) or blocked (4); a seat without a row is for sale. The key is what keeps two people
-- from owning one seat.
CREATE TABLE seat_claims (
    show_id        uuid        NOT NULL,
    seat_no        integer     NOT NULL,
    status         smallint    NOT NULL CHECK (status IN (2, 3, 4)),
    reservation_id uuid,
    user_id        uuid,
    expires_at     timestamptz,
    fence          integer     NOT NULL,  -- the version at which the seat was acquired
    PRIMARY KEY (show_id, seat_no),
    CHECK ((status = 2) = (expires_at IS NOT NULL)),
    CHECK ((status = 4) = (reservation_id IS NULL))
);

-- Each show is a little log: the new states of the seats that changed at a version.
CREATE TABLE show_log (
    show_id uuid        NOT NULL,
    version integer     NOT NULL,
    freed   integer[]   NOT NULL DEFAULT '{}',
    held    integer[]   NOT NULL DEFAULT '{}',
    booked  integer[]   NOT NULL DEFAULT '{}',
    blocked integer[]   NOT NULL DEFAULT '{}',
    cause   text        NOT NULL,
    actor   uuid,
    at      timestamptz NOT NULL,
    PRIMARY KEY (show_id, version)
);

CREATE TABLE reservations (
    show_id        uuid        NOT NULL,
    reservation_id uuid        NOT NULL,
    user_id        uuid        NOT NULL,
    status         smallint    NOT NULL,  -- marquee.booking.v1.ReservationStatus
    holding        boolean     NOT NULL,  -- its seats are still HELD: it is active, or its booking waits for payment
    seat_nos       integer[]   NOT NULL,
    quote          bytea       NOT NULL,  -- marquee.booking.v1.Quote, as locked
    total          bigint      NOT NULL,  -- minor units
    fence          integer     NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,  -- of the hold; of the payment window once a booking took over
    booking_id     uuid,
    PRIMARY KEY (show_id, reservation_id)
);
CREATE INDEX reservations_id ON reservations (reservation_id);
CREATE INDEX reservations_user ON reservations (show_id, user_id, created_at);
CREATE INDEX reservations_due ON reservations (expires_at) WHERE holding;

CREATE TABLE bookings (
    show_id        uuid        NOT NULL,
    booking_id     uuid        NOT NULL,
    reservation_id uuid        NOT NULL,
    user_id        uuid        NOT NULL,
    reference      text        NOT NULL,
    status         smallint    NOT NULL,  -- marquee.booking.v1.BookingStatus
    seat_nos       integer[]   NOT NULL,
    quote          bytea       NOT NULL,
    total          bigint      NOT NULL,
    currency       text        NOT NULL,
    pay_by         timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    payment_id     uuid,
    capture_id     text,
    refund         bigint,
    version        integer     NOT NULL,
    expired_event  bytea       NOT NULL,  -- the BookingExpired to announce if it comes to that, made when it was booked
    PRIMARY KEY (show_id, booking_id)
);
CREATE INDEX bookings_id ON bookings (booking_id);
CREATE INDEX bookings_reservation ON bookings (show_id, reservation_id);

CREATE TABLE booking_items (
    show_id    uuid    NOT NULL,
    booking_id uuid    NOT NULL,
    seat_no    integer NOT NULL,
    category   text    NOT NULL,
    price      bigint  NOT NULL,
    price_tax  bigint  NOT NULL,
    fee        bigint  NOT NULL,
    fee_tax    bigint  NOT NULL,
    PRIMARY KEY (show_id, booking_id, seat_no)
);

-- Every capture that was announced for a booking, and what became of it.
CREATE TABLE captures (
    show_id    uuid        NOT NULL,
    booking_id uuid        NOT NULL,
    capture_id text        NOT NULL,
    payment_id uuid        NOT NULL,
    amount     bigint      NOT NULL,
    outcome    text        NOT NULL,  -- CONFIRMED, or why it goes back: LATE, DUPLICATE, MISMATCH, CANCELLED
    at         timestamptz NOT NULL,
    PRIMARY KEY (show_id, booking_id, capture_id)
);

-- For listing; kept by booking's own events, because its key is not the show's.
CREATE TABLE user_bookings (
    user_id    uuid        NOT NULL,
    created_at timestamptz NOT NULL,
    booking_id uuid        NOT NULL,
    PRIMARY KEY (user_id, created_at, booking_id)
);

-- Answers by request id. One id means one content for its user, whatever the show.
CREATE TABLE requests (
    user_id    uuid        NOT NULL,
    request_id uuid        NOT NULL,
    show_id    uuid        NOT NULL,
    method     text        NOT NULL,
    content    bytea       NOT NULL,
    answer     bytea,       -- the serialized answer; a hold's is made again from its reservation
    answer_id  uuid,
    answer_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, request_id, show_id)
);
CREATE INDEX requests_created_at ON requests USING brin (created_at);

-- Changes when the database was restored from a copy; versions of different epochs do not compare.
CREATE TABLE epoch (
    epoch text NOT NULL
);
INSERT INTO epoch VALUES (gen_random_uuid()::text);
