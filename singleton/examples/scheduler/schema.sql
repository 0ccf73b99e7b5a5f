-- Whoever wants something done writes here.
CREATE TABLE IF NOT EXISTS requests (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parts int NOT NULL);

-- Fenced: only the leader writes here.
CREATE TABLE IF NOT EXISTS tasks (
    request bigint REFERENCES requests,
    part    bigint,
    lane    int NOT NULL,
    token   bigint NOT NULL,
    PRIMARY KEY (request, part)
);

-- What the tables of the lanes are like: results_0 and so on, each with a fence.
CREATE TABLE IF NOT EXISTS result (
    request bigint,
    part    bigint,
    result  bigint NOT NULL,
    token   bigint NOT NULL,
    PRIMARY KEY (request, part)
);
