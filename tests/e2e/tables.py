"""The tables of the capture tests: one for each kind of table that matters to capture."""

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text, email varchar(40), age int);
    CREATE VIEW user_names AS SELECT id, name FROM users;
    CREATE TABLE codes (code text PRIMARY KEY, label text);
    CREATE TABLE "Odd Table" ("Key" int PRIMARY KEY, "Val ue" text);
    CREATE SCHEMA other;
    CREATE TABLE other.users (id int PRIMARY KEY, name text);

    CREATE TABLE shouted (id int PRIMARY KEY, v text);
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v := upper(NEW.v); RETURN NEW; END$$;
    CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON shouted FOR EACH ROW EXECUTE FUNCTION shout();
    CREATE TABLE doubled (id int PRIMARY KEY, n int, v int GENERATED ALWAYS AS (n * 2) STORED);
    CREATE TABLE ruled (id int PRIMARY KEY, v text);
    CREATE RULE instead AS ON UPDATE TO ruled DO INSTEAD UPDATE users SET name = 'by rule' WHERE id = OLD.id;

    CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE elder (id int, v text);
    CREATE TABLE younger (PRIMARY KEY (id)) INHERITS (elder);

    CREATE TABLE owners (id int PRIMARY KEY, name text);
    CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE notes (id int, t text);
    CREATE SEQUENCE numbers;

    CREATE FUNCTION grow_first() RETURNS int LANGUAGE plpgsql VOLATILE AS
        $$BEGIN UPDATE users SET age = age + 1 WHERE id = 1; RETURN 1; END$$;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2;
    CREATE PROCEDURE nothing() LANGUAGE plpgsql AS $$BEGIN NULL; END$$;
"""
CONTENT = """
    DELETE FROM users; DELETE FROM codes; DELETE FROM "Odd Table"; DELETE FROM other.users; DELETE FROM shouted;
    DELETE FROM doubled; DELETE FROM ruled; DELETE FROM parts; DELETE FROM elder; DELETE FROM pets; DELETE FROM owners;
    DELETE FROM notes;
    INSERT INTO users VALUES (1, 'Ada', 'ada@example.org', 36), (2, 'Ben', NULL, 20), (3, 'Cyd', 'c@example.org', 50);
    INSERT INTO codes VALUES ('a', 'first'), ('b:%', 'second'), ('', 'empty');
    INSERT INTO "Odd Table" VALUES (1, 'odd'), (2, 'even');
    INSERT INTO other.users VALUES (1, 'not Ada'), (2, 'not Ben');
    INSERT INTO shouted VALUES (1, 'LOUD'), (2, 'LOUDER');
    INSERT INTO doubled (id, n) VALUES (1, 10), (2, 20);
    INSERT INTO ruled VALUES (1, 'rule'), (2, 'ruler');
    INSERT INTO parts VALUES (1, 'low'), (2, 'lower'), (11, 'high');
    INSERT INTO younger VALUES (1, 'child'), (2, 'kid');
    INSERT INTO owners VALUES (1, 'Zoe'), (2, 'Yan');
    INSERT INTO pets VALUES (1, 1), (2, 1), (3, 2);
    INSERT INTO notes VALUES (1, 'Ada'), (2, 'Ben'), (2, 'Cyd'), (7, 'Dot');
"""
RULES = [
    {"name": "users", "key": "id", "value": "name"},
    {"name": "codes", "key": "code", "value": "label", "redis_key": "code/{code}"},
    {"name": "Odd Table", "key": "Key", "value": "Val ue", "redis_key": "odd:{Key}"},
    {"name": "shouted", "key": "id", "value": "v"},
    {"name": "doubled", "key": "id", "value": "v"},
    {"name": "ruled", "key": "id", "value": "v"},
    {"name": "parts", "key": "id", "value": "v"},
    {"name": "younger", "key": "id", "value": "v"},
    {"name": "pets", "key": "id", "value": "owner"},
]
KEYS = {
    "users": "users:1 users:2 users:3",
    "codes": "code/a code/b:% code/",
    "odd": "odd:1 odd:2",
    "shouted": "shouted:1 shouted:2",
    "doubled": "doubled:1 doubled:2",
    "ruled": "ruled:1 ruled:2",
    "parts": "parts:1 parts:2 parts:11",
    "younger": "younger:1 younger:2",
    "pets": "pets:1 pets:2 pets:3",
}
"""The Redis keys of all rows, by the beginning of their names."""
ALL_KEYS = frozenset(key for keys in KEYS.values() for key in keys.split())


def keys(words):
    """The set of keys that `words` names; `users:*` stands for all keys of users."""
    found = set()
    for word in words.split():
        name, _, rest = word.partition(":")
        found |= set(KEYS[name].split()) if rest == "*" else {word}
    return found
