import { describeMachine, type Machine } from '../lib/machine.js';
import { canPin } from './cores.js';
import { median, type Sample, spread } from './measure.js';
import { type Measure, ROWS, type Row } from './rows.js';

/** What a run found: samples of each measure, round by round, and what could not be measured. */
export interface Findings {
  readonly samples: ReadonlyMap<string, readonly Sample[]>;
  readonly skipped: ReadonlyMap<string, string>;
  readonly facts: readonly Fact[];
}

/** A figure that is no share of another: memory, a time. */
export interface Fact {
  readonly title: string;
  readonly value: string;
  readonly isMissed?: boolean;
}

export interface Line {
  readonly group: string;
  readonly title: string;
  readonly perSecond: number;
  readonly ratio: number;
  readonly cpuMicros: number;
  readonly commandsPerRequest: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** What it should reach, in words. */
  readonly goals: readonly string[];
  readonly isMissed: boolean;
}

/** Beyond this the baseline itself was too unsteady for its ratios to mean much. */
const NOISY = 0.1;

export function keyOf({ app, workload }: Measure): string {
  return `${app} | ${workload}`;
}

/** Round by round against the baseline of the same round: what slows the machine down for a while slows both. */
function ratioOf(findings: Findings, one: Measure, other: Measure): number {
  const own = findings.samples.get(keyOf(one)) ?? [];
  const theirs = findings.samples.get(keyOf(other)) ?? [];
  return median(own.map(({ perSecond }, round) => perSecond / (theirs[round]?.perSecond ?? Number.NaN)));
}

function lineOf(findings: Findings, row: Row): Line | undefined {
  const own = findings.samples.get(keyOf(row));
  if (!own || own.length === 0) return undefined;
  const of = (pick: (sample: Sample) => number) => median(own.map(pick));
  const ratio = ratioOf(findings, row, row.baseline);
  const commandsPerRequest = of((one) => one.commandsPerRequest);
  const goals: string[] = [];
  let isMissed = false;
  if (row.goal !== undefined) {
    goals.push(`≥ ${row.goal}`);
    isMissed ||= ratio < row.goal;
  }
  if (row.times && findings.samples.has(keyOf(row.times.of))) {
    const times = ratioOf(findings, row, row.times.of);
    goals.push(`≥ ${row.times.least} × ${row.times.name}: ${times.toFixed(2)}`);
    isMissed ||= times < row.times.least;
  }
  if (row.commands !== undefined) {
    goals.push(`< ${row.commands} commands: ${commandsPerRequest.toFixed(3)}`);
    isMissed ||= commandsPerRequest >= row.commands;
  }
  return {
    group: row.group,
    title: row.title,
    perSecond: of((one) => one.perSecond),
    ratio,
    cpuMicros: of((one) => one.cpuMicros),
    commandsPerRequest,
    p50Ms: of((one) => one.p50Ms),
    p99Ms: of((one) => one.p99Ms),
    goals,
    isMissed,
  };
}

export function linesOf(findings: Findings): Line[] {
  return ROWS.flatMap((row) => lineOf(findings, row) ?? []);
}

/** Spread of the baselines: the widest of them. */
export function noiseOf({ samples }: Findings): number {
  const spreads = [...samples].filter(([key]) => key.startsWith('bare |')).map(([, all]) => spread(all.map(({ perSecond }) => perSecond)));
  return Math.max(...spreads);
}

/** In words. */
export function describeNoise(findings: Findings): string {
  const noise = noiseOf(findings);
  const rounds = Math.max(0, ...[...findings.samples.values()].map(({ length }) => length));
  if (!Number.isFinite(noise) || rounds < 3) return 'too few rounds of a bare Koa: how noisy the machine was is not known';
  return `spread of the baseline: ${percent(noise)}${noise > NOISY ? ': the machine was too noisy for figures that are close to each other' : ''}`;
}

export function toMarkdown(findings: Findings, machine: Machine, how: string): string {
  const groups = groupLines(linesOf(findings));
  const bare = [...findings.samples].filter(([key]) => key.startsWith('bare |'));
  return [
    `${how}; ${describeMachine(machine)}.`,
    `${canPin ? 'What is measured has one core, all else the other.' : 'NOT pinned to cores: taskset is not there.'} ${describeNoise(findings)}.`,
    '',
    '| bare Koa 3 | requests/s | CPU µs/request |',
    '| --- | ---: | ---: |',
    ...bare.map(
      ([key, all]) =>
        `| ${key.slice('bare | '.length)} | ${round(median(all.map((one) => one.perSecond)))} | ${median(all.map((one) => one.cpuMicros)).toFixed(1)} |`,
    ),
    '',
    ...[...groups].flatMap(([group, lines]) => [
      `| ${group} | ratio | goal | requests/s | CPU µs/request | Redis commands/request | p50 ms | p99 ms |`,
      '| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |',
      ...lines.map(
        (line) =>
          `| ${line.title} | ${line.ratio.toFixed(2)} | ${line.goals.join('; ')}${line.isMissed ? ' **missed**' : ''} | ${round(line.perSecond)} | ${line.cpuMicros.toFixed(1)} | ${line.commandsPerRequest.toFixed(3)} | ${line.p50Ms.toFixed(2)} | ${line.p99Ms.toFixed(2)} |`,
      ),
      '',
    ]),
    ...(findings.facts.length > 0
      ? [
          '| | |',
          '| --- | --- |',
          ...findings.facts.map(({ title, value, isMissed }) => `| ${title} | ${value}${isMissed ? ' **missed**' : ''} |`),
          '',
        ]
      : []),
    ...[...findings.skipped].map(([what, why]) => `Skipped: ${what}: ${why}.`),
  ].join('\n');
}

function groupLines(lines: readonly Line[]): Map<string, Line[]> {
  const groups = new Map<string, Line[]>();
  for (const line of lines) groups.set(line.group, [...(groups.get(line.group) ?? []), line]);
  return groups;
}

/** For a terminal. */
export function toTable(findings: Findings): string {
  const lines = linesOf(findings);
  const width = Math.max(...lines.map(({ title }) => title.length), 10);
  return [...groupLines(lines)]
    .flatMap(([group, ofGroup]) => [
      '',
      `${group.padEnd(width)}   ratio    req/s   µs CPU`,
      ...ofGroup.map(
        (line) =>
          `${line.title.padEnd(width)}   ${line.ratio.toFixed(2).padStart(5)} ${round(line.perSecond).padStart(8)} ${line.cpuMicros.toFixed(1).padStart(8)}   ${line.isMissed ? 'MISSED ' : ''}${line.goals.join('; ')}`,
      ),
    ])
    .join('\n');
}

function round(value: number): string {
  return Math.round(value).toLocaleString('en');
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
