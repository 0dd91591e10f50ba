import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ClientConfig } from '../../src/config/config.js';
import { type Forecast, forecast } from '../../src/console/forecast.js';
import { createProgress, type Progress, readProgress } from '../../src/rollout/progress.js';
import type { Stage } from '../../src/stages.js';
import { sharedRedisUrl } from '../support/world.js';

const ANDROID: ClientConfig = {
  id: 'android',
  type: 'public',
  origins: [],
  refreshTransport: 'body',
  exchanges: true,
  wayBack: true,
  introspect: false,
  issue: false,
};
const NOON = Date.parse('2026-11-30T12:00:00Z');

let redis: Redis;
let prefix: string;
let progress: Progress;
let nowMs: number;
beforeEach(async () => {
  redis = new Redis(sharedRedisUrl());
  await new Promise((resolve) => redis.once('ready', resolve));
  prefix = `crossfade-test-${randomUUID()}:v1:`;
  nowMs = NOON;
  progress = createProgress({ client: redis, prefix, clock: { now: () => nowMs } });
});
afterEach(async () => {
  const keys = await redis.keys(`${prefix}*`);
  if (keys.length > 0) await redis.del(...keys);
  redis.disconnect();
});

const persons = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => `person-${from + n}`);

/** 120 requests a second for two minutes, by sessions of one version, half of them pages; and some who have a token already. */
async function come(version = '5.0.0', exchanges = true): Promise<void> {
  for (let slice = 0; slice < 24; slice++) {
    nowMs = NOON + slice * 5000;
    const of = { client: 'android', version, exchanges };
    progress.shaped({ ...of, via: 'session', isPage: false }, { cohort: 'android', requests: 300, pseudonyms: persons(0, 1000) });
    progress.shaped({ ...of, via: 'session', isPage: true }, { cohort: 'android', requests: 300, pseudonyms: persons(500, 1000) });
    progress.shaped({ ...of, via: 'jwt', isPage: false }, { cohort: 'android', requests: 100, pseudonyms: persons(900, 1100) });
    await progress.flush();
  }
  nowMs += 5000;
}

async function ahead(stage: Stage, nudgesPerSecond = 50): Promise<Forecast> {
  const config = { clients: [ANDROID], rollout: { cohorts: [], nudgesPerSecond } };
  const lastHour = await readProgress(redis, prefix, 'minute', 60, nowMs);
  return await forecast({ config, client: redis, prefix }, { cohort: 'android', stage, lastHour, nowMs });
}

const near = (value: number) => expect.closeTo(value, -Math.log10(2 * 0.03 * value));
const rowOf = ({ rows }: Forecast, answer: string) => rows.find((row) => row.answer === answer);

it('jwt-only: calls are told to exchange first, pages are served and nudged, tokens go on; who holds one counts by it', async () => {
  await come();
  const found = await ahead('jwt-only');
  expect(rowOf(found, 'exchange-first')).toEqual({
    answer: 'exchange-first',
    people: near(900),
    requests: 7200,
    requestsPerSecond: 60,
    versions: ['5.0.0'],
  });
  expect(rowOf(found, 'nudge')).toEqual({ answer: 'nudge', people: near(400), requests: 7200, requestsPerSecond: 60, versions: ['5.0.0'] });
  expect(rowOf(found, 'token')).toEqual({ answer: 'token', people: near(200), requests: 2400, requestsPerSecond: 20, versions: ['5.0.0'] });
  expect(found.moving).toEqual({ people: near(900), requests: 14_400, peakPerSecond: 120, limited: false, minutes: expect.any(Number) });
});

it('jwt-preferred: as many exchanges a second as there are nudges, and as long as that takes', async () => {
  await come();
  const free = await ahead('jwt-preferred', 1000);
  expect(free.moving).toMatchObject({ people: near(900), peakPerSecond: 120, limited: false });
  const limited = await ahead('jwt-preferred', 2);
  expect(limited.moving).toMatchObject({ peakPerSecond: 2, limited: true });
  // 900 people, 2 a second, until 95 % have.
  expect(limited.moving.minutes).toBeGreaterThan(6.5);
  expect(limited.moving.minutes).toBeLessThan(8);
  expect((await ahead('jwt-preferred', 0)).moving.minutes).toBeUndefined();
});

it('a version that cannot exchange stays on its session at every stage, and at dual nobody is told to move', async () => {
  await come('1.0.0', false);
  const found = await ahead('jwt-only');
  expect(rowOf(found, 'session')).toMatchObject({ people: near(900), requests: 14400, requestsPerSecond: 120, versions: ['1.0.0'] });
  expect(rowOf(found, 'exchange-first')).toBeUndefined();
  expect(found.moving).toEqual({ people: 0, requests: 0, peakPerSecond: 0, limited: false });
  expect((await ahead('dual')).moving.people).toBe(0);
});

it('nobody came: nothing is told', async () => {
  const found = await ahead('jwt-only');
  expect(found.rows).toEqual([{ answer: 'unavailable', people: 0, requests: 0, requestsPerSecond: 0, versions: [] }]);
  expect(found.moving).toEqual({ people: 0, requests: 0, peakPerSecond: 0, limited: false });
});
