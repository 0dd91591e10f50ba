import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startLegacyApp } from '../../scripts/lib/legacy-app.js';
import { type PrivateRedis, startRedis } from '../../scripts/lib/private-redis.js';
import type { ConfigInput } from '../../src/config/config.js';
import { startExpressApp } from '../apps/express-app.js';
import { rollingHash, startHomeMadeApp } from '../apps/home-made-app.js';
import { startKoaGenericApp } from '../apps/koa-generic-app.js';
import { startPhpApp } from '../apps/php-app.js';
import { writeKey } from '../support/keys.js';
import { remember } from '../support/transcript.js';
import { createWorld } from '../support/world.js';
import { type Chromium, startChromium } from './chromium.js';
import { behind, startFront } from './front.js';

type SessionEntry = ConfigInput['sessions'][number];
type StartApp = (redis: PrivateRedis, secrets: readonly string[]) => Promise<{ readonly url: string; close(): Promise<void> }>;

/** A record ends so long after its last use. */
const LIFE_MS = 4000;
const LIFE_SECONDS = LIFE_MS / 1000;
const LIVES = 3;

let browser: Chromium;
beforeAll(async () => {
  browser = await startChromium();
});
afterAll(async () => await browser?.close());

it.each<[what: string, start: StartApp, entry: SessionEntry]>([
  [
    'koa-session, whose cookie comes again with each response',
    async (redis, secrets) => await startLegacyApp({ redisUrl: redis.url, secrets, session: { rolling: true, maxAge: LIFE_MS } }),
    { rolling: true, secretsFile: 'session-secrets', principal: { subject: 'user.id' } },
  ],
  [
    'koa-generic-session, whose cookie comes again with each response',
    async (redis, secrets) => await startKoaGenericApp(redis.url, secrets, { rolling: true, cookie: { maxAge: LIFE_MS } }),
    { format: 'koa-generic-session', rolling: true, secretsFile: 'session-secrets', principal: { subject: 'user.id' } },
  ],
  [
    'express-session, whose cookie ends with the browser and never comes again',
    async (redis, secrets) => await startExpressApp(redis.url, secrets, {}, { lifeSeconds: LIFE_SECONDS }),
    { format: 'express-session', rolling: true, secretsFile: 'session-secrets', principal: { subject: 'passport.user' } },
  ],
  [
    'PHP, whose cookie ends with the browser and never comes again',
    async (redis) => await startPhpApp(redis.port, 'php', { lifeSeconds: LIFE_SECONDS }),
    { format: 'php', principal: { subject: 'user.id' } },
  ],
  [
    'home-made, whose cookie ends with the browser as the configuration says',
    async (redis, secrets) => await startHomeMadeApp(redis.url, secrets, rollingHash(LIFE_SECONDS)),
    {
      format: 'json',
      cookie: 'sid',
      rolling: true,
      signed: false,
      cookieOptions: { expires: 'browser' },
      json: { key: 'app:{{id}}:session', storage: 'hash' },
      principal: { subject: 'user' },
    },
  ],
])(
  '%s: back from tokens, an active person is in for three lives of the record',
  async (_what, startApp, entry) => {
    const front = await startFront();
    const records = await startRedis();
    const admin = new Redis(records.url);
    const secrets = [randomBytes(24).toString('base64url')];
    remember(...secrets);
    const app = await startApp(records, secrets);
    const world = await createWorld({
      stage: 'jwt-preferred',
      configure(config) {
        const { sessions: _, ...rest } = behind(front)(config);
        return {
          ...rest,
          sessions: [{ ...entry, name: 'web', redis: { url: records.url }, cookieOptions: { secure: false, ...entry.cookieOptions } }],
        };
      },
      prepare(directory) {
        writeKey(join(directory, 'keys'), 'first.pem');
        writeFileSync(join(directory, 'session-secrets'), `${secrets.join('\n')}\n`);
      },
    });
    front.target = world.url;
    front.app = app.url;
    const [page, tab] = [await browser.context.newPage(), await browser.context.newPage()];
    const greeting = async () => {
      await tab.goto(`${front.url}/`);
      return await tab.textContent('body');
    };
    try {
      await browser.context.clearCookies();
      await page.goto(`${front.url}/page`);
      await page.waitForFunction(() => window.ask !== undefined);
      await page.evaluate(async () => void (await fetch('/login', { method: 'POST', body: new URLSearchParams({ name: 'alice' }) })));
      expect(await page.evaluate(async () => await window.ask())).toBe(200);
      await page.waitForFunction(() => window.client.state === 'jwt');
      // The record is lost: what comes back is a record and a cookie of the bridge's.
      await admin.flushdb();
      await world.setFlags({ 'auth-migration-stage': 'recall' });
      expect(await page.evaluate(async () => await window.ask())).toBe(200);
      await page.waitForFunction(() => window.client.state === 'session');
      const backAt = Date.now();
      while (Date.now() - backAt < LIVES * LIFE_MS + LIFE_MS / 2) {
        expect(await greeting(), `${Date.now() - backAt} ms after the return`).toBe('hello, u-alice');
        await page.waitForTimeout(LIFE_MS / 8);
      }
      // Unused it ends, as the app's own does.
      await page.waitForTimeout(LIFE_MS * 1.5);
      expect(await greeting()).toBe('hello, stranger');
    } finally {
      await page.close();
      await tab.close();
      await world.close();
      await app.close();
      admin.disconnect();
      await records.stop();
      await front.close();
    }
  },
  90_000,
);
