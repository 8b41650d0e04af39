// Runs one computation in DuckDB. Standard input has it as JSON:
//   {database, temporary, threads, memory, timed: [{name, sql}], after: [sql]}
// Standard output gets {version, seconds, views: {name: seconds}, cpu_seconds, peak_mb}, which cover what is timed.
import { readFileSync } from 'node:fs';
import { DuckDBInstance, version } from '@duckdb/node-api';

const task = JSON.parse(readFileSync(0, 'utf8'));
const instance = await DuckDBInstance.create(task.database, {
  threads: String(task.threads),
  memory_limit: task.memory,
  temp_directory: task.temporary,
  preserve_insertion_order: 'false',
});
const connection = await instance.connect();
await connection.run("SET TimeZone = 'UTC'");

const out = { version: version(), views: {} };
const cpu = process.cpuUsage();
const began = performance.now();
for (const { name, sql } of task.timed) {
  const at = performance.now();
  await connection.run(sql);
  out.views[name] = (out.views[name] ?? 0) + (performance.now() - at) / 1000;
}
out.seconds = (performance.now() - began) / 1000;
const used = process.cpuUsage(cpu);
out.cpu_seconds = (used.user + used.system) / 1e6;
out.peak_mb = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
for (const sql of task.after) await connection.run(sql);
connection.closeSync();
instance.closeSync();
process.stdout.write(JSON.stringify(out) + '\n');
