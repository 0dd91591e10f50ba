import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Sample } from '../../scripts/benchmark/measure.js';
import { type Findings, keyOf, linesOf, noiseOf, toMarkdown } from '../../scripts/benchmark/report.js';

const SCRIPT = fileURLToPath(new URL('../../scripts/benchmark/main.ts', import.meta.url));
const run = promisify(execFile);

const written = z.object({
  machine: z.object({ node: z.string(), cores: z.number() }),
  rows: z.array(z.object({ title: z.string(), ratio: z.number(), perSecond: z.number(), cpuMicros: z.number() })),
  skipped: z.record(z.string(), z.string()),
});

describe('scripts/bench', () => {
  it('measures a row against a bare Koa, writes JSON and Markdown, and ends with 0', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-bench-test-'));
    try {
      const args = ['--import', 'tsx', SCRIPT, '--only', 'anonymous', '--rounds', '1', '--seconds', '1', '--out', directory];
      const { stdout, stderr } = await run(process.execPath, args);
      expect(stderr).toContain('round 1 of 1');
      expect(stdout).toMatch(/^anonymous +\d\.\d\d/m);
      const { rows, skipped, machine } = written.parse(JSON.parse(readFileSync(join(directory, 'bench.json'), 'utf8')));
      expect(machine.node).toBe(process.version);
      expect(skipped).toEqual({});
      const [row] = rows;
      expect([rows.length, row?.title]).toEqual([1, 'anonymous']);
      for (const figure of [row?.ratio, row?.perSecond, row?.cpuMicros]) expect(figure).toBeGreaterThan(0);
      expect(readFileSync(join(directory, 'bench.md'), 'utf8')).toContain('| anonymous |');
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }, 120_000);
});

describe('the report of scripts/bench', () => {
  const sampleOf = (perSecond: number): Sample => ({ perSecond, cpuMicros: 1e6 / perSecond, commandsPerRequest: 0, p50Ms: 1, p99Ms: 2 });
  const findings = (bare: readonly number[], bridge: readonly number[]): Findings => ({
    samples: new Map([
      [keyOf({ app: 'bare', workload: 'anonymous' }), bare.map(sampleOf)],
      [keyOf({ app: 'bridge', workload: 'anonymous' }), bridge.map(sampleOf)],
    ]),
    skipped: new Map([['HAProxy jwt_verify | bearer, 1,000 tokens, RS256', 'haproxy is needed']]),
    facts: [],
  });
  const machine = { node: 'v20', cpu: 'x', cores: 2, memoryGib: 1, system: 'linux', pinned: true, revision: 'abc', date: '2026-01-01' };

  it('divides round by round: what slows the machine down for a while slows both', () => {
    const [line] = linesOf(findings([1000, 100, 1000], [990, 99, 990]));
    expect(line?.ratio).toBeCloseTo(0.99);
    expect(line?.isMissed).toBe(false);
  });

  it('says what was missed, what was skipped, and that the machine was too noisy for its own figures', () => {
    const found = findings([1000, 500, 1500], [100, 50, 150]);
    expect(linesOf(found)[0]).toMatchObject({ ratio: 0.1, isMissed: true, goals: ['≥ 0.97'] });
    expect(noiseOf(found)).toBeGreaterThan(0.1);
    const page = toMarkdown(found, machine, 'x');
    expect(page).toContain('≥ 0.97 **missed**');
    expect(page).toContain('too noisy');
    expect(page).toContain('Skipped: HAProxy jwt_verify | bearer, 1,000 tokens, RS256: haproxy is needed.');
  });
});
