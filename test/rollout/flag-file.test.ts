import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFlagFile } from '../../src/rollout/flag-file.js';
import { runCli } from '../support/cli.js';
import { postExchange } from '../support/tokens.js';
import { createWorld, type World } from '../support/world.js';

let world: World;
let turn = 0;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(async () => await world.close());

const stage = (version: number, members: object) => ({
  flags: {
    'auth-migration-stage': {
      key: 'auth-migration-stage',
      version,
      on: true,
      variations: ['session-only', 'dual'],
      offVariation: 0,
      salt: 's',
      fallthrough: { variation: 0 },
      rules: [],
      ...members,
    },
  },
});

function replace(text: string): void {
  writeFileSync(join(world.directory, 'flags.json.new'), text);
  renameSync(join(world.directory, 'flags.json.new'), join(world.directory, 'flags.json'));
}

/** The number makes every file another one, so that there is a change to wait for. */
async function move(file: { flags?: object; flagValues?: Record<string, unknown> }): Promise<void> {
  turn += 1;
  const from = world.log.all.length;
  replace(JSON.stringify({ ...file, flagValues: { ...file.flagValues, turn } }));
  await world.log.until((line) => line['audit'] === 'flags.changed', from);
}

const isOpen = async (cookie: string) => (await world.exchange(cookie)).status === 200;

describe('flags from a file', () => {
  it('target a tenant, a client, a cohort and a share of people with the real engine', async () => {
    const [alice, carol] = [await world.login('alice'), await world.login('carol')];
    const rule = (contextKind: string, attribute: string, values: string[]) => ({
      rules: [{ id: 'r', variation: 1, clauses: [{ contextKind, attribute, op: 'in', values }] }],
    });
    await move(stage(2, rule('tenant', 'key', ['acme'])));
    expect([await isOpen(alice), await isOpen(carol)]).toEqual([true, false]);
    await move(stage(3, rule('client', 'key', ['web'])));
    expect([await isOpen(alice), await isOpen(carol)]).toEqual([true, true]);
    await move(stage(4, rule('client', 'key', ['ios'])));
    expect([await isOpen(alice), await isOpen(carol)]).toEqual([false, false]);
    await move(stage(5, rule('user', 'key', ['u-alice'])));
    expect(await isOpen(alice), 'the flag source sees a pseudonym').toBe(false);
  });

  it('nobody who is in falls out while the share grows', async () => {
    const cookies = await Promise.all(Array.from({ length: 60 }, (_, n) => world.login(`person-${n}`)));
    let inside = new Set<number>();
    for (const weight of [10_000, 40_000, 100_000]) {
      const rollout = {
        contextKind: 'user',
        variations: [
          { variation: 0, weight: 100_000 - weight },
          { variation: 1, weight },
        ],
      };
      await move(stage(10 + weight, { fallthrough: { rollout } }));
      const now = new Set<number>();
      for (const [n, cookie] of cookies.entries()) if (await isOpen(cookie)) now.add(n);
      expect([...inside].filter((n) => !now.has(n))).toEqual([]);
      inside = now;
    }
    expect(inside.size).toBe(60);
  });

  it('looks into the flags that it asks for and what these need only, however many others stand there, and skips a byte order mark', async () => {
    const cookie = await world.login('alice');
    const others = Object.fromEntries(
      Array.from({ length: 3000 }, (_, n) => [
        `other-${n}`,
        { key: `other-${n}`, version: 1, rules: 'of no use here', prerequisites: [{ key: 'other-0' }] },
      ]),
    );
    const needed = { needed: { key: 'needed', version: 1, on: true, variations: [true], fallthrough: { variation: 0 }, offVariation: 0, salt: 's' } };
    const { flags } = stage(200_000, { prerequisites: [{ key: 'needed', variation: 0 }], fallthrough: { variation: 1 } });
    const path = join(world.directory, 'many.json');
    writeFileSync(path, `\ufeff${JSON.stringify({ flags: { ...others, ...needed, ...flags } })}`);
    const file = await readFlagFile(path, ['auth-migration-stage', 'auth-migration-kill-switch']);
    expect([...file.flags.keys()].sort()).toEqual(['auth-migration-stage', 'needed']);
    expect(file.count).toBe(3002);
    await move({ flags: { ...others, ...needed, ...flags } });
    expect(await isOpen(cookie)).toBe(true);
    // LaunchDarkly turns a flag off when somebody archives it.
    await move(stage(200_001, { fallthrough: { variation: 1 } }));
    expect(await isOpen(cookie)).toBe(true);
    await move(stage(200_002, { fallthrough: { variation: 1 }, archived: true }));
    expect(await isOpen(cookie)).toBe(false);
  });

  it('a chain of prerequisites that is too long is told, and a file that has lost its flags is worth a line', async () => {
    const path = join(world.directory, 'chain.json');
    const flag = (key: string, next: string) => ({
      key,
      version: 1,
      on: true,
      variations: [true],
      salt: 's',
      prerequisites: [{ key: next, variation: 0 }],
    });
    writeFileSync(path, JSON.stringify({ flags: Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`f${n}`, flag(`f${n}`, `f${n + 1}`)])) }));
    await expect(readFlagFile(path, ['f0'])).rejects.toThrow(/chain of more than 64/);
    await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    const from = world.log.all.length;
    replace('{}');
    expect(await world.log.until((line) => String(line['msg']).startsWith('the flags file has lost flags'), from)).toMatchObject({
      flags: ['auth-migration-stage'],
    });
  });

  it('a broken file, and one that is gone, leave the last flags in force, and are told', async () => {
    const cookie = await world.login('alice');
    await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    const from = world.log.all.length;
    replace('{"flagValues": {"auth-migr');
    expect(await world.log.until((line) => line['audit'] === 'flags.failed', from)).toMatchObject({
      reason: expect.stringContaining('is not JSON, or cut off'),
    });
    expect(await isOpen(cookie)).toBe(true);
    expect(await world.metrics()).toContain('crossfade_flags_up 0');
    const config = join(world.directory, 'crossfade.json');
    writeFileSync(config, JSON.stringify(world.config));
    await expect
      .poll(async () => (await runCli(['status', '--config', config])).stdout.replaceAll(/\s+/g, ' '), { timeout: 15_000 })
      .toMatch(/the flags file is broken: \S*flags\.json is not JSON, or cut off; the last known flags are in force/);
    // Whoever starts now, and whoever asks, goes by what the fleet goes by.
    const late = await world.another();
    expect((await postExchange(late, await world.login('bob'))).status).toBe(200);
    const explained = (await runCli(['explain', '--config', config, '--subject', 'u-alice', '--client', 'android'])).stdout;
    expect(explained).toMatch(/^flag +auth-migration-stage → "dual"/m);
    expect(explained).toMatch(/^held by +flag source: the flags file is broken: .*; the last known flags are in force/m);
    expect(explained).toContain('stage        dual, by flag');
    rmSync(join(world.directory, 'flags.json'));
    await world.log.until((line) => line['audit'] === 'flags.failed' && String(line['reason']).includes('cannot be read'), from);
    expect(await isOpen(cookie)).toBe(true);
    await move({ flagValues: { 'auth-migration-stage': 'session-only' } });
    expect(await isOpen(cookie)).toBe(false);
    expect(await world.metrics()).toContain('crossfade_flags_up 1');
  });

  it('L1: a flag that could not be evaluated leaves the last one in force, and the message names it', async () => {
    const cookie = await world.login('alice');
    await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    for (const members of [
      { fallthrough: null },
      { fallthrough: { variation: 9 } },
      { rules: 5 },
      { targets: [{ values: 'u', variation: 0 }] },
      { fallthrough: { rollout: { variations: [] } } },
    ]) {
      const from = world.log.all.length;
      replace(JSON.stringify(stage(99, members)));
      expect(await world.log.until((line) => line['audit'] === 'flags.failed', from)).toMatchObject({
        reason: expect.stringContaining('flags.auth-migration-stage'),
      });
      expect(await isOpen(cookie)).toBe(true);
      await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    }
  });

  it('L3: an unknown stage, or a value of another type, is the default stage, named in the log once', async () => {
    for (const value of ['jwt-mostly', 7, null, { a: 1 }]) {
      const from = world.log.all.length;
      await move({ flagValues: { 'auth-migration-stage': value } });
      const people = [await world.login('alice'), await world.login('bob')];
      for (const cookie of people) {
        const body: unknown = await (await world.exchange(cookie)).json();
        expect(body).toMatchObject({ error: 'unauthorized_client', stage: 'session-only', reason: 'default' });
      }
      const told = world.log.all.slice(from).filter((line) => line['flag'] === 'auth-migration-stage');
      expect(told.length).toBe(value === null ? 0 : 1);
    }
    const config = join(world.directory, 'crossfade.json');
    writeFileSync(config, JSON.stringify(world.config));
    await expect
      .poll(async () => (await runCli(['status', '--config', config])).stdout.replaceAll(/\s+/g, ' '), { timeout: 15_000 })
      .toContain('the flag auth-migration-stage is "object" for somebody, which means nothing here: the default stands');
  });

  it('a flag that left the file is gone', async () => {
    const cookie = await world.login('alice');
    await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    expect(await isOpen(cookie)).toBe(true);
    await move({ flagValues: {} });
    expect(await isOpen(cookie)).toBe(false);
    await move({ flagValues: { 'auth-migration-stage': 'dual' } });
    expect(await isOpen(cookie)).toBe(true);
  });

  it('the same client, tenant and subject are evaluated once until flags change', async () => {
    const cookie = await world.login('alice');
    const count = async () => Number(/crossfade_flag_evaluations_total (\d+)/.exec(await world.metrics())?.[1]);
    await isOpen(cookie);
    const before = await count();
    for (let n = 0; n < 20; n++) await isOpen(cookie);
    expect(await count()).toBe(before);
    // Another flag has changed: nothing that is asked for.
    await move({ flagValues: { 'auth-migration-stage': 'dual', other: true } });
    await isOpen(cookie);
    expect(await count()).toBe(before);
    await move({ flagValues: { 'auth-migration-stage': 'jwt-preferred' } });
    await isOpen(cookie);
    expect(await count()).toBe(before + 1);
  });
});
