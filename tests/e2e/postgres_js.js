// Uses the features of postgres.js over one connection, which it pipelines, and prints each result as a line of JSON.
// Its statement names are random; they must be the same in every run.
Math.random = () => 0.4711;
const postgres = require("postgres");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");

const say = (...facts) => console.log(JSON.stringify(facts));

async function main() {
  const notices = [];
  const sql = postgres(process.argv[2], { max: 1, onnotice: (notice) => notices.push(notice.message) });
  say(await sql`SELECT id, name FROM users ORDER BY id`);
  for (let turn = 0; turn < 3; turn++) say(await sql`SELECT name FROM users WHERE id = ${2}`);
  say(await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((number) => sql`SELECT ${number}::int * 2 AS doubled`)));
  say(await sql`UPDATE users SET name = ${"postgres.js"} WHERE id = ${3} RETURNING id, name`);
  say(await sql`INSERT INTO users ${sql([{ id: 20, name: "twenty" }, { id: 21, name: "twenty-one" }])}`);
  say(await sql.unsafe("SELECT 1 AS one; SELECT 'two' AS two"));
  say((await sql`SELECT ${Buffer.from([0, 1, 254, 255])}::bytea AS data`)[0].data.toString("hex"));
  say(await sql`SELECT length(${"x".repeat(1000000)}) AS length`);
  await sql`SELECT 1/0`.catch((error) => say(error.code, error.message));
  await sql`SELECT nowhere`.catch((error) => say(error.code, error.message));
  await sql
    .begin(async (block) => {
      await block`UPDATE users SET name = 'never' WHERE id = 1`;
      await block.savepoint((inner) => inner`SELECT 1/0`).catch((error) => say(error.code));
      throw new Error("rolled back");
    })
    .catch((error) => say(error.message));
  say(await sql`SELECT name FROM users WHERE id = 1`);
  const batches = [];
  await sql`SELECT n FROM generate_series(1, 250) AS n`.cursor(100, (rows) => void batches.push(rows.length));
  say(batches);
  await pipeline(Readable.from(["10\tten\n", "11\televen\n"]), await sql`COPY users FROM STDIN`.writable());
  let copied = "";
  for await (const chunk of await sql`COPY (SELECT * FROM users ORDER BY id) TO STDOUT`.readable()) copied += chunk;
  say(copied);
  const running = sql`SELECT pg_sleep(20)`;
  setTimeout(() => running.cancel(), 300);
  await running.catch((error) => say(error.code));
  say(await sql.notify("news", "no listener"));
  await sql`DO $$BEGIN RAISE NOTICE 'noticed'; END$$`.simple();
  say(notices);
  await sql.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
