import { createHash } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import Keygrip from 'keygrip';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startRedis } from '../../scripts/lib/private-redis.js';
import { runCli } from '../support/cli.js';
import { basic, cookiesOf, exchangeNative, postReturn } from '../support/tokens.js';
import { remember } from '../support/transcript.js';
import { useWorlds } from '../support/use-worlds.js';
import { CLIENT_SECRETS, type World } from '../support/world.js';

const open = useWorlds();
const NEXT = 'the-next-cookie-secret-of-the-app-5d1c';
remember(NEXT);

function put(world: World, ...lines: string[]): void {
  const path = join(world.directory, 'session-secrets');
  writeFileSync(`${path}.new`, `${lines.join('\n')}\n`);
  renameSync(`${path}.new`, path);
}

/** Until the file that stands there now is in force. */
async function change(world: World, ...lines: string[]): Promise<void> {
  const from = world.log.all.length;
  put(world, ...lines);
  await world.log.until((line) => line['audit'] === 'secret.changed', from);
}

const statusOf = async (at: Pick<World, 'call'>, cookie: string) => (await at.call('/me', { cookie })).status;

function writeConfig(world: World): string {
  const path = join(world.directory, 'crossfade.json');
  writeFileSync(path, JSON.stringify(world.config));
  return path;
}

function kept(seconds: number): Parameters<typeof open>[0] {
  return {
    configure: (config) => ({
      ...config,
      sessions: (config.sessions ?? []).map((session) => ({ ...session, keepDroppedSecretSeconds: seconds })),
    }),
  };
}

describe('a cookie secret that its file has lost', () => {
  it('goes on verifying, on an instance that starts later as well, and is named; the line - ends it everywhere, and taking that out undoes it', async () => {
    const world = await open();
    const other = await world.another();
    const cookie = await world.login('alice');
    const [old = ''] = world.secrets;
    await change(world, NEXT);
    const late = await world.another();
    for (const at of [world, other, late]) expect(await statusOf(at, cookie)).toBe(200);
    const told = await world.log.until((line) => line['audit'] === 'secret.dropped');
    expect(told).toMatchObject({ entry: 'web', secret: expect.stringMatching(/^\w{10}$/) });
    const path = writeConfig(world);
    // As of its last heartbeat.
    await expect
      .poll(async () => (await runCli(['status', '--config', path])).stdout.replaceAll(/\s+/g, ' '), { timeout: 15_000 })
      .toMatch(/secretsFile has lost the cookie secret \w+, which verifies until \S+ \(100 % of the sessions of the last minutes use it\)/);
    expect(world.log.all.some((line) => JSON.stringify(line).includes(old))).toBe(false);
    await change(world, NEXT, '-', old);
    for (const at of [world, other, late]) await expect.poll(async () => await statusOf(at, cookie)).toBe(401);
    const refused = await world.watching(() => world.call('/me', { cookie }));
    expect(refused).toMatchObject({ storeReached: false, handlerReached: false });
    // Where Redis has lost what was noted, it is written again: an instance with an old file must not take it.
    await change(world, NEXT, old);
    for (const at of [world, other, late]) await expect.poll(async () => await statusOf(at, cookie)).toBe(200);
  });

  it('is not lost as long as the file of a live instance has it: one that started with an older file verifies it too', async () => {
    const world = await open(kept(1));
    const [first = '', second = ''] = world.secrets;
    const cookie = await world.login('alice');
    await change(world, NEXT, first, second);
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-older-'));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    writeFileSync(join(directory, 'session-secrets'), `${second}\n`);
    const stale = await world.another({
      configure: (config) => ({
        ...config,
        sessions: (config.sessions ?? []).map((session) => ({ ...session, secretsFile: join(directory, 'session-secrets') })),
      }),
    });
    await world.bridge.reload();
    const endsAt = Date.now() + 2500;
    await expect.poll(() => Date.now() > endsAt).toBe(true);
    await stale.bridge.reload();
    for (const at of [world, stale]) await expect.poll(async () => await statusOf(at, cookie)).toBe(200);
    // No file has it for ever: once no live one has, its time begins.
    const field = await world.legacy.redis.hkeys(`${world.prefix}cookie-secrets`);
    expect(field.filter((name) => name.startsWith('note '))).toHaveLength(3);
  });

  it('ends at once also where the line has a space behind its -', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    const [first = '', second = ''] = world.secrets;
    await change(world, NEXT, `- ${first}`, `- ${second}`);
    await expect.poll(async () => await statusOf(world, cookie)).toBe(401);
  });

  it('ends at once where keepDroppedSecretSeconds is 0, and after its time on all instances, whoever lost it later', async () => {
    const never = await open(kept(0));
    const cookie = await never.login('alice');
    await change(never, NEXT);
    await expect.poll(async () => await statusOf(never, cookie)).toBe(401);

    const world = await open(kept(1));
    const brief = await world.login('alice');
    await change(world, NEXT);
    expect(await statusOf(world, brief)).toBe(200);
    await expect.poll(async () => await statusOf(world, brief), { timeout: 5000 }).toBe(401);
    const late = await world.another();
    expect(await statusOf(late, brief)).toBe(401);
  });

  it('of one that was lost here, and later there, the last counts, however short its time is', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'crossfade-late-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const file = join(directory, 'session-secrets');
    const world = await open(kept(3));
    writeFileSync(file, `${world.secrets.join('\n')}\n`);
    const other = await world.another({
      configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, secretsFile: file })) }),
    });
    const cookie = await world.login('alice');
    await change(world, NEXT);
    // The other one has it in its file, and says so with its heartbeat.
    const first = Date.parse(String(world.log.audits('secret.dropped')[0]?.['until']));
    await expect.poll(async () => Date.now() > first && (await statusOf(world, cookie)) === 200, { timeout: 20_000 }).toBe(true);
    expect(await statusOf(other, cookie)).toBe(200);
    writeFileSync(file, `${NEXT}\n`);
    // What it had said itself would last for half a minute.
    await expect.poll(async () => await statusOf(world, cookie), { timeout: 20_000 }).toBe(401);
  });

  it('goes on where it was lost while the bridge was stopped', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    expect(await statusOf(world, cookie)).toBe(200);
    await world.bridge.close();
    put(world, NEXT);
    const restarted = await world.another();
    await expect.poll(async () => await statusOf(restarted, cookie)).toBe(200);
  });

  it('stays ended where Redis has lost everything', async () => {
    const redis = await startRedis();
    try {
      const world = await open({ redisUrl: redis.url });
      const cookie = await world.login('alice');
      const [old = '', older = ''] = world.secrets;
      await change(world, NEXT, '-', old, older);
      await expect.poll(async () => await statusOf(world, cookie)).toBe(401);
      const admin = new Redis(redis.url);
      await admin.flushall();
      await expect.poll(async () => await admin.exists(`${world.prefix}cookie-secrets`), { timeout: 15_000 }).toBe(1);
      admin.disconnect();
      // Its file does not say so any more.
      writeFileSync(join(world.directory, 'old-secrets'), `${NEXT}\n${old}\n`);
      const late = await world.another({
        configure: (config) => ({ ...config, sessions: (config.sessions ?? []).map((session) => ({ ...session, secretsFile: 'old-secrets' })) }),
      });
      expect(await statusOf(late, cookie)).toBe(401);
    } finally {
      await redis.stop();
    }
  });

  it('a file in which nothing is in use any more, or with white space around a secret, changes nothing and is named', async () => {
    const world = await open();
    const cookie = await world.login('alice');
    for (const lines of [['-', ...world.secrets], [''], [` ${NEXT}`]]) {
      const from = world.log.all.length;
      put(world, ...lines);
      await world.log.until((line) => line['audit'] === 'secret.rejected', from);
      expect(await statusOf(world, cookie)).toBe(200);
    }
  });

  it('never signs: a session that comes back is signed with the newest one under which the app was seen', async () => {
    const world = await open();
    const [old = ''] = world.secrets;
    const cookie = await world.login('alice');
    const tokens = await exchangeNative(world, cookie);
    // The app still signs with the old one: it reads its secrets when it restarts.
    await change(world, NEXT, old);
    const back = await postReturn(world, tokens.refresh);
    expect(back.status).toBe(204);
    const pairs = new Map(
      cookiesOf(back)
        .split('; ')
        .map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)] as const),
    );
    const signed = `koa.sess=${pairs.get('koa.sess')}`;
    expect(new Keygrip([old]).verify(signed, pairs.get('koa.sess.sig') ?? '')).toBe(true);
    expect(new Keygrip([NEXT]).verify(signed, pairs.get('koa.sess.sig') ?? '')).toBe(false);
  });
});

describe('other secrets in files', () => {
  it("a client's secret: the file may hold several hashes, and is read again", async () => {
    const world = await open();
    const { access } = await exchangeNative(world, await world.login('alice'));
    const next = 'the-next-secret-of-orders-api-77aa';
    remember(next);
    const introspect = async (secret: string) =>
      (await world.post('/auth/introspect', { token: access }, { headers: basic('orders-api', secret) })).status;
    const hashOf = (secret: string) => createHash('sha256').update(secret).digest('hex');
    const replace = (text: string) => {
      const path = join(world.directory, 'orders-api.sha256');
      writeFileSync(`${path}.new`, text);
      renameSync(`${path}.new`, path);
    };
    replace(`${hashOf(next)}\n${hashOf(CLIENT_SECRETS['orders-api']).toUpperCase()}\n`);
    await expect.poll(async () => await introspect(next)).toBe(200);
    expect(await introspect(CLIENT_SECRETS['orders-api'])).toBe(200);
    replace(hashOf(next));
    await expect.poll(async () => await introspect(CLIENT_SECRETS['orders-api'])).toBe(401);
    expect(await introspect(next)).toBe(200);
  });
});
