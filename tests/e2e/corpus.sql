-- Statements as documentation and applications write them, many of them odd. One after another over the tables of
-- corpus_tables.sql, each in a way of sending of its own; a blank line ends one. Some are errors, and stay so.

SELECT * FROM weather

SELECT city, temp_lo, temp_hi, prcp, date FROM weather

SELECT city, (temp_hi + temp_lo) / 2 AS temp_avg, date FROM weather

SELECT * FROM weather WHERE city = 'San Francisco' AND prcp > 0.0

SELECT * FROM weather ORDER BY city, temp_lo

SELECT DISTINCT city FROM weather ORDER BY city

SELECT weather.id, weather.city, cities.location FROM weather JOIN cities ON weather.city = cities.name

SELECT w.id, w.city, w.prcp, c.name, c.location FROM weather w, cities c WHERE w.city = c.name

SELECT * FROM weather LEFT OUTER JOIN cities ON weather.city = cities.name

SELECT * FROM cities RIGHT OUTER JOIN weather ON weather.city = cities.name

SELECT w1.city, w1.temp_lo AS low, w1.temp_hi AS high, w2.city, w2.temp_lo FROM weather w1 JOIN weather w2
    ON w1.temp_lo < w2.temp_lo AND w1.temp_hi > w2.temp_hi

SELECT max(temp_lo) FROM weather

SELECT city FROM weather WHERE temp_lo = (SELECT max(temp_lo) FROM weather)

SELECT city, count(*), max(temp_lo) FROM weather GROUP BY city HAVING max(temp_lo) < 40

SELECT city, count(*) FILTER (WHERE temp_lo < 45), max(temp_lo) FROM weather GROUP BY city

UPDATE weather SET temp_hi = temp_hi - 2, temp_lo = temp_lo - 2 WHERE date > '1994-11-28'

SELECT * FROM weather

DELETE FROM weather WHERE city = 'Hayward'

SELECT id, city FROM weather WHERE id = 1

UPDATE weather SET city = 'Oslo' WHERE id = 1

UPDATE weather SET city = 'Paris', temp_lo = 3 WHERE id = 2 AND temp_lo IS NOT NULL

UPDATE weather SET city = 'Paris' WHERE id = 2 AND temp_lo = 1000

INSERT INTO weather VALUES (10, 'Hayward', 37, 54, 0.0, '1994-11-29')

INSERT INTO weather (id, date, city, temp_hi, temp_lo) VALUES (11, '1994-11-29', 'Hayward', 54, 37)

INSERT INTO weather (id, city) VALUES (12, 'a'), (13, 'b'), (14, 'c')

INSERT INTO weather (id, city) SELECT id + 20, city FROM weather WHERE id > 12

INSERT INTO weather DEFAULT VALUES

INSERT INTO weather (id, city) VALUES (15, DEFAULT)

INSERT INTO weather (id, city) VALUES (1, 'twice')

INSERT INTO weather (id, city) VALUES (1, 'twice') ON CONFLICT DO NOTHING

INSERT INTO weather (id, city) VALUES (1, 'upserted') ON CONFLICT (id) DO UPDATE SET city = EXCLUDED.city

SELECT city FROM weather WHERE id = 1

INSERT INTO weather AS w (id, city) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET city = w.city || '+' WHERE w.id = 1

INSERT INTO weather (id, city) VALUES (1, 'x'), (40, 'forty') ON CONFLICT (id) DO UPDATE SET city = 'both' RETURNING *

INSERT INTO weather (id, city) VALUES (1, 'x') ON CONFLICT ON CONSTRAINT weather_pkey DO UPDATE SET temp_lo = 0

INSERT INTO weather (id, city) VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET (city, temp_lo) = ROW ('row', 1)

INSERT INTO weather (id, city) OVERRIDING SYSTEM VALUE VALUES (41, 'overriding')

WITH upd AS (UPDATE weather SET city = city || '!' WHERE id = 2 RETURNING *) SELECT * FROM upd

WITH upd AS (UPDATE weather SET city = 'in a CTE' WHERE id = 2 RETURNING *) INSERT INTO log SELECT city FROM upd

WITH moved AS (DELETE FROM weather WHERE id = 41 RETURNING *) INSERT INTO log SELECT city FROM moved

WITH t AS (UPDATE weather SET temp_lo = temp_lo * 1.05 RETURNING *) SELECT * FROM weather

WITH t AS (UPDATE weather SET city = upper(city) RETURNING *) SELECT id, city FROM t

WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT sum(n) FROM t

WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 3)
    UPDATE weather SET city = 'recursive' FROM t WHERE weather.id = t.n

WITH w AS NOT MATERIALIZED (SELECT * FROM weather) SELECT * FROM w WHERE id = 2

WITH a AS (SELECT id, city FROM weather), b AS (SELECT * FROM a) SELECT b.id, b.city FROM b

WITH a AS (SELECT id, city FROM weather), b AS (SELECT * FROM a) SELECT a.id, b.city FROM a, b

WITH weather AS (SELECT 1 AS id, 'not the table' AS city) SELECT id, city FROM weather

WITH weather AS (SELECT id, city FROM weather) SELECT * FROM weather

SELECT * FROM (SELECT id, city FROM weather ORDER BY id LIMIT 3) AS w OFFSET 1

SELECT * FROM (VALUES (1, 'x')) AS weather (id, city)

SELECT id, city FROM weather WHERE (id, city) IN (SELECT id, city FROM weather)

SELECT id, city FROM weather w WHERE EXISTS (SELECT 1 FROM weather x WHERE x.id = w.id AND x.city <> '')

SELECT id, CASE WHEN id = 1 THEN 'one' ELSE city END AS city FROM weather

SELECT id, coalesce(city, 'none') AS city FROM weather

SELECT id, city COLLATE "C" FROM weather

SELECT id, city COLLATE "C" AS city FROM weather ORDER BY 2

SELECT id, city::text AS city FROM weather

SELECT id::int, city FROM weather

SELECT id::bigint AS id, city FROM weather

SELECT (id), (city) FROM weather

SELECT +id AS id, city FROM weather

SELECT "id", "city" FROM "weather"

SELECT ID, City FROM WEATHER

SELECT id AS "ID", city AS "select" FROM public.weather "from"

select distinct on (city) id, city from weather order by city, id desc

SELECT id, city, lag(city) OVER (ORDER BY id) FROM weather

SELECT id, first_value(city) OVER (ORDER BY id) AS city FROM weather

SELECT ALL id, city FROM ONLY weather * , log

SELECT id, city FROM weather FETCH FIRST 2 ROWS ONLY

SELECT id, city FROM weather FETCH FIRST ROW WITH TIES

SELECT id, city FROM weather ORDER BY id FETCH FIRST 2 ROWS WITH TIES

SELECT id, city FROM weather FOR UPDATE SKIP LOCKED

SELECT id, city FROM weather FOR NO KEY UPDATE NOWAIT

SELECT id, city FROM weather FOR SHARE OF weather

SELECT id, city FROM weather FOR KEY SHARE

SELECT id, city FROM weather NATURAL JOIN cities

SELECT id, city FROM weather CROSS JOIN cities

SELECT id, city FROM weather JOIN log USING (city)

SELECT l.city, w.id FROM weather w FULL JOIN log l USING (city)

SELECT w.city, l.city FROM log l LEFT JOIN weather w ON w.id = 1

SELECT city FROM log LEFT JOIN weather USING (city) WHERE id = 1

SELECT id, city FROM log LEFT JOIN weather USING (city)

SELECT id, w.city FROM (weather w LEFT JOIN log ON true) WHERE id = 1

SELECT j.id, j.city FROM (weather w JOIN cities c ON c.name = w.city) AS j

SELECT id, city FROM weather, LATERAL (SELECT count(*) FROM log WHERE log.city = weather.city) AS n

SELECT id, x.city FROM weather, LATERAL (SELECT weather.city) AS x

SELECT id, city FROM weather TABLESAMPLE SYSTEM (100) REPEATABLE (1)

SELECT id, city FROM weather GROUP BY id

SELECT id, city, grouping(city) FROM weather GROUP BY ROLLUP (id, city)

SELECT id, city FROM weather GROUP BY GROUPING SETS ((id), (city))

SELECT id, min(city) AS city FROM weather GROUP BY id

SELECT id, city FROM weather UNION ALL SELECT id, city FROM weather

SELECT city FROM weather WHERE id = 1 UNION SELECT city FROM weather WHERE id = 2

(SELECT id, city FROM weather) EXCEPT (SELECT 1, 'x') ORDER BY 1

(SELECT id, city FROM weather ORDER BY id LIMIT 1)

((TABLE weather))

TABLE weather ORDER BY id LIMIT 2 OFFSET 1

VALUES (1, 'x'), (2, 'y')

SELECT city FROM weather WHERE id = 1 AND id = 2

SELECT city FROM weather WHERE id = 1 AND (id = 2 OR city IS NOT NULL)

SELECT city FROM weather WHERE NOT (id <> 1)

SELECT city FROM weather WHERE id = 1 OR id = 1

SELECT city FROM weather WHERE id IN (1)

SELECT city FROM weather WHERE id IN (1, 1)

SELECT city FROM weather WHERE id = ANY ('{1}')

SELECT city FROM weather WHERE id = ANY (ARRAY[1])

SELECT city FROM weather WHERE id = ALL (ARRAY[1])

SELECT city FROM weather WHERE id BETWEEN 1 AND 1

SELECT city FROM weather WHERE id = 1::smallint

SELECT city FROM weather WHERE id = 1.0

SELECT city FROM weather WHERE id = '1'

SELECT city FROM weather WHERE id = ' 1 '

SELECT city FROM weather WHERE id = int '1'

SELECT city FROM weather WHERE id = - -1

SELECT city FROM weather WHERE id = -1

SELECT city FROM weather WHERE id = 0x1

SELECT city FROM weather WHERE id = 1e0

SELECT city FROM weather WHERE id = (1)

SELECT city FROM weather WHERE 1 = id AND true

SELECT city FROM weather WHERE id = 1 IS NOT FALSE

SELECT city FROM weather WHERE id IS NOT DISTINCT FROM 1

SELECT city FROM weather WHERE (id) = 1

SELECT city FROM weather WHERE (id, 1) = (1, 1)

SELECT city FROM weather WHERE ROW (id) = ROW (1)

SELECT city FROM weather WHERE id OPERATOR (pg_catalog.=) 1

SELECT city FROM weather WHERE id = 1 LIMIT 1

SELECT city FROM weather AS w WHERE w.id = 1 ORDER BY w.date DESC NULLS LAST

SELECT city FROM weather WHERE id = 1 GROUP BY city

SELECT (SELECT city FROM weather WHERE id = 1) AS city

SELECT city FROM (SELECT * FROM weather WHERE id = 1) AS weather

SELECT city FROM (SELECT 1 AS id, city FROM weather) AS w WHERE id = 1

SELECT city FROM (SELECT id + 1 AS id, city FROM weather) AS weather WHERE id = 2

SELECT w.city FROM weather w JOIN (SELECT 1 AS id) x ON x.id = 1 AND w.id = 2

SELECT * FROM weather w (temp_lo, city) WHERE temp_lo = 1

UPDATE weather SET city = 'a' WHERE id = 1 OR false

UPDATE weather SET city = 'b' WHERE id = 1 AND id = 2

UPDATE weather SET city = 'c' WHERE id = '1'

UPDATE weather SET city = 'd' WHERE id = 1::bigint

UPDATE weather SET city = 'e' WHERE id = 1.0

UPDATE weather SET city = 'f' WHERE (id, temp_lo) = (1, 3)

UPDATE weather SET city = 'g' WHERE id IN (1, 2, NULL)

UPDATE weather SET city = 'h' WHERE id = ANY ('{1,2}'::int[])

UPDATE weather SET city = 'i' WHERE id = ANY (ARRAY[1, 2])

UPDATE weather SET city = 'j' WHERE id = ALL (ARRAY[1, 1])

UPDATE weather SET city = 'k' WHERE id <> ALL (ARRAY[3])

UPDATE weather SET city = 'l' WHERE id NOT IN (3, 4)

UPDATE weather SET city = 'm' WHERE id IN (SELECT 1)

UPDATE weather SET city = 'n' WHERE id IN (VALUES (1), (2))

UPDATE weather SET city = 'o' FROM (VALUES (1, 'x'), (2, 'y')) AS v (id, city) WHERE v.id = weather.id

UPDATE weather w SET city = v.city FROM (VALUES (1, 'x'), (2, 'y')) AS v (id, city) WHERE v.id = w.id

UPDATE weather SET city = 'p' FROM weather AS other WHERE other.id = 1 AND weather.id = 2

UPDATE weather SET city = 'q' FROM weather AS other WHERE other.id = 1 AND weather.id = other.id + 1

UPDATE weather SET city = c.name FROM cities c WHERE weather.id = 1 AND c.name = 'San Francisco'

UPDATE weather SET city = (SELECT name FROM cities LIMIT 1) WHERE id = 1

UPDATE weather SET (city, temp_lo) = (SELECT name, 7 FROM cities LIMIT 1) WHERE id = 1

UPDATE weather SET (city) = ROW ('row') WHERE id = 1

UPDATE weather SET (temp_lo, city) = (5, 'swapped') WHERE id = 1

UPDATE weather SET city = DEFAULT WHERE id = 1

UPDATE weather SET city = NULL WHERE id = 1

UPDATE weather SET city = 'back' WHERE id = 1 AND city IS NULL

UPDATE weather SET city = '' WHERE id = 1

UPDATE weather SET city = 'null' WHERE id = 1

UPDATE weather SET city = E'\t\\ \'' WHERE id = 1

UPDATE weather SET city = U&'\0441\043b\043e\043d' WHERE id = 1

UPDATE weather SET city = U&'!0441' UESCAPE '!' WHERE id = 1

UPDATE weather SET city = $$dollar 'quoted' \ $$ WHERE id = 1

UPDATE weather SET city = $q$nested $$ dollar$q$ WHERE id = 1

UPDATE weather SET city = 'one'
    ' two' WHERE id = 1

UPDATE weather SET city = 'a;b' WHERE id = 1;

UPDATE weather SET city = '--' WHERE id = 1 -- AND id = 2

UPDATE weather SET city = '/*' /* '*/ WHERE /* id = 2 AND */ id = 1

UPDATE weather SET city = 'x'::varchar(80) WHERE id = 1

UPDATE weather SET city = 'truncated'::char(3) WHERE id = 1

UPDATE weather SET city = varchar 'typed' WHERE id = 1

UPDATE weather SET city = CAST('cast' AS text) WHERE id = 1

UPDATE weather SET city = 5 WHERE id = 1

UPDATE weather SET city = 5::text WHERE id = 1

UPDATE weather SET city = -5 WHERE id = 1

UPDATE weather SET city = true WHERE id = 1

UPDATE weather SET city = date '2024-01-01' WHERE id = 1

UPDATE weather SET city = current_user WHERE id = 1

UPDATE weather SET city = current_date WHERE id = 1

UPDATE weather SET city = 'a' || 'b' WHERE id = 1

UPDATE weather SET city = ('in parentheses') WHERE id = 1

UPDATE weather SET city = B'101' WHERE id = 1

UPDATE weather SET city = X'1F' WHERE id = 1

UPDATE weather SET city = N'national' WHERE id = 1

UPDATE weather SET city = 'twice', city = 'the same' WHERE id = 1

UPDATE weather SET city = repeat('long', 30) WHERE id = 1

UPDATE weather SET city = 'trailing spaces   ' WHERE id = 1

UPDATE ONLY weather SET city = 'only' WHERE id = 1

UPDATE weather * SET city = 'star' WHERE id = 1

UPDATE public.weather AS w SET city = 'qualified' WHERE w.id = 1

UPDATE weather AS "W" SET "city" = 'quoted' WHERE "W"."id" = 1

UPDATE weather w SET city = 'wrong alias' WHERE weather.id = 1

UPDATE weather cities SET city = 'aliased as another table' WHERE cities.id = 1

UPDATE weather SET id = 100 WHERE id = 10

UPDATE weather SET id = id WHERE id = 11

UPDATE weather SET id = -id WHERE id = 12

UPDATE weather SET id = -id

UPDATE weather SET id = -id

UPDATE weather SET id = 1, city = 'the same key' WHERE id = 1

UPDATE weather SET id = 2 WHERE id = 1

UPDATE weather SET id = 101, city = 'moved' WHERE id = 100 RETURNING id, city

UPDATE weather SET city = 'returned' WHERE id = 1 RETURNING *

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING id, city

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING id, upper(city) AS city

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING id AS city, city AS id

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING old.id, old.city, new.id, new.city

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING WITH (OLD AS o, NEW AS n) o.city, n.id

UPDATE weather SET city = city || '.' WHERE id < 3 RETURNING WITH (OLD AS new) new.id, new.city

UPDATE weather SET city = city || '.' FROM cities RETURNING weather.id, weather.city, cities.name

DELETE FROM weather WHERE id = 13 RETURNING *

DELETE FROM weather WHERE id = 14 OR id = 15

DELETE FROM weather USING cities WHERE cities.name = weather.city AND weather.id = 999

DELETE FROM weather WHERE id IN (998, 999)

DELETE FROM weather AS w WHERE w.id = 33 RETURNING old.id

DELETE FROM ONLY weather WHERE false

MERGE INTO weather w USING cities c ON w.city = c.name WHEN MATCHED THEN UPDATE SET temp_lo = 0 WHEN NOT MATCHED THEN
    INSERT (id, city) VALUES (50, c.name)

MERGE INTO weather w USING (VALUES (1, 'merged'), (51, 'new')) AS v (id, city) ON w.id = v.id
    WHEN MATCHED THEN UPDATE SET city = v.city WHEN NOT MATCHED THEN INSERT (id, city) VALUES (v.id, v.city)

MERGE INTO weather w USING (VALUES (1, 'merged'), (51, 'new')) AS v (id, city) ON w.id = v.id
    WHEN MATCHED AND w.id = 51 THEN DELETE WHEN MATCHED THEN DO NOTHING RETURNING merge_action(), w.id, w.city

MERGE INTO weather w USING cities c ON false WHEN NOT MATCHED BY SOURCE AND w.id = 50 THEN DELETE

MERGE INTO weather w USING (SELECT 1 AS id) v ON w.id = v.id WHEN MATCHED THEN UPDATE SET city = 'r' RETURNING w.*

BEGIN

UPDATE weather SET city = 'in a block' WHERE id = 1

SELECT id, city FROM weather

SAVEPOINT s

UPDATE weather SET city = 'in a savepoint' WHERE id = 1

ROLLBACK TO s

RELEASE s

COMMIT

BEGIN; UPDATE weather SET city = 'never' WHERE id = 1; ROLLBACK

BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE

SELECT city FROM weather WHERE id = 1

END

START TRANSACTION READ ONLY; SELECT id, city FROM weather; COMMIT WORK

ABORT

BEGIN; DECLARE c CURSOR FOR SELECT id, city FROM weather ORDER BY id; FETCH 2 FROM c; MOVE 1 FROM c; FETCH c; END

BEGIN; DECLARE c CURSOR FOR SELECT * FROM weather FOR UPDATE; FETCH c; UPDATE weather SET city = 'current'
    WHERE CURRENT OF c; COMMIT

DECLARE h CURSOR WITH HOLD FOR SELECT id, city FROM weather

UPDATE weather SET city = 'after the cursor' WHERE id = 2

FETCH ALL FROM h

CLOSE h

PREPARE p (int, text) AS UPDATE weather SET city = $2 WHERE id = $1

EXECUTE p (1, 'executed')

EXECUTE p (1 + 1, 'expression')

EXECUTE p ('1', NULL)

EXECUTE p (1, 5)

DEALLOCATE PREPARE p

PREPARE q AS SELECT id, city FROM weather WHERE id = $1

EXECUTE q (1)

DEALLOCATE ALL

COPY weather (id, city) TO STDOUT

EXPLAIN (ANALYZE, COSTS OFF) UPDATE weather SET city = 'explained' WHERE id = 1

EXPLAIN (ANALYZE FALSE) DELETE FROM weather

EXPLAIN VERBOSE SELECT id, city FROM weather

SELECT id, city FROM weather; UPDATE weather SET city = 'second of two' WHERE id = 2; SELECT id, city FROM weather

UPDATE weather SET city = 'undone' WHERE id = 2; SELECT 1/0

UPDATE weather SET city = 'syntax' WHERE id = 2; SELEC

SELECT id, city INTO kept FROM weather

CREATE TABLE kept2 AS SELECT id, city FROM weather

CREATE TEMP TABLE weather AS SELECT id, 'temporary' AS city FROM public.weather

SELECT id, city FROM weather

UPDATE weather SET city = 'shadow' WHERE id = 1

SELECT id, city FROM public.weather

UPDATE public.weather SET city = 'real' WHERE id = 1

DROP TABLE pg_temp.weather

UPDATE weather SET city = 'real again' WHERE id = 1

CREATE VIEW dry AS SELECT id, city FROM weather WHERE prcp IS NULL

UPDATE dry SET city = 'through a view' WHERE id = 1

SELECT id, city FROM dry

DROP VIEW dry

ALTER TABLE weather ADD COLUMN humidity int

UPDATE weather SET humidity = 3

SELECT * FROM weather

ALTER TABLE weather ALTER COLUMN city TYPE text

UPDATE weather SET city = 'as text' WHERE id = 1

SELECT * FROM weather

ALTER TABLE weather DROP COLUMN humidity

SET search_path = elsewhere

SELECT id, city FROM weather

UPDATE weather SET city = 'elsewhere' WHERE id = 1

UPDATE public.weather SET city = 'by its schema' WHERE id = 1

SET search_path TO DEFAULT

UPDATE weather SET city = 'by default' WHERE id = 1

BEGIN; SET LOCAL search_path = elsewhere; UPDATE weather SET city = 'local' WHERE id = 1; COMMIT

SELECT set_config('search_path', 'elsewhere, public', false)

UPDATE weather SET city = 'whose' WHERE id = 1

RESET search_path

SET standard_conforming_strings = off

UPDATE weather SET city = 'a\'b' WHERE id = 1

UPDATE weather SET city = 'c\\d' WHERE id = 2

RESET standard_conforming_strings

SELECT id, city FROM weather

DO $$ BEGIN PERFORM 1; END $$

SELECT id, city, pg_advisory_lock(1) FROM weather

SELECT pg_advisory_unlock(1)

SELECT id, city FROM weather WHERE random() < 2

SELECT id, city FROM weather WHERE now() > '2000-01-01'

NOTIFY weather, 'x'

SHOW search_path

DISCARD ALL

TRUNCATE log

TRUNCATE weather, log RESTART IDENTITY

INSERT INTO weather (id, city) SELECT n, 'city ' || n FROM generate_series(1, 9) AS n RETURNING id, city

SELECT * FROM accounts

SELECT owner, kind, balance, note FROM accounts WHERE owner = 'ann'

SELECT balance, note FROM accounts WHERE owner = 'ann' AND kind = 1

SELECT balance FROM accounts WHERE owner = 'ann' AND kind = 1

SELECT balance, note FROM accounts WHERE (owner, kind) = ('ann', 1)

UPDATE accounts SET balance = balance - 100 WHERE owner = 'ann' AND kind = 1

UPDATE accounts SET balance = 5.5 WHERE owner = 'ann' AND kind = 1

SELECT * FROM accounts

UPDATE accounts SET note = 'noted' WHERE owner = 'ann' AND kind = 1

UPDATE accounts SET note = NULL WHERE kind = 1 AND owner = 'ann'

UPDATE accounts SET note = 'both', balance = 1 WHERE owner = 'bob' AND kind IN (1, 2)

UPDATE accounts SET note = 'one of them' WHERE owner = 'bob'

UPDATE accounts SET kind = 9 WHERE owner = 'bob' AND kind = 2

DELETE FROM accounts WHERE owner = 'bob' AND kind = 9

BEGIN; UPDATE accounts SET balance = balance - 1 WHERE owner = 'ann' AND kind = 1;
    UPDATE accounts SET balance = balance + 1 WHERE owner = 'a:b' AND kind = 1; COMMIT

INSERT INTO accounts VALUES ('new', 1, 3.50, 'x') ON CONFLICT (kind, owner) DO UPDATE SET note = accounts.note || 'y'

INSERT INTO accounts VALUES ('new', 1, 3.50, 'x') ON CONFLICT (kind, owner) DO UPDATE SET note = accounts.note || 'y'

SELECT * FROM accounts

SELECT * FROM measurement

UPDATE measurement SET value = 7 WHERE id = 1

UPDATE measurement SET day = '2006-03-05' WHERE id = 1

UPDATE measurement_y2006m02 SET value = 8 WHERE id = 2

INSERT INTO measurement VALUES (9, '2006-02-09', 90), (10, '2006-03-09', 100)

SELECT id, day, value FROM measurement WHERE day >= '2006-03-01'

DELETE FROM measurement WHERE day < '2006-02-05'

TRUNCATE measurement_y2006m03

SELECT * FROM measurement
