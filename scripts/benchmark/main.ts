import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { readMachine } from '../lib/machine.js';
import { provide } from '../lib/programs.js';
import { Bed } from './bed.js';
import { growthFacts, soakFacts } from './facts.js';
import { type Sample, sample } from './measure.js';
import { installPeers } from './peers.js';
import { describeNoise, type Fact, type Findings, keyOf, linesOf, noiseOf, toMarkdown, toTable } from './report.js';
import { APP_SPECS, type AppId, type Measure, ROWS } from './rows.js';
import { measureSizes } from './size.js';

const options = new Command('scripts/bench')
  .description('Measures the bridge, its peers and a bare Koa in one run; everything is a ratio to the bare Koa. Loopback only.')
  .option('--quick', 'fewer rows and rounds: under 2 minutes')
  .option('--only <text>', 'only rows whose title holds this')
  .option('--rounds <n>', 'rounds of all variants, one after the other (5; --quick: 3)', Number)
  .option('--seconds <n>', 'seconds of each measure (2; --quick: 1)', Number)
  .option('--soak <minutes>', 'after that, one bridge under load for so long: memory and latency', Number)
  .option('--profile <directory>', 'writes a CPU profile of each bridge there; figures are worse for it')
  .option('--size <families>', 'instead: what so many families cost in Redis, for crossfade size', Number)
  .option('--out <directory>', 'where bench.json and bench.md go', 'bench-results')
  .parse()
  .opts<{ quick?: true; only?: string; rounds?: number; seconds?: number; soak?: number; profile?: string; size?: number; out: string }>();
const rounds = options.rounds ?? (options.quick ? 3 : 5);
const seconds = options.seconds ?? (options.quick ? 1 : 2);
const began = performance.now();

function say(what: string): void {
  const elapsed = Math.round((performance.now() - began) / 1000);
  process.stderr.write(`${String(elapsed).padStart(5)} s  ${what}\n`);
}

if (options.size !== undefined) {
  process.stdout.write(`${JSON.stringify(await measureSizes(options.size, say), null, 2)}\n`);
  process.exit(0);
}
try {
  provide('wrk');
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
const rows = ROWS.filter((row) => (options.quick ? row.quick : true) && (options.only === undefined || row.title.includes(options.only)));
const wanted = rows.flatMap((row): Measure[] => [row.baseline, row, ...(row.times ? [row.times.of] : [])]);
const measures = [...new Map(wanted.map((measure) => [keyOf(measure), { app: measure.app, workload: measure.workload }])).values()];
const skipped = new Map<string, string>();
const samples = new Map<string, Sample[]>();
const facts: Fact[] = [];

const bed = new Bed(say, (app: AppId) =>
  options.profile !== undefined && APP_SPECS[app].app.startsWith('bridge')
    ? ['--cpu-prof', `--cpu-prof-dir=${join(options.profile, app.replaceAll(' ', '-'))}`]
    : [],
);
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    void bed.close().then(() => process.exit(130));
  });

/** What cannot be measured is left out by name; what goes wrong in a later round counts no less. */
async function tryMeasure(measure: Measure, duration: number): Promise<Sample | undefined> {
  try {
    return await sample(bed, measure, duration);
  } catch (error) {
    skipped.set(keyOf(measure), error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error));
    return undefined;
  }
}

try {
  await installPeers(measures, say);
  say(`${measures.length} measures, ${rounds} rounds of ${seconds} s each; warming up`);
  for (const measure of measures) await tryMeasure(measure, 1);
  for (let round = 1; round <= rounds; round++) {
    say(`round ${round} of ${rounds}`);
    for (const measure of measures) {
      if (skipped.has(keyOf(measure))) continue;
      const found = await tryMeasure(measure, seconds);
      if (found) samples.set(keyOf(measure), [...(samples.get(keyOf(measure)) ?? []), found]);
    }
  }
  if (!options.quick && options.only === undefined) facts.push(...(await growthFacts(bed, say)));
  if (options.soak !== undefined) facts.push(...(await soakFacts(bed, options.soak, say)));
} finally {
  await bed.close();
}

for (const key of skipped.keys()) samples.delete(key);
const findings: Findings = { samples, skipped, facts };
const machine = readMachine();
const how = `\`scripts/bench${options.quick ? ' --quick' : ''}\`, ${rounds} rounds of ${seconds} s, medians`;
mkdirSync(options.out, { recursive: true });
writeFileSync(join(options.out, 'bench.md'), `${toMarkdown(findings, machine, how)}\n`);
writeFileSync(
  join(options.out, 'bench.json'),
  `${JSON.stringify({ machine, rounds, seconds, noise: noiseOf(findings), rows: linesOf(findings), facts, skipped: Object.fromEntries(skipped), samples: Object.fromEntries(samples) }, null, 1)}\n`,
);
if (options.profile !== undefined) keepLargest(options.profile);

process.stdout.write(`${toTable(findings)}\n\n`);
for (const { title, value, isMissed } of facts) process.stdout.write(`${title}: ${value}${isMissed ? '  MISSED' : ''}\n`);
for (const [what, why] of skipped) process.stdout.write(`skipped: ${what}: ${why}\n`);
process.stdout.write(`${describeNoise(findings)}\n`);
process.stdout.write(`${options.out}/bench.md, ${options.out}/bench.json\n`);

/** A process leaves a profile of each of its threads; the one that worked is the largest. */
function keepLargest(directory: string): void {
  for (const app of readdirSync(directory)) {
    const files = readdirSync(join(directory, app)).map((name) => join(directory, app, name));
    const [, ...others] = files.sort((one, other) => statSync(other).size - statSync(one).size);
    for (const file of others) rmSync(file);
  }
}
