import type { LegacyApp } from '../lib/legacy-app.js';
import type { Random } from './random.js';
import type { Login } from './visitor.js';

const DAY_MS = 86_400_000;
/** Some sessions end by themselves while the drill is going on. */
const SHORT_SHARE = 0.05;
const SHORT_MS = 60_000;

/** The legacy app as people use it: their sessions are of all ages. */
export function createLegacyLogins({ login, logout, redis }: LegacyApp, random: Random) {
  return {
    async login(name: string): Promise<Login> {
      const cookie = await login(name);
      const key = keyOf(cookie);
      const record: unknown = JSON.parse((await redis.get(key)) ?? '{}');
      const fields = new Map<string, unknown>(record !== null && typeof record === 'object' ? Object.entries(record) : []);
      const user = fields.get('user');
      const lifeMs = random.next() < SHORT_SHARE ? SHORT_MS * (0.5 + random.next()) : DAY_MS * (0.1 + random.next() * 0.9);
      const endsAt = Math.floor(Date.now() + lifeMs);
      fields.set('user', {
        ...(user !== null && typeof user === 'object' ? user : {}),
        loggedInAt: Date.now() - Math.floor(random.next() * 60 * DAY_MS),
      });
      fields.set('_expire', endsAt);
      await redis.set(key, JSON.stringify(Object.fromEntries(fields)), 'PXAT', endsAt);
      return { cookie, endsAt };
    },
    logout: async (cookie: string) => await logout(cookie),
    hasRecord: async (cookie: string) => (await redis.exists(keyOf(cookie))) === 1,
  };
}

/** koa-session's id is the value of its cookie, and the key of the record. */
function keyOf(cookie: string): string {
  return /koa\.sess=([^;]+)/.exec(cookie)?.[1] ?? '';
}
