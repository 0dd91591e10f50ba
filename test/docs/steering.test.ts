import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { CliResult } from '../../scripts/lib/cli-process.js';
import { MISMATCHES } from '../../src/rollout/comparison.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { runCli } from '../support/cli.js';
import { ofFleetOf, type Service, startService } from '../support/serve.js';
import { exchangeNative } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { createWorld, type World } from '../support/world.js';

const read = (page: string) => readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8');

let world: World;
let service: Service;
beforeAll(async () => {
  world = await createWorld({
    configure: (config) => ({
      ...config,
      keys: { ...config.keys, selfTestSeconds: 1, publishSeconds: 2 },
      rollout: { ...config.rollout, cohorts: [{ name: 'pilot', client: 'web', tenants: ['acme'] }] },
    }),
  });
  service = await startService(world, ofFleetOf(world));
  copyFileSync(service.configFile, join(world.directory, 'crossfade.yaml'));
  await exchangeNative(world, await world.login('alice'));
}, 60_000);
afterAll(async () => {
  await service.stop();
  await world.close();
});

/** The commands of a page's blocks, as a shell would split them. */
function commandsOf(page: string): string[][] {
  const blocks = [...read(page).matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block ?? '');
  const lines = blocks.flatMap((block) => block.split('\n').filter((line) => line.startsWith('crossfade ')));
  return lines.map((line) => [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '').slice(1));
}

async function run(args: readonly string[]): Promise<CliResult> {
  const result = await runCli(args, world.directory);
  remember(...result.stdout.split('\n').filter((line) => /^[A-Za-z0-9+/=]{40,}$/.test(line)));
  return result;
}

/** What is refused here for the reason that the page gives: nothing is stuck, and nothing is old enough. */
const REFUSED: Readonly<Record<string, string>> = {
  'keys rotate --force': 'no key is waiting for an instance',
  'keys retire': 'may live for another',
  'release --instance': 'no live instance is called HOST',
};

it.each(['rollout.md', 'runbook.md', 'keys.md'])(
  'every command of docs/%s can be pasted',
  async (page) => {
    const commands = commandsOf(page);
    expect(commands.length).toBeGreaterThan(3);
    for (const command of commands) {
      const kid = command.includes('KID') ? await retiringKid() : '';
      const line = command.join(' ');
      const { status, stderr } = await run(command.map((word) => (word === 'KID' ? kid : word)));
      const refusal = Object.entries(REFUSED).find(([start]) => line.startsWith(start))?.[1];
      if (refusal) expect(stderr, line).toContain(refusal);
      // Nobody is called as on the pages.
      else expect([line, status, stderr]).toEqual([line, line.startsWith('end --subject') ? 4 : 0, '']);
    }
  },
  120_000,
);

/** The key that was rotated away. */
async function retiringKid(): Promise<string> {
  const kid = async () => {
    const listed: { kid: string; phase: string }[] = JSON.parse((await run(['keys', 'list', '--json'])).stdout);
    return listed.find(({ phase }) => phase === 'retiring')?.kid ?? '';
  };
  await expect.poll(kid, { timeout: 20_000, interval: 500 }).not.toBe('');
  return (await kid()).slice(0, 8);
}

it('docs/rollout.md lists every code of a mismatch', () => {
  const rows = [...read('rollout.md').matchAll(/^\| `([a-z-]+)` \| (.+) \|$/gm)].map(([, code, meaning]) => [code, meaning]);
  const listed = rows.filter(([code]) => code !== undefined && Object.hasOwn(MISMATCHES, code));
  expect(listed).toEqual(Object.entries(MISMATCHES));
});

it('docs/runbook.md has a section for each metric that docs/operations.md says to watch, and names none that is not there', async () => {
  const named = (page: string) => new Set([...read(page).matchAll(/crossfade_[a-z_]+/g)].map(([name]) => name.replace(/_(bucket|count|sum)$/, '')));
  const watched = [...named('operations.md')];
  const known = new Set(
    createMetrics()
      .registry.getMetricsAsArray()
      .map(({ name }) => name),
  );
  for (const page of ['runbook.md', 'operations.md', 'rollout.md', 'keys.md'])
    for (const name of named(page)) expect(known, `${page}: ${name}`).toContain(name);
  const told = new Set([
    'crossfade_record_news_total',
    'crossfade_late_writes_refused_total',
    'crossfade_watched_records',
    'crossfade_events_restored_total',
    'crossfade_remembered_tokens',
    'crossfade_token_signatures_total',
  ]);
  for (const name of watched.filter((one) => !told.has(one))) expect(named('runbook.md'), name).toContain(name);
});
