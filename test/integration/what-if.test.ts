import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { createCookieApp, createLibraryApp } from '../../scripts/rehearsal/apps.js';
import { openPlace, type Place } from '../../scripts/rehearsal/place.js';
import { createRandom } from '../../scripts/rehearsal/random.js';
import { stageFlag } from '../../scripts/rehearsal/script.js';

let place: Place;
beforeAll(async () => {
  place = await openPlace();
}, 120_000);
afterAll(async () => await place.close());

/** Clients of the drill: two thirds of them can exchange, a fifth of all is a kiosk that knows only its cookie. */
const PEOPLE = 120;
const THINK_MS = 1000;
/** So long they come with their sessions before anybody asks. */
const BEFORE_MS = 60_000;
const AFTER_MS = 30_000;
const VERSIONS = ['4.2.0', '4.1.0', '3.9.0'] as const;

interface Seen {
  readonly at: number;
  readonly person: number;
  readonly version: string;
  readonly answer: 'token' | 'session' | 'exchange-first' | 'exchanged' | 'other' | 'unavailable';
}

const forecastSchema = z.object({
  rows: z.array(z.object({ answer: z.string(), people: z.number(), requestsPerSecond: z.number(), versions: z.array(z.string()) })),
  moving: z.object({ people: z.number(), peakPerSecond: z.number(), minutes: z.number() }),
});

/** Within a tenth. */
function expectNear(actual: number, forecast: number, what: string): void {
  expect(Math.abs(actual - forecast), `${what}: forecast ${forecast}, then ${actual}`).toBeLessThanOrEqual(Math.max(actual, forecast) * 0.1);
}

it('what-if tells what then happens in the drill, within a tenth: who, how many requests, how many exchanges', async () => {
  const random = createRandom(14);
  const seen: Seen[] = [];
  let stopped = false;
  place.launchDarkly.send(stageFlag('session-only'));
  const lives = Array.from({ length: PEOPLE }, async (_, person) => {
    const cookie = { value: await place.legacy.login(`person-${person}`) };
    const version = person % 5 === 4 ? 'kiosk' : (VERSIONS[person % 3] ?? '4.2.0');
    const watched: typeof fetch = async (input, init) => {
      const request = new Request(input, init);
      const at = Date.now();
      const answer = await fetch(request);
      const isExchange = new URL(request.url).pathname === '/auth/token';
      seen.push({
        at,
        person,
        version,
        answer:
          answer.status >= 500
            ? 'unavailable'
            : isExchange
              ? answer.ok
                ? 'exchanged'
                : 'other'
              : answer.ok
                ? request.headers.has('authorization')
                  ? 'token'
                  : 'session'
                : answer.status === 401 && /exchange=/.test(answer.headers.get('auth-migration') ?? '')
                  ? 'exchange-first'
                  : 'other',
      });
      return answer;
    };
    const create = version === 'kiosk' ? createCookieApp : createLibraryApp;
    const app = create({ url: place.url, version: version === 'kiosk' ? '2.1' : version, cookie, fetch: watched });
    // By the clock, and not so long after each answer: a busy machine must not change how often they come.
    for (let next = Date.now() + THINK_MS * random.next(); !stopped; next += THINK_MS) {
      await sleep(Math.max(0, next - Date.now()));
      await app.ask().catch(() => undefined);
    }
  });
  await sleep(BEFORE_MS);
  const [bridge] = place.bridges;
  const told = (await bridge?.run('what-if', '--cohort', 'app', '--stage', 'jwt-only', '--json')) ?? '';
  const forecast = forecastSchema.parse(JSON.parse(told));
  const flippedAt = Date.now();
  place.launchDarkly.send(stageFlag('jwt-only'));
  await sleep(AFTER_MS);
  stopped = true;
  await Promise.all(lives);

  // A busy machine may answer 503, which is tried again.
  const after = seen.filter(({ at, version, answer }) => at >= flippedAt && version !== 'kiosk' && answer !== 'unavailable');
  const peopleOf = (...answers: Seen['answer'][]) => new Set(after.filter(({ answer }) => answers.includes(answer)).map(({ person }) => person)).size;
  const perSecond = (of: readonly Seen[]) => of.length / (AFTER_MS / 1000);
  const row = (answer: string) => forecast.rows.find((one) => one.answer === answer);
  const [first, held] = [row('exchange-first'), row('session')];

  expect(first?.versions).toEqual(['4.1.0', '4.2.0']);
  expect(held?.versions).toEqual(['3.9.0']);
  expect(row('token')).toBeUndefined();
  expectNear(peopleOf('exchange-first'), first?.people ?? 0, 'people who are told to exchange first');
  expectNear(peopleOf('exchanged'), forecast.moving.people, 'people who exchange');
  const heldAfter = after.filter(({ version }) => version === '3.9.0');
  expect(new Set(heldAfter.map(({ answer }) => answer))).toEqual(new Set(['session']));
  expectNear(new Set(heldAfter.map(({ person }) => person)).size, held?.people ?? 0, 'people who stay on sessions');
  expectNear(perSecond(heldAfter), held?.requestsPerSecond ?? 0, 'requests a second by session');
  // Who has exchanged comes as often as before.
  const ofMoved = after.filter(({ version, answer }) => version !== '3.9.0' && (answer === 'token' || answer === 'session'));
  expectNear(perSecond(ofMoved), first?.requestsPerSecond ?? 0, 'requests a second of those who have exchanged');
  expect(after.filter(({ answer }) => answer === 'other')).toEqual([]);
}, 180_000);

it('what-if of a cohort that there is not names those that there are, and changes nothing', async () => {
  await expect(place.bridges[0]?.run('what-if', '--cohort', 'web', '--stage', 'dual')).rejects.toThrow(
    'there is no cohort web: there are app, partner, kiosk',
  );
});
