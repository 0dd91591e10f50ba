import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, randomUUID, sign } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { calculateJwkThumbprint, exportJWK } from 'jose';

export const ALGORITHMS = ['ES256', 'RS256', 'EdDSA'] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** What all the apps of a run share: keys, secrets, and where the sessions are. Written once, read by every process. */
export interface Fixture {
  readonly directory: string;
  /** Signs the cookies of all sessions, as koa-session does. */
  readonly cookieSecret: string;
  readonly issuer: string;
  readonly audience: string;
}

/** A key of each algorithm, in a directory of its own as the bridge wants it, and a fleet secret. */
export function createFixture(directory: string): Fixture {
  for (const algorithm of ALGORITHMS) {
    const keys = join(directory, algorithm);
    mkdirSync(keys, { recursive: true, mode: 0o700 });
    writeFileSync(join(keys, 'bench.pem'), newKey(algorithm), { mode: 0o600 });
  }
  const cookieSecret = randomBytes(24).toString('base64url');
  writeFileSync(join(directory, 'session-secrets'), `${cookieSecret}\n`, { mode: 0o600 });
  writeFileSync(join(directory, 'fleet-secret'), `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600 });
  const flag = { version: 1, on: true, offVariation: 0, salt: 'bench', rules: [], fallthrough: { variation: 0 } };
  const stage = { ...flag, key: 'auth-migration-stage', variations: ['dual'] };
  const kill = { ...flag, key: 'auth-migration-kill-switch', variations: [false] };
  writeFileSync(join(directory, 'flags.json'), JSON.stringify({ flags: { [stage.key]: stage, [kill.key]: kill } }));
  return { directory, cookieSecret, issuer: 'https://app.example.com', audience: 'https://api.example.com' };
}

function newKey(algorithm: Algorithm): string {
  const pairs = {
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
    EdDSA: () => generateKeyPairSync('ed25519'),
  };
  return pairs[algorithm]().privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

export interface TokenOptions {
  readonly fixture: Fixture;
  readonly algorithm: Algorithm;
  readonly pem: string;
  readonly count: number;
  /** Among how many tenants the persons are. Default: 10. */
  readonly tenants?: number;
  /** Whether each gets a signature that is spelled well and wrong. */
  readonly forged?: boolean;
}

/** Access tokens as the bridge issues them, each of a person and a session of its own. */
export async function createTokens({ fixture, algorithm, pem, count, tenants = 10, forged = false }: TokenOptions): Promise<string[]> {
  const key = createPrivateKey(pem);
  const kid = await calculateJwkThumbprint(await exportJWK(createPublicKey(key)));
  const now = Math.floor(Date.now() / 1000);
  const tokens: string[] = [];
  for (let n = 0; n < count; n++) {
    const claims = {
      iss: fixture.issuer,
      sub: `u-${n}`,
      aud: fixture.audience,
      exp: now + 80_000,
      iat: now,
      jti: randomBytes(16).toString('base64url'),
      client_id: 'web',
      sid: randomBytes(24).toString('base64url'),
      fid: `${Date.now()}${randomBytes(12).toString('base64url')}`,
      auth_time: now - 60,
      tenant: `tenant-${n % tenants}`,
      roles: ['member'],
      scope: 'read:orders',
    };
    const input = [{ alg: algorithm, typ: 'at+jwt', kid }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    const signature = forged
      ? randomBytes(algorithm === 'RS256' ? 256 : 64)
      : sign(algorithm === 'EdDSA' ? null : 'sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
    tokens.push(`${input}.${signature.toString('base64url')}`);
  }
  return tokens;
}

export interface SessionsOptions {
  readonly fixture: Fixture;
  readonly redisUrl: string;
  readonly count: number;
  /** How many of them are given as cookies. Default: all. */
  readonly cookies?: number;
  readonly tenants?: number;
}

/** Records as koa-session 7 writes them after a login, and the `Cookie` headers that go with them. */
export async function createSessions({ fixture, redisUrl, count, cookies = count, tenants = 10 }: SessionsOptions): Promise<string[]> {
  const redis = new Redis(redisUrl);
  const headers: string[] = [];
  const every = Math.max(1, Math.floor(count / cookies));
  try {
    for (let n = 0; n < count; ) {
      const pipeline = redis.pipeline();
      for (const end = Math.min(count, n + 5000); n < end; n++) {
        const id = randomUUID();
        const user = { id: `u-${n}`, tenant: `tenant-${n % tenants}`, roles: ['member'], scope: ['read:orders'], loggedInAt: Date.now() };
        const maxAge = 86_400_000;
        pipeline.set(id, JSON.stringify({ user, cart: [], _expire: Date.now() + maxAge, _maxAge: maxAge }), 'PX', maxAge + 10_000);
        if (n % every === 0 && headers.length < cookies)
          headers.push(`koa.sess=${id}; koa.sess.sig=${signatureOf(`koa.sess=${id}`, fixture.cookieSecret)}`);
      }
      await pipeline.exec();
    }
  } finally {
    redis.disconnect();
  }
  return headers;
}

/** As Keygrip signs. */
function signatureOf(pair: string, secret: string): string {
  return createHmac('sha1', secret).update(pair).digest('base64url');
}
