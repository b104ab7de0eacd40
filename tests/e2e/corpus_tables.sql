CREATE TABLE cities (name varchar(80) PRIMARY KEY, location point);
CREATE TABLE weather (id int PRIMARY KEY, city varchar(80) DEFAULT 'nowhere', temp_lo int, temp_hi int, prcp real, date date);
CREATE TABLE log (city text);
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.weather (id int PRIMARY KEY, city text);
CREATE TABLE accounts (owner text, kind int, balance numeric(10, 2), note text, PRIMARY KEY (owner, kind));
CREATE TABLE measurement (id int, day date, value int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE measurement_y2006m02 PARTITION OF measurement FOR VALUES FROM ('2006-02-01') TO ('2006-03-01');
CREATE TABLE measurement_y2006m03 PARTITION OF measurement FOR VALUES FROM ('2006-03-01') TO ('2006-04-01');
INSERT INTO cities VALUES ('San Francisco', '(-194.0,53.0)'), ('Oslo', '(10,59)');
INSERT INTO weather VALUES (1, 'San Francisco', 46, 50, 0.25, '1994-11-27'), (2, 'San Francisco', 43, 57, 0, '1994-11-29'),
    (3, 'Hayward', 37, 54, NULL, '1994-11-29'), (4, NULL, NULL, NULL, NULL, NULL), (5, 'Rome', 1, 2, 3, '2000-01-01');
INSERT INTO elsewhere.weather VALUES (1, 'another table'), (2, 'altogether');
INSERT INTO accounts VALUES ('ann', 1, 10, 'n'), ('ann', 2, 20, NULL), ('bob', 1, 30, ''), ('bob', 2, 40, 'm'), ('a:b', 1, 50, '%');
INSERT INTO measurement VALUES (1, '2006-02-01', 10), (2, '2006-02-07', 20), (3, '2006-03-01', 30);
