import { describe, expect, it } from 'vitest';
import type { SessionRejection } from '../../src/principal.js';
import { createNobodyKnown } from '../../src/sessions/nobody-known.js';
import { createLog } from '../../src/telemetry/log.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { LogLines } from '../support/log-lines.js';
import { useWorlds } from '../support/use-worlds.js';

const open = useWorlds();

function watchEntries() {
  const hands = { now: 1_800_000_000_000 };
  const log = new LogLines();
  const watch = createNobodyKnown({ clock: { now: () => hands.now }, log: createLog({ destination: log }), metrics: createMetrics() });
  const reject = (reason: SessionRejection, times: number, entry = 'web') => {
    for (let n = 0; n < times; n++) watch.note(entry, { kind: 'rejected', reason });
  };
  return { watch, hands, log, reject };
}

describe('an entry whose cookies never name a principal', () => {
  it.each<[SessionRejection, RegExp]>([
    ['bad-signature', /secretsFile/],
    ['unknown-session', /keyPrefix/],
    ['unreadable-record', /format/],
    ['nobody-logged-in', /principal\.subject/],
    ['unmappable-record', /a path under principal/],
  ])('is named after a minute, with what may be wrong: %s', (reason, hint) => {
    const { watch, hands, log, reject } = watchEntries();
    reject(reason, 19);
    hands.now += 60_000;
    expect(watch.problems).toEqual([]);
    reject(reason, 5);
    expect(watch.problems).toEqual([expect.stringMatching(hint)]);
    expect(watch.problems[0]).toMatch(/^sessions\.web: none of the last 24 cookies named a principal/);
    expect(log.all.filter(({ entry }) => entry === 'web')).toHaveLength(1);
  });

  it('is not named within the minute, nor for cookies of sessions that are over', () => {
    const { watch, hands, reject } = watchEntries();
    reject('bad-signature', 100);
    hands.now += 59_999;
    expect(watch.problems).toEqual([]);
    reject('expired', 1);
    hands.now += 60_000;
    reject('logged-out', 100);
    expect(watch.problems).toEqual([]);
  });
});

it.each([
  ['user.nothing', true],
  ['user.id', false],
])('a bridge whose principal.subject is %s says so: %s', async (subject, isTold) => {
  const hands = { ahead: 0 };
  const world = await open({
    bridge: { clock: { now: () => Date.now() + hands.ahead, steady: () => performance.now() + hands.ahead } },
    configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, principal: { subject } })) }),
  });
  const cookie = await world.login('alice');
  for (let n = 0; n < 25; n++) await world.call('/', { cookie });
  hands.ahead = 61_000;
  // A stranger's cookie does not hide that others are known.
  for (let n = 0; n < 25; n++) await world.call('/', { cookie: 'koa.sess=junk; koa.sess.sig=junk' });
  await world.call('/', { cookie });
  expect(world.log.all.some(({ msg }) => String(msg).includes('named a principal (most: nobody-logged-in)'))).toBe(isTold);
});
