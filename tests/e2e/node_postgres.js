// Uses the features of node-postgres over one connection and prints each result as a line of JSON.
const { Client } = require("pg");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");
const QueryStream = require("pg-query-stream");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");

const say = (...facts) => console.log(JSON.stringify(facts));

async function main() {
  const client = new Client({ connectionString: process.argv[2] });
  const notices = [];
  client.on("notice", (notice) => notices.push(notice.message));
  await client.connect();
  say((await client.query("SELECT id, name FROM users ORDER BY id")).rows);
  say((await client.query("SELECT name FROM users WHERE id = $1", [1])).rows);
  for (let turn = 0; turn < 3; turn++)
    say((await client.query({ name: "by id", text: "SELECT name FROM users WHERE id = $1", values: [2] })).rows);
  say((await client.query("UPDATE users SET name = $2 WHERE id = $1 RETURNING id, name", [3, "node"])).rows);
  say((await client.query("SELECT 1 AS one; SELECT 'two' AS two")).map((result) => result.rows));
  say((await client.query({ text: "SELECT id FROM users ORDER BY id", rowMode: "array" })).rows);
  say((await client.query("SELECT $1::bytea AS data", [Buffer.from([0, 1, 254, 255])])).rows[0].data.toString("hex"));
  say((await client.query("SELECT length($1) AS length", ["x".repeat(1000000)])).rows);
  say((await client.query("SELECT repeat('y', 1000000) AS y")).rows[0].y.length);
  for (const [text, values] of [["SELECT 1/0"], ["SELECT nowhere"], ["SELECT $1::int", ["no number"]]])
    await client.query(text, values).catch((error) => say(error.code, error.message));
  await client.query("BEGIN");
  await client.query("UPDATE users SET name = 'never' WHERE id = 1");
  await client.query("SELECT 1/0").catch((error) => say(error.code));
  await client.query("SELECT 1").catch((error) => say(error.code));
  await client.query("ROLLBACK");
  say((await client.query("SELECT name FROM users WHERE id = 1")).rows);
  const rows = [];
  for await (const row of client.query(new QueryStream("SELECT n FROM generate_series(1, 250) AS n", [], { batchSize: 100 })))
    rows.push(row.n);
  say(rows.length, rows.at(-1));
  await pipeline(Readable.from(["10\tten\n", "11\televen\n"]), client.query(copyFrom("COPY users FROM STDIN")));
  let copied = "";
  for await (const chunk of client.query(copyTo("COPY (SELECT * FROM users ORDER BY id) TO STDOUT"))) copied += chunk;
  say(copied);
  const heard = new Promise((resolve) => client.on("notification", resolve));
  await client.query("LISTEN news");
  await client.query("NOTIFY news, 'from node'");
  say((await heard).payload);
  await client.query("DO $$BEGIN RAISE NOTICE 'noticed'; END$$");
  say(notices);
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
