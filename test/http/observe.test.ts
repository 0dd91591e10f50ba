import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ExpectedPrincipal } from '../../src/rollout/comparison.js';
import { exchangeNative } from '../support/tokens.js';
import { useWorlds } from '../support/use-worlds.js';
import type { WorldOptions } from '../support/world.js';

const open = useWorlds();

const observing: WorldOptions = { configure: (config) => ({ ...config, mode: 'observe', observe: { expectedHeader: 'X-App-Subject' } }) };

function counted(metrics: string, name: string): number {
  return Number(
    metrics
      .split('\n')
      .find((line) => line.startsWith(name))
      ?.split(' ')
      .at(-1) ?? 0,
  );
}

describe('mode: observe', () => {
  it('answers and decides nothing: the handler is reached without a principal, whatever was presented', async () => {
    const world = await open(observing);
    const cookie = await world.login('alice');
    for (const credential of [{ cookie }, { bearer: 'a.b.c' }, { cookie: 'koa.sess=junk; koa.sess.sig=junk' }, {}]) {
      const response = await world.call('/somewhere', credential);
      expect([response.status, await response.json()]).toMatchObject([200, { principal: null, rejection: null }]);
      expect(response.headers.getSetCookie()).toEqual([]);
    }
    expect(world.reached()).toBe(4);
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(1);
    const metrics = await world.metrics();
    expect(counted(metrics, 'crossfade_observed_total{client="unknown",outcome="invalid_token"}')).toBe(1);
    expect(counted(metrics, 'crossfade_observed_total{client="unknown",outcome="bad-signature"}')).toBe(1);
    expect(counted(metrics, 'crossfade_observed_total{client="unknown",outcome="anonymous"}')).toBe(1);
  });

  it("has no endpoints: they are the app's, and no token comes of it", async () => {
    const world = await open(observing);
    const cookie = await world.login('alice');
    const response = await world.exchange(cookie);
    expect(await response.json()).toHaveProperty('principal');
    expect(world.log.audits('exchange.granted')).toEqual([]);
  });

  it('forward-auth lets everybody pass and names nobody, for a mirror', async () => {
    const world = await open(observing);
    const response = await world.call('/auth/verify', { cookie: await world.login('alice') });
    expect([response.status, await response.text(), response.headers.get('x-auth-subject')]).toEqual([200, '', '']);
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(1);
  });

  it.each([
    ['the same', 'u-alice', undefined],
    ['somebody else', 'u-bob', 'subject-differs'],
    ['nobody', '', 'only-bridge'],
  ])('compares with the header in which the app names %s', async (_whom, header, code) => {
    const world = await open({
      ...observing,
      handlers: async (ctx, next) => {
        ctx.set('X-App-Subject', header);
        await next();
      },
    });
    const response = await world.call('/', { cookie: await world.login('alice') });
    expect(response.status).toBe(200);
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(1);
    const metrics = await world.metrics();
    if (code) expect(counted(metrics, `crossfade_mismatches_total{where="observe",code="${code}"}`)).toBe(1);
    else expect(metrics).not.toContain('crossfade_mismatches_total{where="observe"');
    expect(metrics).not.toContain('u-alice');
  });

  it('compares field by field with what expected(ctx) gives, and says so where only the app found somebody', async () => {
    let expected: ExpectedPrincipal | null = { subject: 'u-alice', tenant: 'acme', roles: ['billing', 'admin'], scope: ['read:orders'] };
    const world = await open({ configure: (config) => ({ ...config, mode: 'observe' }), bridge: { observe: { expected: () => expected } } });
    await world.call('/', { cookie: await world.login('alice') });
    await expect.poll(async () => await world.metrics()).toContain('crossfade_mismatches_total{where="observe",code="scope-differs"} 1');
    expect(await world.metrics(), 'the order of roles does not count').not.toContain('roles-differ');
    await world.call('/');
    await expect.poll(async () => await world.metrics()).toContain('crossfade_mismatches_total{where="observe",code="only-app"} 1');
    expected = null;
    await world.call('/');
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="anonymous"}')).toBe(2);
    expect(await world.metrics()).toContain('crossfade_mismatches_total{where="observe",code="only-app"} 1');
  });

  it('waits for what expected(ctx) promises, and a promise that is broken is told and harms nobody', async () => {
    let answer = async (): Promise<string> => 'u-bob';
    const world = await open({ configure: (config) => ({ ...config, mode: 'observe' }), bridge: { observe: { expected: () => answer() } } });
    const cookie = await world.login('alice');
    await world.call('/', { cookie });
    await expect.poll(async () => await world.metrics()).toContain('crossfade_mismatches_total{where="observe",code="subject-differs"} 1');
    answer = async () => {
      throw new Error('the callback is broken');
    };
    expect((await world.call('/', { cookie })).status).toBe(200);
    await world.log.until((line) => line['msg'] === 'observe.expected failed: this request was not compared');
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(2);
  });

  it('comes before all stages: at jwt-only a session is compared all the same', async () => {
    const world = await open({
      stage: 'jwt-only',
      configure: (config) => ({ ...config, mode: 'observe' }),
      bridge: { observe: { expected: () => 'u-alice' } },
    });
    await world.call('/', { cookie: await world.login('alice'), headers: { 'x-client-id': 'android' } });
    await expect
      .poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="android",outcome="session_not_accepted"}'))
      .toBe(1);
    expect(await world.metrics()).not.toContain('crossfade_mismatches_total{where="observe"');
  });

  it('requests that stay open for long do not keep others from being observed', async () => {
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const world = await open({
      ...observing,
      handlers: async (ctx, next) => {
        if (ctx.path === '/poll') await released;
        await next();
      },
    });
    const polls = Array.from({ length: 70 }, async () => await world.call('/poll'));
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="anonymous"}')).toBe(70);
    await world.call('/', { cookie: await world.login('alice') });
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(1);
    release();
    await Promise.all(polls);
  });

  it('looks into 64 requests at once; more pass unseen, and are counted', async () => {
    const world = await open({ configure: (config) => ({ ...config, mode: 'observe', redis: { ...config.redis, commandTimeoutMs: 1000 } }) });
    const cookie = await world.login('alice');
    world.store.silence();
    const answers = await Promise.all(Array.from({ length: 80 }, async () => (await world.call('/', { cookie })).status));
    expect(new Set(answers)).toEqual(new Set([200]));
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="unavailable"}')).toBe(64);
    expect(counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="left-out"}')).toBe(16);
    await world.store.restore();
  });

  it('bridge.require() has no place in it, and says so when it is made', async () => {
    const world = await open(observing);
    expect(() => world.bridge.require()).toThrow('mode: observe decides nothing');
  });

  it('Law 1: neither a silent Redis, nor a callback that throws, nor an app that fails changes what the app answers', async () => {
    const broken = () => {
      throw new Error('the callback is broken');
    };
    const world = await open({
      configure: (config) => ({ ...config, mode: 'observe', redis: { ...config.redis, commandTimeoutMs: 3000 } }),
      bridge: { observe: { expected: broken } },
      handlers: async (ctx, next) => {
        if (ctx.path === '/teapot') ctx.throw(418);
        await next();
      },
    });
    const cookie = await world.login('alice');
    expect((await world.call('/teapot', { cookie })).status).toBe(418);
    await world.log.until((line) => String(line['msg']).startsWith('observe.expected failed'));
    await expect.poll(async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="session"}')).toBe(1);
    world.store.silence();
    const unavailable = async () => counted(await world.metrics(), 'crossfade_observed_total{client="unknown",outcome="unavailable"}');
    expect((await world.call('/', { cookie })).status).toBe(200);
    expect(await unavailable(), 'the bridge still waits for Redis, and the app has answered').toBe(0);
    await expect.poll(unavailable).toBe(1);
    await world.store.restore();
  });
});

describe('the shadow mint', () => {
  const shadowing = (more: WorldOptions = {}): WorldOptions => ({
    stage: 'shadow',
    configure: (config) => ({ ...config, rollout: { ...config.rollout, shadowSampleRate: 1 } }),
    ...more,
  });

  it('mints, verifies and compares the token of a session at shadow, and gives it to nobody', async () => {
    const world = await open(shadowing());
    const response = await world.call('/me', { cookie: await world.login('alice'), headers: { 'x-client-id': 'android' } });
    expect(response.status).toBe(200);
    await expect.poll(async () => await world.metrics()).toContain('crossfade_shadow_mints_total{client="android",outcome="same"} 1');
    expect(await world.metrics()).not.toContain('crossfade_mismatches_total{');
    expect(world.log.audits('exchange.granted')).toEqual([]);
  });

  it('says by a code what would go wrong, and the request does not notice', async () => {
    const world = await open(shadowing({ prepare: (directory) => rmSync(join(directory, 'keys'), { recursive: true }) }));
    // Signing is broken: everybody is at session-only, and nothing is minted.
    expect((await world.call('/me', { cookie: await world.login('alice') })).status).toBe(200);
    expect(await world.metrics()).not.toContain('crossfade_shadow_mints_total{');
    // A name that is no text in JSON as a token needs it: the session serves, a token could not.
    const odd = await open({
      ...shadowing(),
      bridge: { principal: () => ({ subject: 'u-alice', roles: Array.from({ length: 250 }, (_, n) => `role-${n}-`.padEnd(100, 'x')) }) },
    });
    expect((await odd.call('/me', { cookie: await odd.login('alice') })).status).toBe(200);
    await expect.poll(async () => await odd.metrics()).toContain('crossfade_mismatches_total{where="shadow",code="not-verified"} 1');
  });

  it('is for sessions at shadow alone', async () => {
    const world = await open({ configure: (config) => ({ ...config, rollout: { ...config.rollout, shadowSampleRate: 1 } }) });
    const { access } = await exchangeNative(world, await world.login('alice'));
    expect((await world.call('/me', { bearer: access })).status).toBe(200);
    expect((await world.call('/me', { cookie: await world.login('alice') })).status).toBe(200);
    expect(await world.metrics()).not.toContain('crossfade_shadow_mints_total{');
  });
});
