import { decodeJwt } from 'jose';
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/clock.js';
import { readKey, resign } from '../support/forge.js';
import type { Instance } from '../support/instance.js';
import { exchangeNative } from '../support/tokens.js';
import { rememberToken } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import type { World } from '../support/world.js';

const openWorld = useWorlds();

async function metric(at: Instance, name: string): Promise<number> {
  const line = (await at.metrics()).split('\n').find((found) => found.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? 0);
}

const checked = async (at: Instance, outcome: 'good' | 'bad' = 'good') => await metric(at, `crossfade_token_signatures_total{outcome="${outcome}"}`);
const remembered = async (at: Instance) => await metric(at, 'crossfade_remembered_tokens');

/** Tokens of one session that differ in nothing but their name. */
async function tokensOf(world: World, count: number): Promise<string[]> {
  const token = await world.token(await world.login('alice'));
  const key = readKey(world.directory);
  return await Promise.all(Array.from({ length: count }, async (_, n) => await resign(token, key, { claims: { jti: `token-${n}` } })));
}

/** Well spelled, and signed by nobody. */
function forge(token: string, n: number): string {
  const [head = '', body = ''] = token.split('.');
  const forged = `${head}.${body}.${Buffer.alloc(64, n + 1).toString('base64url')}`;
  rememberToken(forged);
  return forged;
}

async function expectUnauthorized(world: World, bearer: string): Promise<void> {
  const { result, storeReached, handlerReached } = await world.watching(async () => await world.call('/', { bearer }));
  expect([result.status, await result.json(), storeReached, handlerReached]).toEqual([401, { error: 'invalid_token' }, false, false]);
}

describe('a token that was verified', () => {
  it('is verified once, however often it is shown, and asks Redis nothing', async () => {
    const world = await openWorld();
    const token = await world.token(await world.login('alice'));
    const before = await checked(world);
    const sent = world.store.sentBytes;
    for (let n = 0; n < 50; n++) expect((await world.call('/me', { bearer: token })).status).toBe(200);
    expect((await checked(world)) - before).toBe(1);
    expect(world.store.sentBytes).toBe(sent);
  });

  it('is verified once where many show it for the first time at once', async () => {
    const world = await openWorld();
    const [token = ''] = await tokensOf(world, 1);
    const before = await checked(world);
    const answers = await Promise.all(Array.from({ length: 100 }, async () => (await world.call('/me', { bearer: token })).status));
    expect(answers.every((status) => status === 200)).toBe(true);
    expect((await checked(world)) - before).toBe(1);
  });

  it('gives a principal that no handler can change for those that come after', async () => {
    const world = await openWorld({
      handlers: async (ctx, next) => {
        const { principal } = ctx.state;
        if (ctx.query['break'] !== undefined && principal) {
          for (const change of [
            () => Reflect.set(principal, 'subject', 'somebody-else'),
            () => Array.prototype.push.call(principal.roles, 'root'),
            () => Array.prototype.push.call(principal.scope, 'everything'),
          ])
            try {
              change();
            } catch {
              // As it should be.
            }
        }
        await next();
      },
    });
    const token = await world.token(await world.login('bob'));
    const first = await (await world.call('/me', { bearer: token })).json();
    await world.call('/me?break', { bearer: token });
    expect(await (await world.call('/me', { bearer: token })).json()).toEqual(first);
  });

  it('is forgotten by the bound: of 200 tokens no more than twice 20 are held, and all of them go on being good', async () => {
    const world = await openWorld({ configure: (config) => ({ ...config, bearer: { rememberedTokens: 20 } }) });
    const tokens = await tokensOf(world, 200);
    for (const bearer of tokens) expect((await world.call('/me', { bearer })).status).toBe(200);
    expect(await remembered(world)).toBeLessThanOrEqual(40);
    for (const bearer of tokens) expect((await world.call('/me', { bearer })).status).toBe(200);
    expect(await remembered(world)).toBeLessThanOrEqual(40);
  });

  it('long tokens count for more than one', async () => {
    const world = await openWorld({ configure: (config) => ({ ...config, bearer: { rememberedTokens: 20 } }) });
    const token = await world.token(await world.login('alice'));
    const key = readKey(world.directory);
    const roles = Array.from({ length: 150 }, (_, n) => `a-role-with-a-long-name-${n}`);
    for (let n = 0; n < 60; n++) {
      const bearer = await resign(token, key, { claims: { jti: `long-${n}`, roles } });
      expect((await world.call('/me', { bearer })).status).toBe(200);
    }
    expect(await remembered(world)).toBeLessThanOrEqual(12);
  });

  it('0 remembers none', async () => {
    const world = await openWorld({ configure: (config) => ({ ...config, bearer: { rememberedTokens: 0 } }) });
    const token = await world.token(await world.login('alice'));
    const before = await checked(world);
    for (let n = 0; n < 3; n++) expect((await world.call('/me', { bearer: token })).status).toBe(200);
    expect([(await checked(world)) - before, await remembered(world)]).toEqual([3, 0]);
  });

  it('is not pushed out by junk: what fails its check is not remembered', async () => {
    const world = await openWorld({ configure: (config) => ({ ...config, bearer: { rememberedTokens: 5 } }) });
    const token = await world.token(await world.login('alice'));
    expect((await world.call('/me', { bearer: token })).status).toBe(200);
    const before = [await checked(world), await checked(world, 'bad')];
    const forged = await Promise.all(Array.from({ length: 100 }, async (_, n) => (await world.call('/me', { bearer: forge(token, n) })).status));
    expect(forged.every((status) => status === 401)).toBe(true);
    expect((await world.call('/me', { bearer: token })).status).toBe(200);
    expect(await remembered(world)).toBe(1);
    expect([await checked(world), await checked(world, 'bad')]).toEqual([before[0], Number(before[1]) + 100]);
  });

  it('is refused once it was revoked, on every instance, and dropped', async () => {
    const world = await openWorld();
    const other = await world.another();
    const cookie = await world.login('alice');
    const { access } = await exchangeNative(world, cookie);
    for (const at of [world, other]) expect((await at.call('/me', { bearer: access })).status).toBe(200);
    expect(await remembered(world)).toBe(1);
    expect((await world.post('/auth/logout', {}, { bearer: access })).status).toBe(204);
    await expectUnauthorized(world, access);
    expect(await remembered(world)).toBe(0);
    await expect.poll(async () => (await other.call('/me', { bearer: access })).status).toBe(401);
    expect(await remembered(other)).toBe(0);
  });

  it('is refused once its family or its person was ended', async () => {
    const world = await openWorld();
    const cookie = await world.login('alice');
    const one = await exchangeNative(world, cookie);
    const two = await exchangeNative(world, cookie);
    for (const { access } of [one, two]) expect((await world.call('/me', { bearer: access })).status).toBe(200);
    expect((await world.post('/auth/revoke', { token: one.refresh, client_id: 'android' })).status).toBe(200);
    await expectUnauthorized(world, one.access);
    expect((await world.call('/me', { bearer: two.access })).status).toBe(200);
    await world.bridge.endSubject('u-alice', { why: 'a test' });
    await expectUnauthorized(world, two.access);
    expect(await remembered(world)).toBe(0);
  });

  it('lives no longer than its `exp`, and not before its time where the clock is set back', async () => {
    let aheadMs = 0;
    const clock: Clock = { now: () => Date.now() + aheadMs };
    const world = await openWorld({ bridge: { clock }, configure: (config) => ({ ...config, tokens: { clockSkewSeconds: 30 } }) });
    const token = await world.token(await world.login('alice'));
    expect((await world.call('/me', { bearer: token })).status).toBe(200);
    const { exp = 0, iat = 0 } = decodeJwt(token);
    aheadMs = (exp + 29) * 1000 - Date.now();
    expect((await world.call('/me', { bearer: token })).status).toBe(200);
    aheadMs = (exp + 31) * 1000 - Date.now();
    await expectUnauthorized(world, token);
    expect(await remembered(world)).toBe(0);
    aheadMs = 0;
    expect((await world.call('/me', { bearer: token })).status).toBe(200);
    aheadMs = (iat - 31) * 1000 - Date.now();
    await expectUnauthorized(world, token);
  });

  it('what nobody shows again is dropped after its `exp` as well', async () => {
    let aheadMs = 0;
    const world = await openWorld({ bridge: { clock: { now: () => Date.now() + aheadMs } } });
    const tokens = await tokensOf(world, 30);
    for (const bearer of tokens) expect((await world.call('/me', { bearer })).status).toBe(200);
    expect(await remembered(world)).toBe(30);
    aheadMs = 3_600_000;
    const fresh = await resign(tokens[0] ?? '', readKey(world.directory), {
      claims: { iat: Math.floor((Date.now() + aheadMs) / 1000), exp: Math.floor((Date.now() + aheadMs) / 1000) + 60 },
    });
    expect((await world.call('/me', { bearer: fresh })).status).toBe(200);
    await expect.poll(async () => await remembered(world)).toBe(1);
  });
});
