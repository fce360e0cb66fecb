"""Cities, films, events, venues, screens, layouts and shows."""

from alembic import op

from services.kit.migrations import create_event_tables, create_request_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_event_tables(op)
    create_request_table(op)
    op.execute("""
        CREATE EXTENSION IF NOT EXISTS btree_gist;

        CREATE TABLE cities (
            city_id    text             NOT NULL PRIMARY KEY,
            name       text             NOT NULL,
            latitude   double precision NOT NULL,
            longitude  double precision NOT NULL,
            time_zone  text             NOT NULL,
            population bigint           NOT NULL,
            region     integer          NOT NULL UNIQUE CHECK (region BETWEEN 0 AND 65535)
        );
        CREATE INDEX cities_by_size ON cities (population DESC, city_id);

        CREATE TABLE movies (
            movie_id         uuid             NOT NULL PRIMARY KEY,
            title            text             NOT NULL,
            synopsis         text             NOT NULL,
            release_date     date,
            genres           text[]           NOT NULL,
            languages        text[]           NOT NULL,
            formats          smallint[]       NOT NULL,
            duration_minutes integer          NOT NULL,
            certificate      text             NOT NULL,
            director         text             NOT NULL,
            rating           double precision NOT NULL,
            votes            bigint           NOT NULL,
            state            smallint         NOT NULL CHECK (state IN (1, 2, 3)),
            version          integer          NOT NULL,
            created_at       timestamptz      NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX movies_best_known ON movies (state, votes DESC, movie_id);
        CREATE INDEX movies_last_created ON movies (created_at DESC, movie_id);

        CREATE TABLE events (
            event_id         uuid        NOT NULL PRIMARY KEY,
            title            text        NOT NULL,
            description      text        NOT NULL,
            kind             smallint    NOT NULL,
            genres           text[]      NOT NULL,
            languages        text[]      NOT NULL,
            duration_minutes integer     NOT NULL,
            organizer_id     uuid,
            state            smallint    NOT NULL CHECK (state IN (1, 2, 3)),
            version          integer     NOT NULL,
            created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX events_by_title ON events (title, event_id) WHERE state <> 3;
        CREATE INDEX events_last_created ON events (created_at DESC, event_id);

        CREATE TABLE venues (
            venue_id     uuid        NOT NULL PRIMARY KEY,
            name         text        NOT NULL,
            city_id      text        NOT NULL REFERENCES cities,
            address      text        NOT NULL,
            latitude     double precision,
            longitude    double precision,
            time_zone    text        NOT NULL,
            amenities    smallint[]  NOT NULL,
            organizer_id uuid,
            retired      boolean     NOT NULL,
            version      integer     NOT NULL,
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX venues_by_name ON venues (name, venue_id) WHERE NOT retired;
        CREATE INDEX venues_of_city_by_name ON venues (city_id, name, venue_id) WHERE NOT retired;
        CREATE INDEX venues_last_created ON venues (created_at DESC, venue_id);

        -- The plan is a marquee.catalog.v1.LayoutPlan: some hundred bytes for a hall of 500 seats.
        CREATE TABLE layouts (
            layout_id      uuid        NOT NULL PRIMARY KEY,
            screen_id      uuid        NOT NULL,
            layout_version integer     NOT NULL,
            plan           bytea       NOT NULL,
            created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            UNIQUE (screen_id, layout_version)
        );

        CREATE TABLE screens (
            screen_id      uuid        NOT NULL PRIMARY KEY,
            venue_id       uuid        NOT NULL REFERENCES venues,
            name           text        NOT NULL,
            formats        smallint[]  NOT NULL,
            layout_id      uuid        NOT NULL REFERENCES layouts,
            layout_version integer     NOT NULL,
            capacity       integer     NOT NULL,
            retired        boolean     NOT NULL,
            version        integer     NOT NULL,
            created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX screens_of_venue ON screens (venue_id, name);

        -- prices: [[category, minor units], ...]; refund_tiers: [[minutes before, percent], ...].
        CREATE TABLE shows (
            show_id        uuid        NOT NULL PRIMARY KEY,
            movie_id       uuid        REFERENCES movies,
            event_id       uuid        REFERENCES events,
            title_id       uuid        NOT NULL GENERATED ALWAYS AS (COALESCE(movie_id, event_id)) STORED,
            venue_id       uuid        NOT NULL REFERENCES venues,
            screen_id      uuid        NOT NULL REFERENCES screens,
            city_id        text        NOT NULL,
            start_time     timestamptz NOT NULL,
            end_time       timestamptz NOT NULL,
            business_date  date        NOT NULL,
            language       text        NOT NULL,
            format         smallint    NOT NULL,
            layout_id      uuid        NOT NULL,
            layout_version integer     NOT NULL,
            prices         jsonb       NOT NULL,
            currency       text        NOT NULL,
            on_sale_time   timestamptz NOT NULL,
            off_sale_time  timestamptz NOT NULL,
            refund_tiers   jsonb       NOT NULL,
            organizer_id   uuid,
            capacity       integer     NOT NULL,
            time_zone      text        NOT NULL,
            state          smallint    NOT NULL CHECK (state IN (1, 2)),
            version        integer     NOT NULL,
            created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            CHECK (num_nonnulls(movie_id, event_id) = 1),
            CHECK (end_time > start_time AND end_time <= start_time + interval '3 days'),
            -- One show at a time on a screen, whoever writes.
            CONSTRAINT shows_apart EXCLUDE USING gist (screen_id WITH =, tstzrange(start_time, end_time) WITH &&)
                WHERE (state = 1)
        );
        -- What is not over began less than three days ago, so these also find what still runs.
        CREATE INDEX shows_of_title_in_city ON shows (title_id, city_id, start_time, show_id) WHERE state = 1;
        CREATE INDEX shows_of_title ON shows (title_id, start_time, show_id) WHERE state = 1;
        CREATE INDEX shows_of_venue ON shows (venue_id, start_time, show_id);
        CREATE INDEX shows_by_start ON shows (start_time, show_id);
    """)
